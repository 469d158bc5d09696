"""``make dist`` and ``make dist-check``: build wheel and source distribution, and run them where nothing else is.

The check installs the wheel, and what it needs, into new environments of the oldest and the newest Python found, and
from an empty folder in an empty HOME runs `--version`, `init`, `check`, the daemon and one call of the demo.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from tests.support.paths import ROOT
from tests.support.ports import free_port

__all__ = ["build", "check", "find_pythons", "main"]

_LIMIT_S = 600
_MINORS = range(10, 20)


def build(target: Path) -> list[Path]:
    """Build both distributions from a copy of the tracked files into `target`; return their paths."""
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="claude-proxy-dist-") as folder:
        source = Path(folder) / "source"
        _copy(source)
        command = [
            sys.executable,
            "-m",
            "build",
            "--no-isolation",
            "--outdir",
            str(target.resolve()),
            str(source),
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=_LIMIT_S)
        if done.returncode != 0:
            raise SystemExit(f"the build failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return sorted(path for path in target.iterdir() if path.suffix == ".whl" or path.name.endswith(".tar.gz"))


def check(pythons: Sequence[str]) -> None:
    """Install the wheel on each Python and run it.

    Raises:
        SystemExit: something does not work.
    """
    with tempfile.TemporaryDirectory(prefix="claude-proxy-dist-") as folder:
        wheel = next(path for path in build(Path(folder) / "dist") if path.suffix == ".whl")
        for number, python in enumerate(pythons):
            _check_one(python, wheel, Path(folder) / f"environment-{number}")


def find_pythons() -> list[str]:
    """Return the oldest and the newest supported Python on PATH and among pyenv's."""
    found: dict[tuple[int, int], str] = {}
    candidates = [shutil.which(f"python3.{minor}") for minor in _MINORS] + [sys.executable]
    versions = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    candidates += [str(path) for path in sorted(versions.glob("3.*/bin/python"))]
    for candidate in candidates:
        if candidate is None:
            continue
        script = (
            "import ensurepip, sys, venv; print(*sys.version_info[:2])"  # not every system's Python has these
        )
        done = subprocess.run([candidate, "-c", script], capture_output=True, text=True, timeout=120)
        version = tuple(map(int, done.stdout.split())) if done.returncode == 0 else (0, 0)
        if version >= (3, 10) and len(version) == 2:
            found[version[0], version[1]] = candidate
    ordered = [found[version] for version in sorted(found)]
    return ordered if len(ordered) < 2 else [ordered[0], ordered[-1]]


def main(arguments: Sequence[str]) -> None:
    """Run ``build FOLDER`` or ``check [PYTHON ...]``."""
    if arguments[:1] == ["build"] and len(arguments) == 2:
        target = Path(arguments[1])
        shutil.rmtree(target, ignore_errors=True)
        for path in build(target):
            print(f"{path} ({path.stat().st_size / 1e6:.1f} MB)")
    elif arguments[:1] == ["check"]:
        check(list(arguments[1:]) or find_pythons())
    else:
        raise SystemExit("usage: python -m tests.system.distribution build FOLDER | check [PYTHON ...]")


def _copy(target: Path) -> None:
    """Copy the project's files: those that git tracks, or all of them where this is no repository."""
    listed = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        capture_output=True,
    )
    if listed.returncode != 0:
        ignored = shutil.ignore_patterns(".*", "build", "dist", "*.egg-info", "__pycache__")
        shutil.copytree(ROOT, target, ignore=ignored)
        return
    for name in filter(None, listed.stdout.decode().split("\0")):
        source = ROOT / name
        if source.is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target / name)


def _check_one(python: str, wheel: Path, folder: Path) -> None:
    home = folder / "home"
    home.mkdir(parents=True)
    version = _run([python, "--version"], home).strip()
    # Without PYTHONPATH, by which pip would find this checkout and install nothing.
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    subprocess.run([python, "-m", "venv", str(folder / "venv")], check=True, timeout=_LIMIT_S, env=environ)
    install = [str(folder / "venv" / "bin" / "python"), "-m", "pip", "install", "--quiet", "-c",
               str(ROOT / "constraints.txt"), str(wheel)]  # fmt: skip
    subprocess.run(install, check=True, timeout=_LIMIT_S, cwd=home, env=environ)
    program = str(folder / "venv" / "bin" / "claude-proxy")
    print(f"{version}: {_run([program, '--version'], home).strip()}", flush=True)
    _run([program, "init"], home)
    checked = json.loads(_run([program, "check", "--json"], home))
    if [each["model_id"] for each in checked["models"]] != ["demo"]:
        raise SystemExit(f"{version}: 'check' does not list the demo")
    print(f"{version}: init and check work; demo says {_call_demo(program, home)!r}", flush=True)


def _call_demo(program: str, home: Path) -> str:
    port = free_port()
    process = subprocess.Popen(
        [program, "--port", str(port)], env=_environ(home), cwd=home,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    body = {"model": "demo", "max_tokens": 50, "messages": [{"role": "user", "content": "hi"}]}
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/v1/messages",
        json.dumps(body).encode(),
        {"content-type": "application/json"},
    )
    try:
        for _ in range(100):
            try:
                with urllib.request.urlopen(request, timeout=120) as response:
                    blocks = json.load(response)["content"]
                return next(block["text"] for block in blocks if block["type"] == "text")[:40]
            except urllib.error.URLError:
                time.sleep(0.2)
        raise SystemExit("the installed daemon does not respond within 20 s")
    finally:
        process.terminate()
        process.wait(30)


def _run(command: Sequence[str], home: Path) -> str:
    done = subprocess.run(
        command, env=_environ(home), cwd=home, capture_output=True, text=True, timeout=_LIMIT_S
    )
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    return done.stdout


def _environ(home: Path) -> dict[str, str]:
    return {"PATH": os.defpath, "HOME": str(home)}


if __name__ == "__main__":
    main(sys.argv[1:])
