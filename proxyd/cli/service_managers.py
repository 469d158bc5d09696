"""Service managers: systemd's user instance and launchd, with their commands and the places of their files."""

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
from proxyd.cli.package_data import own_command, packaged_path

__all__ = ["LABEL", "Launchd", "Manager", "Systemd", "installed", "this_manager"]

#: The name of the launchd agent, and of its file.
LABEL = "com.claude-proxy.daemon"
_UNIT = "claude-proxy.service"
_SOCKET = "claude-proxy.socket"
#: First line of the files that `uninstall` may remove.
_MARK = "# Written by `claude-proxy service install`. Changes: systemctl --user edit claude-proxy\n"
#: Timeout of a manager's command: the drain with a margin (docs/spec/operations.md#a3).
_COMMAND_TIMEOUT_S = 90.0


class Manager(Protocol):
    """Interface of a service manager."""

    name: str
    log_hint: str
    log_file: Path | None

    def is_installed(self) -> bool:
        """Return whether our service is installed."""

    def check(self, *, socket: bool, harden: bool) -> None:
        """Check that `install` can work here.

        Raises:
            CommandFailed: there is no such manager for this user, or it lacks what is asked.
        """

    def install(self, models: Path | None, *, socket_address: str | None, harden: bool) -> list[str]:
        """Install and start the service; return a line for each step.

        Args:
            models: the models.yaml to name, None for the default one.
            socket_address: HOST:PORT on which the manager listens, None if the daemon does.
        """

    def uninstall(self) -> list[str]:
        """Stop the service and remove the files of `install`; return a line for each step."""

    def start(self) -> None:
        """Start the service."""

    def stop(self) -> None:
        """Stop the service; return when its streams have finished."""

    def restart(self) -> None:
        """Stop and start the service."""

    def state(self) -> str:
        """Return the state that the manager reports, in a few words."""

    def log_command(self, lines: int, follow: bool) -> list[str] | None:
        """Return a command that shows the log, or None if the log is a file."""


def this_manager() -> Manager:
    """Return the manager of this system."""
    return Launchd() if sys.platform == "darwin" else Systemd()


def installed() -> Manager | None:
    """Return the manager if our service is installed, else None."""
    manager = this_manager()
    return manager if manager.is_installed() else None


def _run(*command: str, may_fail: bool = False) -> str:
    """Run a command; return its output.

    Args:
        may_fail: ignore a failure.

    Raises:
        CommandFailed: it failed or does not exist.
    """
    try:
        result = subprocess.run(
            command, capture_output=True, text=True, timeout=_COMMAND_TIMEOUT_S, check=False
        )
    except FileNotFoundError:
        if may_fail:
            return ""
        raise CommandFailed(
            f"{command[0]} was not found; without a service manager, use 'claude-proxy start'"
        ) from None
    except subprocess.TimeoutExpired:
        raise CommandFailed(f"'{' '.join(command)}' did not end within {_COMMAND_TIMEOUT_S:g} s") from None
    if result.returncode and not may_fail:
        lines = (result.stderr.strip() or result.stdout.strip() or "it printed nothing").splitlines()
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
        command = [*own_command(), "run", "--supervised", "systemd"]
        if models is not None:
            command += ["--models", str(models)]
        start = " ".join(map(_quoted, command))
        done.append(self._write(self._folder / _UNIT, _packaged_unit(_UNIT, "ExecStart", start)))
        if socket_address is not None:
            text = _packaged_unit(_SOCKET, "ListenStream", socket_address)
            done.append(self._write(self._folder / _SOCKET, text))
        elif (self._folder / _SOCKET).exists():
            done += self._remove_socket()
        if harden:
            text = packaged_path("systemd", "hardening.conf").read_text(encoding="utf-8")
            done.append(self._write(self._drop_in, text))
        elif self._is_ours(self._drop_in):
            self._drop_in.unlink()
            done.append(f"removed {self._drop_in}")
        _run("systemctl", "--user", "daemon-reload")
        # A running service gets the new files.
        _run("systemctl", "--user", "stop", _UNIT, may_fail=True)
        _run("systemctl", "--user", "enable", "--now", *self._units())
        done.append(f"enabled and started {', '.join(self._units())}")
        return done

    def uninstall(self) -> list[str]:
        done = []
        _run("systemctl", "--user", "disable", "--now", *self._units(), may_fail=True)
        for path in (self._folder / _SOCKET, self._drop_in, self._folder / _UNIT):
            if self._is_ours(path):
                path.unlink()
                done.append(f"removed {path}")
            elif path.exists():
                done.append(f"kept {path}, which claude-proxy has not written")
        if self._drop_in.parent.is_dir() and not any(self._drop_in.parent.iterdir()):
            self._drop_in.parent.rmdir()
        _run("systemctl", "--user", "daemon-reload", may_fail=True)
        _run("systemctl", "--user", "reset-failed", _UNIT, may_fail=True)
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
        """Return our units, the socket first: a service that listens itself would keep it from the port, and the
        socket would restart a service that was stopped before it.
        """
        return [_SOCKET, _UNIT] if (self._folder / _SOCKET).exists() else [_UNIT]

    def _remove_socket(self) -> list[str]:
        _run("systemctl", "--user", "disable", "--now", _SOCKET, may_fail=True)
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
    """Quote a word of a command line as systemd.service(5) requires."""
    word = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{word}"' if any(sign in word for sign in " \t'\"\\;") else word


def _packaged_unit(name: str, key: str, value: str) -> str:
    """Return a packaged unit file with one value replaced."""
    lines = packaged_path("systemd", name).read_text(encoding="utf-8").split("\n")
    return "\n".join(f"{key}={value}" if line.startswith(f"{key}=") else line for line in lines)


class Launchd:
    """``launchctl``, in the user's graphical session. Old systems have only ``load`` and ``unload``."""

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
            raise CommandFailed("--socket and --harden are for systemd; launchd has neither")
        if shutil.which("launchctl") is None:
            raise CommandFailed("launchctl was not found; use 'claude-proxy start' instead")

    def install(self, models: Path | None, *, socket_address: str | None, harden: bool) -> list[str]:
        with packaged_path("launchd", f"{LABEL}.plist").open("rb") as file:
            agent = plistlib.load(file)
        agent["ProgramArguments"] = [*own_command(), "run", "--supervised", "launchd"]
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
        _run("launchctl", "enable", self._target, may_fail=True)
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
        # SIGTERM drains the daemon; after exit code 0 it is not restarted (KeepAlive).
        _run("launchctl", "kill", "SIGTERM", self._target)

    def restart(self) -> None:
        # kickstart -k would not wait for open streams.
        self.stop()
        deadline = time.monotonic() + _COMMAND_TIMEOUT_S
        while "pid = " in self.state() and time.monotonic() < deadline:
            time.sleep(0.2)
        self.start()

    def state(self) -> str:
        shown = _run("launchctl", "print", self._target, may_fail=True)
        wanted = ("state = ", "pid = ", "last exit code = ")
        found = [line.strip() for line in shown.splitlines() if line.strip().startswith(wanted)]
        return ", ".join(found) or "not loaded"

    def log_command(self, lines: int, follow: bool) -> list[str] | None:
        return None

    def _unload(self) -> None:
        try:
            _run("launchctl", "bootout", self._target)
        except CommandFailed:
            _run("launchctl", "unload", "-w", str(self._path), may_fail=True)
