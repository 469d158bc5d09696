"""The command line and the daemon as processes, each with a HOME of its own."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from proxyd.cli.main import main
from tests.support.paths import ROOT
from tests.support.ports import free_port

__all__ = ["Home", "Result", "command", "daemon", "environment", "home", "output", "run"]


@dataclass
class Result:
    code: int
    out: str
    err: str


@dataclass
class Home:
    """An empty HOME with a free port, which is all that tells one user's daemon from another's."""

    path: Path
    port: int
    run: Callable[..., Result]
    processes: list[subprocess.Popen[str]] = field(default_factory=list)

    @property
    def environ(self) -> dict[str, str]:
        return {
            "PATH": f"{self.path / 'bin'}:/usr/bin:/bin",
            "HOME": str(self.path),
            "PORT": str(self.port),
            "PYTHONPATH": str(ROOT),
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    @property
    def config(self) -> Path:
        return self.path / ".config" / "claude-proxy"

    def write_models(self, text: str) -> Path:
        self.config.mkdir(parents=True, exist_ok=True)
        path = self.config / "models.yaml"
        path.write_text(text)
        return path

    def program(self, name: str, script: str) -> None:
        """A program on this user's PATH."""
        folder = self.path / "bin"
        folder.mkdir(exist_ok=True)
        (folder / name).write_text(script)
        (folder / name).chmod(0o755)

    def process_with_mounts(self, mounts: str, *arguments: str) -> Result:
        """The command line as a process that sees the shell's `mounts`; skips the test where it may not mount."""
        script = f"{mounts} && exec {shlex.join(command(*arguments))}"
        done = subprocess.run(
            ["unshare", "--mount", "sh", "-c", script],
            env={**self.environ, "PATH": os.environ["PATH"]},
            cwd="/",
            capture_output=True,
            text=True,
            timeout=60,
        )
        if "unshare" in done.stderr or "mount:" in done.stderr:
            pytest.skip(f"no mount namespace here: {done.stderr.strip()}")
        return Result(done.returncode, done.stdout, done.stderr)

    def process(self, *arguments: str) -> Result:
        """The command line as a process."""
        done = subprocess.run(
            [sys.executable, "-m", "proxyd", *arguments],
            env=self.environ,
            cwd=self.path,
            capture_output=True,
            text=True,
            timeout=60,
        )
        return Result(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Iterator[Home]:
    """See `Home`. A daemon that a test has left is ended."""
    port = free_port()

    def run(*arguments: str) -> Result:
        monkeypatch.setattr(sys, "argv", ["claude-proxy", *arguments])
        code: object = 0
        try:
            main()
        except SystemExit as exc:
            code = exc.code
        captured = capfd.readouterr()
        return Result(code if isinstance(code, int) else 0, captured.out, captured.err)

    found = Home(tmp_path, port, run)
    for name in list(os.environ):
        if name.startswith(("XDG_", "CLAUDE_", "ANTHROPIC_", "LISTEN_")) or name in ("HOST", "NOTIFY_SOCKET"):
            monkeypatch.delenv(name)
    for name, value in found.environ.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    yield found
    run("stop")


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "proxyd", *arguments]


def environment(home: Path, **more: str) -> dict[str, str]:
    return {
        "PATH": os.defpath,
        "HOME": str(home),
        "PYTHONPATH": str(ROOT),
        "PYTHONDONTWRITEBYTECODE": "1",
        **more,
    }


def run(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments), env=environment(home), cwd=home, capture_output=True, text=True, timeout=30
    )


@contextmanager
def daemon(home: Path, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A running daemon and its base URL, read from its own log."""
    process = subprocess.Popen(
        command("--port", "0", *arguments),
        env=environment(home),
        cwd=home,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        for line in process.stderr:
            if "server.started" in line:
                break
        else:
            raise AssertionError(f"it ended with {process.wait()}")
        yield process, json.loads(line)["address"]
    finally:
        process.kill()
        process.communicate()


def output(home: Path, *arguments: str, stdin: str = "") -> str:
    result = subprocess.run(
        [sys.executable, "-m", "proxyd", *arguments],
        env={"PATH": os.defpath, "HOME": str(home), "PYTHONPATH": str(ROOT), "COLUMNS": "120"},
        input=stdin,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout
