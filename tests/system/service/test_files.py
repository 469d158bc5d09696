"""The files that service managers and shells read, judged by their own tools."""

from __future__ import annotations

import os
import plistlib
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.paths import ROOT

SCRIPTS = ("install.sh", "uninstall.sh")
needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not here"
)
#: The package puts it beside the interpreter; a system may have one of its own.
SHELLCHECK = shutil.which("shellcheck", path=f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}")
needs_shellcheck = pytest.mark.skipif(SHELLCHECK is None, reason="shellcheck is not here")

#: launchd.plist(5), of macOS 14: the keys we use, and their types.
LAUNCHD: dict[str, type] = {
    "Label": str,
    "ProgramArguments": list,
    "RunAtLoad": bool,
    "KeepAlive": dict,
    "ThrottleInterval": int,
    "ExitTimeOut": int,
    "ProcessType": str,
    "Umask": int,
    "HardResourceLimits": dict,
    "SoftResourceLimits": dict,
    "StandardOutPath": str,
    "StandardErrorPath": str,
}
KEEP_ALIVE = {"SuccessfulExit": bool, "Crashed": bool, "PathState": dict, "OtherJobEnabled": dict}


def installed_units(home: Path, *, harden: bool) -> Path:
    """Write the units as an installation does, with an existing program."""
    program = home / ".local" / "bin" / "claude-proxy"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    folder = home / ".config" / "systemd" / "user"
    folder.mkdir(parents=True)
    for name in ("claude-proxy.service", "claude-proxy.socket"):
        shutil.copy(ROOT / "systemd" / name, folder)
    if harden:
        drop_in = folder / "claude-proxy.service.d"
        drop_in.mkdir()
        shutil.copy(ROOT / "systemd" / "hardening.conf", drop_in)
    return folder


@needs_systemd
@pytest.mark.parametrize("harden", [False, True])
def test_systemd_understands_every_line(tmp_path: Path, harden: bool) -> None:
    folder = installed_units(tmp_path, harden=harden)
    runtime = tmp_path / "run"
    runtime.mkdir(mode=0o700)
    environ = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(runtime)}
    units = [str(folder / name) for name in ("claude-proxy.service", "claude-proxy.socket")]
    done = subprocess.run(
        ["systemd-analyze", "--user", "verify", "--man=no", *units],
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
    )
    # It exits with 0 on unknown keys and invalid values, and reports them.
    assert (done.returncode, done.stderr) == (0, "")


@needs_systemd
@pytest.mark.parametrize(("harden", "threshold"), [(False, 65), (True, 30)])
def test_systemd_rates_the_unit_as_well_protected(tmp_path: Path, harden: bool, threshold: int) -> None:
    folder = installed_units(tmp_path, harden=harden)
    unit = folder / "claude-proxy.service"
    if harden:  # the offline analysis reads no drop-ins
        unit.write_text(unit.read_text() + (ROOT / "systemd" / "hardening.conf").read_text())
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", f"--threshold={threshold}", str(unit)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout[-300:] + done.stderr


def test_the_unit_has_the_required_directives() -> None:
    text = (ROOT / "systemd" / "claude-proxy.service").read_text()
    values = dict(re.findall(r"^([A-Za-z]+)=(.*)$", text, re.MULTILINE))
    assert values["Type"] == "notify"
    assert values["RestartPreventExitStatus"].split() == ["64", "77", "78"]
    from proxyd.config.settings import Settings

    assert values["LimitCORE"] == "0"
    assert int(values["TimeoutStopSec"]) > Settings().drain_timeout_s + 5


def agent() -> dict[str, Any]:
    with (ROOT / "launchd" / "com.claude-proxy.daemon.plist").open("rb") as file:
        found: dict[str, Any] = plistlib.load(file)
    return found


def test_the_agent_has_launchds_keys_and_types() -> None:
    found = agent()
    assert {name: type(value) for name, value in found.items()} == LAUNCHD
    assert {name: type(value) for name, value in found["KeepAlive"].items()}.items() <= KEEP_ALIVE.items()
    assert found["Label"] == "com.claude-proxy.daemon"
    assert found["ProcessType"] in ("Background", "Standard", "Adaptive", "Interactive")
    assert found["Umask"] == 0o077
    assert found["HardResourceLimits"] == {"Core": 0}
    assert found["SoftResourceLimits"]["Core"] == 0


def test_the_agent_names_absolute_paths_and_no_shell() -> None:
    found = agent()
    for path in (found["ProgramArguments"][0], found["StandardOutPath"], found["StandardErrorPath"]):
        assert path.startswith("/")
        assert not re.search(r"[~$]|/tmp/", path)
    assert not any(word in ("sh", "-c") for word in found["ProgramArguments"])


@needs_shellcheck
@pytest.mark.parametrize("name", SCRIPTS)
def test_the_scripts_pass_shellcheck(name: str) -> None:
    done = subprocess.run([str(SHELLCHECK), str(ROOT / name)], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_scripts_are_plain_sh_and_can_be_run(name: str) -> None:
    path = ROOT / name
    assert path.read_text().startswith("#!/bin/sh\n")
    assert path.stat().st_mode & stat.S_IXUSR


@pytest.mark.parametrize(
    ("script", "arguments", "environ", "code", "said"),
    [
        ("install.sh", ["--help"], {}, 0, "--method uv|pipx|venv"),
        ("install.sh", ["--method", "brew"], {}, 1, "unknown method brew; use uv, pipx or venv"),
        ("install.sh", ["--method"], {}, 1, "needs one of"),
        ("install.sh", ["--what"], {}, 1, "unknown option --what"),
        ("install.sh", [], {"HOME": "/nowhere"}, 1, "HOME is not a folder"),
        ("uninstall.sh", [], {}, 0, "nothing to remove"),
    ],
)
def test_the_scripts_report_errors(
    tmp_path: Path, script: str, arguments: list[str], environ: dict[str, str], code: int, said: str
) -> None:
    done = subprocess.run(
        [str(ROOT / script), *arguments],
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), **environ},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == code
    assert said in done.stdout + done.stderr
