"""The service managers: systemd's user instance, and launchd. What their commands are, and where their files go."""

from __future__ import annotations

import os
import plistlib
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Protocol

from proxyd.cli.exit_codes import CommandFailed
from proxyd.cli.package_data import program, shipped

__all__ = ["LABEL", "Launchd", "Manager", "Systemd", "installed", "this_manager"]

#: The name of the launchd agent, and of its file.
LABEL = "com.claude-proxy.daemon"
_UNIT = "claude-proxy.service"
_SOCKET = "claude-proxy.socket"
#: By this line an uninstallation knows what it may remove.
_MARK = "# Written by `claude-proxy service install`. Changes: systemctl --user edit claude-proxy\n"
#: The drain, and a bit (docs/spec/operations.md#a3).
_COMMAND_S = 90.0


class Manager(Protocol):
    """What the commands need of a service manager."""

    name: str
    log_hint: str
    log_file: Path | None

    def is_installed(self) -> bool:
        """Whether our service is set up."""

    def check(self, *, socket: bool, harden: bool) -> None:
        """Check that `install` can work here.

        Raises:
            CommandFailed: there is no such manager for this user, or it lacks what is asked.
        """

    def install(self, models: Path | None, *, socket_address: str | None, harden: bool) -> list[str]:
        """Set it up and start it; what was done, a line each.

        Args:
            models: the models.yaml to name, None for the one that is found by itself.
            socket_address: HOST:PORT that the manager is to hold, None for a daemon that listens by itself.
        """

    def uninstall(self) -> list[str]:
        """Stop it and remove what `install` has written; what was done, a line each."""

    def start(self) -> None:
        """Start it."""

    def stop(self) -> None:
        """Stop it; returns when its streams have finished."""

    def restart(self) -> None:
        """Stop and start it."""

    def state(self) -> str:
        """What the manager says of it, in a few words."""

    def log_command(self, lines: int, follow: bool) -> list[str] | None:
        """A command that shows the log, or None where it is a file."""


def this_manager() -> Manager:
    """The manager of this system."""
    return Launchd() if sys.platform == "darwin" else Systemd()


def installed() -> Manager | None:
    """The manager under which our service is set up, or None."""
    manager = this_manager()
    return manager if manager.is_installed() else None


def _run(*command: str, is_tried: bool = False) -> str:
    """Its output.

    Args:
        is_tried: a failure is fine.

    Raises:
        CommandFailed: it failed or is not there.
    """
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=_COMMAND_S, check=False)
    except FileNotFoundError:
        if is_tried:
            return ""
        raise CommandFailed(
            f"{command[0]} was not found; without a service manager, use 'claude-proxy start'"
        ) from None
    except subprocess.TimeoutExpired:
        raise CommandFailed(f"'{' '.join(command)}' did not end within {_COMMAND_S:g} s") from None
    if result.returncode and not is_tried:
        lines = (result.stderr.strip() or result.stdout.strip() or "it said nothing").splitlines()
        remedy = ""
        if "connect to bus" in lines[0]:
            remedy = "; there is no systemd user session here: use 'claude-proxy start' instead"
        raise CommandFailed(f"'{' '.join(command)}' failed: {lines[0]}{remedy}")
    return result.stdout.strip()


