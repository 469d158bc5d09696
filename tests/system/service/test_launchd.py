"""``service`` on macOS, with a fake ``launchctl`` that accepts only valid commands and records them."""

from __future__ import annotations

import json
import os
import plistlib
import stat
import sys
from pathlib import Path

import pytest

from proxyd.cli.service_managers import LABEL, Launchd
from tests.support.command_line import Home

#: Refuses what launchctl(1) would refuse; ``bootstrap`` is refused too while a file ``old`` is there.
LAUNCHCTL = """#!{python}
import os, pathlib, plistlib, sys
here = pathlib.Path(__file__).parent
arguments = sys.argv[1:]
with (here / "calls").open("a") as file:
    file.write(" ".join(arguments) + "\\n")
domain = f"gui/{{os.getuid()}}"
target = f"{{domain}}/com.claude-proxy.daemon"
loaded = here / "loaded"

def load(path):
    agent = plistlib.loads(pathlib.Path(path).read_bytes())
    assert pathlib.Path(path).name == agent["Label"] + ".plist"
    assert not os.stat(path).st_mode & 0o022, "launchd refuses a file that others may write"
    if loaded.exists():
        sys.exit("Bootstrap failed: 5: Input/output error")
    loaded.touch()

match arguments:
    case ["enable", name] if name == target:
        pass
    case ["bootstrap", where, path] if where == domain:
        if (here / "old").exists():
            sys.exit("Unrecognized subcommand: bootstrap")
        load(path)
    case ["load", "-w", path]:
        load(path)
    case ["bootout", name] if name == target and not (here / "old").exists():
        if not loaded.exists():
            sys.exit("Boot-out failed: 3: No such process")
        loaded.unlink()
    case ["unload", "-w", path]:
        loaded.unlink()
    case ["kickstart", name] if name == target and loaded.exists():
        pass
    case ["kill", "SIGTERM", name] if name == target and loaded.exists():
        pass
    case ["print", name] if name == target and loaded.exists():
        print("\\tstate = running\\n\\tlast exit code = 0\\n\\tpath = x")
    case _:
        sys.exit("Usage: launchctl ...")
"""


@pytest.fixture
def mac(home: Home, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.setattr("proxyd.cli.service_managers.this_manager", Launchd)
    home.program("launchctl", LAUNCHCTL.format(python=sys.executable))
    return home


def calls(mac: Home) -> list[str]:
    return (mac.path / "bin" / "calls").read_text().splitlines()


def agent_path(mac: Home) -> Path:
    return mac.path / "Library" / "LaunchAgents" / f"{LABEL}.plist"


def test_install_writes_an_agent_and_bootstraps_it(mac: Home) -> None:
    models = mac.path / "my models.yaml"
    Launchd().install(models, socket_address=None, harden=False)
    agent = plistlib.loads(agent_path(mac).read_bytes())
    program = agent["ProgramArguments"]
    assert os.access(program[0], os.X_OK)
    assert program[-5:] == ["run", "--supervised", "launchd", "--models", str(models)]
    log = Path(agent["StandardErrorPath"])
    assert log.parent == mac.path / "Library" / "Logs" / "claude-proxy"
    assert log.parent.is_dir()
    assert stat.S_IMODE(agent_path(mac).stat().st_mode) == 0o644
    domain = f"gui/{os.getuid()}"
    assert calls(mac) == [f"enable {domain}/{LABEL}", f"bootstrap {domain} {agent_path(mac)}"]


def test_installing_again_replaces_what_is_loaded(mac: Home) -> None:
    manager = Launchd()
    for _ in range(2):
        manager.install(None, socket_address=None, harden=False)
    assert calls(mac)[-3].startswith("bootout ")
    assert manager.state() == "state = running, last exit code = 0"


def test_an_old_launchctl_gets_the_old_commands(mac: Home) -> None:
    (mac.path / "bin" / "old").touch()
    manager = Launchd()
    manager.install(None, socket_address=None, harden=False)
    assert calls(mac)[-1] == f"load -w {agent_path(mac)}"
    assert manager.uninstall() == [f"unloaded {LABEL}", f"removed {agent_path(mac)}"]
    assert calls(mac)[-1] == f"unload -w {agent_path(mac)}"
    assert not agent_path(mac).exists()


def test_an_agent_is_installed_restarted_and_removed(mac: Home) -> None:
    manager = Launchd()
    manager.install(None, socket_address=None, harden=False)
    manager.start()
    manager.restart()  # `print` shows no pid: it has ended, and is started again
    manager.stop()
    target = f"gui/{os.getuid()}/{LABEL}"
    assert [call for call in calls(mac) if "print" not in call][-4:] == [
        f"kickstart {target}",
        f"kill SIGTERM {target}",
        f"kickstart {target}",
        f"kill SIGTERM {target}",
    ]


def test_the_commands_of_a_user_on_a_mac(mac: Home) -> None:
    assert mac.run("service", "uninstall").out.startswith("the service was not installed")
    shown = mac.run("service", "status", "--json")
    assert (shown.code, json.loads(shown.out)["installed"]) == (3, False)
    refused = mac.run("service", "install", "--socket")
    assert refused.code == 1
    assert "launchd has neither" in refused.err


def test_a_configuration_fault_does_not_loop_under_launchd(mac: Home) -> None:
    mac.write_models("- {}\n")
    result = mac.process("run", "--supervised", "launchd")
    assert result.code == 0
    assert "model_id is missing" in result.err
