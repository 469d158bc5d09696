"""install.sh and uninstall.sh: other installations of claude-proxy are left alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

from tests.support.command_line import Home
from tests.support.paths import ROOT

DEMO = "- {model_id: demo, api_base: 'builtin:demo'}\n"
FOREIGN = "#!/bin/sh\necho foreign\n"
#: A Python that is new enough and cannot create a venv.
BROKEN_PYTHON = '#!/bin/sh\n[ "$1" = -c ] && exit 0\necho "no ensurepip" >&2\nexit 1\n'


def run_script(home: Home, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", str(ROOT / name), *arguments],
        env=home.environ,
        cwd=home.path,
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.fixture
def link(home: Home) -> Path:
    path = home.path / ".local" / "bin" / "claude-proxy"
    path.parent.mkdir(parents=True)
    return path


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("venv", "the venv could not be created"),
        ("uv", "uv could not install it"),
        ("pipx", "pipx was not found on PATH"),
        ("rpm", "unknown method rpm"),
    ],
)
def test_failed_installation_keeps_a_foreign_command(
    home: Home, link: Path, method: str, message: str
) -> None:
    link.write_text(FOREIGN)
    link.chmod(0o755)
    home.program("python3", BROKEN_PYTHON)
    # uv overwrites the command before it fails
    home.program("uv", f"#!/bin/sh\necho broken >'{link}'\nexit 1\n")
    result = run_script(home, "install.sh", "--method", method)
    assert result.returncode == 1
    assert message in result.stderr
    assert link.read_text() == FOREIGN
    assert not link.with_name("claude-proxy.bak").exists()
    assert not (home.path / ".local" / "share" / "claude-proxy" / "installed-by").exists()


def test_successful_installation_keeps_a_foreign_command_as_a_backup(home: Home, link: Path) -> None:
    link.write_text(FOREIGN)
    home.program("uv", f"#!/bin/sh\nprintf '#!/bin/sh\\necho 1.2.3\\n' >'{link}'\nchmod +x '{link}'\n")
    result = run_script(home, "install.sh", "--method", "uv")
    assert result.returncode == 0, result.stderr
    assert "1.2.3" in result.stdout
    assert link.with_name("claude-proxy.bak").read_text() == FOREIGN


def install(home: Home, link: Path) -> Path:
    """Build what install.sh leaves behind, with the packages of this environment; return its command."""
    share = home.path / ".local" / "share" / "claude-proxy"
    venv.create(share / "venv", symlinks=True)
    command = share / "venv" / "bin" / "claude-proxy"
    packages = [str(ROOT), sysconfig.get_path("purelib")]
    command.write_text(
        f"#!{command.parent / 'python'}\nimport os, sys\n"
        f"os.environ['PYTHONPATH'] = {os.pathsep.join(packages)!r}\nsys.path[:0] = {packages!r}\n"
        "from proxyd.cli.main import main\nmain()\n"
    )
    command.chmod(0o755)
    link.symlink_to(command)
    (share / "installed-by").write_text("venv\n")
    return command


@pytest.mark.parametrize("is_own", [True, False])
def test_only_the_own_daemon_is_stopped(home: Home, link: Path, is_own: bool) -> None:
    home.write_models(DEMO)
    own = install(home, link)
    command = [str(own)] if is_own else [sys.executable, "-m", "proxyd"]
    started = subprocess.run(
        [*command, "start"], env=home.environ, capture_output=True, text=True, timeout=60
    )
    assert started.returncode == 0, started.stderr
    assert json.loads(home.run("status", "--json").out)["state"] == "running"
    result = run_script(home, "uninstall.sh")
    assert result.returncode == 0, result.stderr
    assert "Removed." in result.stdout
    assert not link.exists()
    assert home.run("status").code == (3 if is_own else 0)


@pytest.mark.parametrize("is_own", [True, False])
def test_only_the_own_service_is_removed(home: Home, link: Path, is_own: bool) -> None:
    own = install(home, link)
    program = own if is_own else Path("/opt/other/bin/claude-proxy")
    unit = home.path / ".config" / "systemd" / "user" / "claude-proxy.service"
    unit.parent.mkdir(parents=True)
    mark = "# Written by `claude-proxy service install`. Changes: systemctl --user edit claude-proxy"
    unit.write_text(f"{mark}\n[Service]\nExecStart={program} run --supervised systemd\n")
    home.program("systemctl", "#!/bin/sh\nexit 0\n")
    result = run_script(home, "uninstall.sh")
    assert result.returncode == 0, result.stderr
    assert unit.exists() is not is_own