class Systemd:
    """``systemctl --user``."""

    name = "systemd"
    log_hint = "journalctl --user -u claude-proxy"
    log_file: Path | None = None

    def __init__(self) -> None:
        config = os.environ.get("XDG_CONFIG_HOME", "").strip() or os.path.expanduser("~/.config")
        self._folder = Path(config) / "systemd" / "user"
        self._drop_in = self._folder / f"{_UNIT}.d" / "hardening.conf"

    def is_installed(self) -> bool:
        return (self._folder / _UNIT).exists() and shutil.which("systemctl") is not None

    def check(self, *, socket: bool, harden: bool) -> None:
        _run("systemctl", "--user", "show-environment")  # fails without a user session

    def install(self, models: Path | None, *, socket_address: str | None, harden: bool) -> list[str]:
        done = []
        command = [*program(), "run", "--supervised", "systemd"]
        if models is not None:
            command += ["--models", str(models)]
        start = " ".join(map(_quoted, command))
        done.append(self._write(self._folder / _UNIT, _shipped_unit(_UNIT, "ExecStart", start)))
        if socket_address is not None:
            text = _shipped_unit(_SOCKET, "ListenStream", socket_address)
            done.append(self._write(self._folder / _SOCKET, text))
        elif (self._folder / _SOCKET).exists():
            done += self._remove_socket()
        if harden:
            text = shipped("systemd", "hardening.conf").read_text(encoding="utf-8")
            done.append(self._write(self._drop_in, text))
        elif self._is_ours(self._drop_in):
            self._drop_in.unlink()
            done.append(f"removed {self._drop_in}")
        _run("systemctl", "--user", "daemon-reload")
        # An installation over a running service puts the new files in force.
        _run("systemctl", "--user", "stop", _UNIT, is_tried=True)
        _run("systemctl", "--user", "enable", "--now", *self._units())
        done.append(f"enabled and started {', '.join(self._units())}")
        return done

    def uninstall(self) -> list[str]:
        done = []
        _run("systemctl", "--user", "disable", "--now", *self._units(), is_tried=True)
        for path in (self._folder / _SOCKET, self._drop_in, self._folder / _UNIT):
            if self._is_ours(path):
                path.unlink()
                done.append(f"removed {path}")
            elif path.exists():
                done.append(f"kept {path}, which claude-proxy has not written")
        if self._drop_in.parent.is_dir() and not any(self._drop_in.parent.iterdir()):
            self._drop_in.parent.rmdir()
        _run("systemctl", "--user", "daemon-reload", is_tried=True)
        _run("systemctl", "--user", "reset-failed", _UNIT, is_tried=True)
        return done

    def start(self) -> None:
        _run("systemctl", "--user", "start", *self._units())

    def stop(self) -> None:
        _run("systemctl", "--user", "stop", *self._units())

    def restart(self) -> None:
        _run("systemctl", "--user", "restart", _UNIT)

    def state(self) -> str:
        shown = _run(
            "systemctl", "--user", "show", _UNIT, "-p", "ActiveState,SubState,UnitFileState,StatusText"
        )
        values = dict(line.split("=", 1) for line in shown.splitlines() if "=" in line)
        text = f": {values['StatusText']}" if values.get("StatusText") else ""
        return f"{values.get('ActiveState')} ({values.get('SubState')}), {values.get('UnitFileState')}{text}"

    def log_command(self, lines: int, follow: bool) -> list[str] | None:
        return [
            "journalctl",
            "--user",
            "-u",
            _UNIT,
            "-n",
            str(lines),
            *(["-f"] if follow else ["--no-pager"]),
        ]

    def _units(self) -> list[str]:
        """The socket first: a service that listens by itself would keep it from the port, and it would start a service
        that was stopped before it.
        """
        return [_SOCKET, _UNIT] if (self._folder / _SOCKET).exists() else [_UNIT]

    def _remove_socket(self) -> list[str]:
        _run("systemctl", "--user", "disable", "--now", _SOCKET, is_tried=True)
        (self._folder / _SOCKET).unlink()
        return [f"removed {self._folder / _SOCKET}"]

    def _write(self, path: Path, text: str) -> str:
        path.parent.mkdir(parents=True, exist_ok=True)
        saved = ""
        if path.exists() and not self._is_ours(path):
            backup = path.with_name(f"{path.name}.bak")
            path.replace(backup)
            saved = f" (the old one is {backup})"
        path.write_text(_MARK + text, encoding="utf-8")
        path.chmod(0o644)
        return f"wrote {path}{saved}"

    @staticmethod
    def _is_ours(path: Path) -> bool:
        try:
            return path.read_text(encoding="utf-8").startswith(_MARK)
        except (OSError, UnicodeDecodeError):
            return False


