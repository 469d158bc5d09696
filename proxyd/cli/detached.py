"""The daemon as a detached process, for systems without a service manager and users who want none.

It runs in its own session with its output in a log file, and is found by a query to its port. Before a process is
signalled, both its own response and the process list must identify it as claude-proxy.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from proxyd.cli.daemon_client import Peer, State, Target, ask
from proxyd.cli.exit_codes import EXIT_ADDRESS_IN_USE, EXIT_BUG, CommandFailed
from proxyd.config.paths import make_private_folder, resolve_state_folder

__all__ = [
    "START_TIMEOUT_S",
    "STOP_TIMEOUT_S",
    "is_alive",
    "launch",
    "log_path",
    "refuse_foreign",
    "send_reload",
    "terminate",
    "wait_for_end",
]

#: Timeout of a start.
START_TIMEOUT_S = 10.0
#: Timeout of a stop: 30 s of drain, 5 s for its end (docs/spec/operations.md#a3), and a margin for a busy machine.
STOP_TIMEOUT_S = 45.0
_POLL_S = 0.05
_TAIL_LINES = 15


def log_path() -> Path:
    """Return the path of a detached daemon's log."""
    return resolve_state_folder(os.environ) / "claude-proxy.log"


def refuse_foreign(target: Target, peer: Peer) -> None:
    """Check that no other program uses the port.

    Raises:
        CommandFailed: with the exit code of an address in use.
    """
    if peer.state is State.FOREIGN:
        raise CommandFailed(
            f"{target.host}:{target.port} is in use by another program ({peer.why}): stop it, or choose another "
            "with --port",
            EXIT_ADDRESS_IN_USE,
        )


def launch(target: Target, options: Sequence[str]) -> Peer:
    """Start a detached daemon and wait until it is ready.

    Args:
        options: options of ``claude-proxy run``.

    Raises:
        CommandFailed: it did not start; with its last log lines and its exit code.
    """
    import subprocess

    from proxyd.logs import rotation

    path = log_path()
    make_private_folder(path.parent)
    if path.exists() and path.stat().st_size >= rotation.MAX_BYTES:
        rotation.rotate_files(path)
    with open(path, "ab", opener=lambda name, flags: os.open(name, flags, 0o600)) as log:
        os.fchmod(log.fileno(), 0o600)  # an existing log may be from a version that did not
        begin = log.tell()
        process = subprocess.Popen(
            (sys.executable, "-m", "proxyd", "run", "--supervised", "detached", *options),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise CommandFailed(
                _start_failure(path, begin, "the daemon did not start"), process.returncode or EXIT_BUG
            )
        peer = ask(target, timeout_s=1.0)
        if peer.is_ours and peer.pid == process.pid:
            process.returncode = 0  # Popen warns of a running child otherwise
            return peer
        time.sleep(_POLL_S)
    process.terminate()
    process.wait(STOP_TIMEOUT_S)
    raise CommandFailed(_start_failure(path, begin, f"the daemon was not ready within {START_TIMEOUT_S:g} s"))


def _start_failure(path: Path, begin: int, what: str) -> str:
    with path.open("rb") as log:
        log.seek(begin)
        lines = log.read().decode("utf-8", "replace").splitlines()[-_TAIL_LINES:]
    return "\n".join([f"{what}; {path} ends with", *(f"  {line}" for line in lines or ["(nothing)"])])


def terminate(peer: Peer) -> None:
    """Send SIGTERM, so that the daemon drains and ends.

    Raises:
        CommandFailed: the process it names is not claude-proxy, or belongs to another user.
    """
    _send_signal(peer, signal.SIGTERM)


def send_reload(peer: Peer) -> None:
    """Send SIGHUP, so that the daemon reads its configuration again.

    Raises:
        CommandFailed: as `terminate`.
    """
    _send_signal(peer, signal.SIGHUP)


def _send_signal(peer: Peer, number: signal.Signals) -> None:
    if not _is_claude_proxy(peer.pid):
        raise CommandFailed(
            f"process {peer.pid}, which the daemon says it is, is no claude-proxy here; if it runs in a container, "
            "run the command there"
        )
    try:
        os.kill(peer.pid, number)
    except ProcessLookupError:
        pass
    except PermissionError:
        raise CommandFailed(f"process {peer.pid} belongs to another user, who can do this") from None


def wait_for_end(pid: int, timeout_s: float, report: Callable[[float], None] | None = None) -> bool:
    """Wait until a process has ended; call `report` with the seconds so far, every five seconds."""
    started_at = reported_at = time.monotonic()
    while is_alive(pid):
        now = time.monotonic()
        if now - started_at > timeout_s:
            return False
        if report is not None and now - reported_at >= 5:
            reported_at = now
            report(now - started_at)
        time.sleep(_POLL_S)
    return True


def is_alive(pid: int) -> bool:
    """Return whether a process runs; a zombie does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (OSError, IndexError):
        return True


def _is_claude_proxy(pid: int) -> bool:
    if pid <= 1:
        return False
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
    except OSError:
        import subprocess

        result = subprocess.run(
            ("/bin/ps", "-o", "command=", "-p", str(pid)), capture_output=True, text=True, check=False
        )
        command = result.stdout
    return "proxyd" in command or "claude-proxy" in command