def _quoted(word: str) -> str:
    """One word of a command line as systemd.service(5) has it."""
    word = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{word}"' if any(sign in word for sign in " \t'\"\\;") else word


def _shipped_unit(name: str, key: str, value: str) -> str:
    """A unit file with one of its values replaced."""
    lines = shipped("systemd", name).read_text(encoding="utf-8").split("\n")
    return "\n".join(f"{key}={value}" if line.startswith(f"{key}=") else line for line in lines)


class Launchd:
    """``launchctl``, in the user's graphical session. Old systems know only ``load`` and ``unload``."""

    name = "launchd"

    def __init__(self) -> None:
        home = Path.home()
        self._path = home / "Library" / "LaunchAgents" / f"{LABEL}.plist"
        self.log_file: Path | None = home / "Library" / "Logs" / "claude-proxy" / "claude-proxy.log"
        self.log_hint = str(self.log_file)
        self._domain = f"gui/{os.getuid()}"
        self._target = f"{self._domain}/{LABEL}"

    def is_installed(self) -> bool:
        return self._path.exists() and shutil.which("launchctl") is not None

    def check(self, *, socket: bool, harden: bool) -> None:
        if socket or harden:
            raise CommandFailed("--socket and --harden are systemd's; launchd has neither")
        if shutil.which("launchctl") is None:
            raise CommandFailed("launchctl was not found; use 'claude-proxy start' instead")

    def install(self, models: Path | None, *, socket_address: str | None, harden: bool) -> list[str]:
        with shipped("launchd", f"{LABEL}.plist").open("rb") as file:
            agent = plistlib.load(file)
        agent["ProgramArguments"] = [*program(), "run", "--supervised", "launchd"]
        if models is not None:
            agent["ProgramArguments"] += ["--models", str(models)]
        assert self.log_file is not None, "set by the constructor"
        agent["StandardOutPath"] = agent["StandardErrorPath"] = str(self.log_file)
        self.log_file.parent.mkdir(parents=True, exist_ok=True)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        if self._path.exists():
            self._unload()
        with self._path.open("wb") as out:
            plistlib.dump(agent, out)
        self._path.chmod(0o644)  # launchd refuses a file that others may write
        _run("launchctl", "enable", self._target, is_tried=True)
        try:
            _run("launchctl", "bootstrap", self._domain, str(self._path))
        except CommandFailed:
            _run("launchctl", "load", "-w", str(self._path))
        return [f"wrote {self._path}", f"loaded {LABEL}"]

    def uninstall(self) -> list[str]:
        if not self._path.exists():
            return []
        self._unload()
        self._path.unlink()
        return [f"unloaded {LABEL}", f"removed {self._path}"]

    def start(self) -> None:
        _run("launchctl", "kickstart", self._target)

    def stop(self) -> None:
        # SIGTERM, so that it drains; having ended with 0 it is not started again (KeepAlive).
        _run("launchctl", "kill", "SIGTERM", self._target)

    def restart(self) -> None:
        # Not kickstart -k, which does not wait for open streams.
        self.stop()
        deadline = time.monotonic() + _COMMAND_S
        while "pid = " in self.state() and time.monotonic() < deadline:
            time.sleep(0.2)
        self.start()

    def state(self) -> str:
        shown = _run("launchctl", "print", self._target, is_tried=True)
        wanted = ("state = ", "pid = ", "last exit code = ")
        found = [line.strip() for line in shown.splitlines() if line.strip().startswith(wanted)]
        return ", ".join(found) or "not loaded"

    def log_command(self, lines: int, follow: bool) -> list[str] | None:
        return None

    def _unload(self) -> None:
        try:
            _run("launchctl", "bootout", self._target)
        except CommandFailed:
            _run("launchctl", "unload", "-w", str(self._path), is_tried=True)
