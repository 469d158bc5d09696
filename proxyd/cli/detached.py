"""The daemon as a detached process: for systems without a service manager, and for users who want none.

Started in a session of its own, with its output in a log file; found again by asking its port. What is signalled must
say of itself that it is a claude-proxy, and the process list must agree.
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
    "START_S",
    "STOP_S",
    "await_end",
    "is_alive",
    "launch",
    "log_path",
    "refuse_foreign",
    "terminate",
]

#: How long a start may take.
START_S = 10.0
#: The drain's 30 s, 5 s for its end (docs/spec/operations.md#a3), and some for a busy machine.
STOP_S = 45.0
_POLL_S = 0.05
_TAIL_LINES = 15


def log_path() -> Path:
    """Where a detached daemon writes its log."""
    return resolve_state_folder(os.environ) / "claude-proxy.log"


def refuse_foreign(target: Target, peer: Peer) -> None:
    """Stop here if somebody else has the port.

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
        options: for ``claude-proxy run``.

    Raises:
        CommandFailed: it did not start, with its last log lines and its own exit code.
    """
    import subprocess

    from proxyd.logs import rotation

    path = log_path()
    make_private_folder(path.parent)
    if path.exists() and path.stat().st_size >= rotation.MAX_BYTES:
        rotation.rotate_files(path)
    with open(path, "ab", opener=lambda name, flags: os.open(name, flags, 0o600)) as log:
        os.fchmod(log.fileno(), 0o600)  # one that is there may be another version's
        begin = log.tell()
        process = subprocess.Popen(
            (sys.executable, "-m", "proxyd", "run", "--supervised", "detached", *options),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise CommandFailed(
                _why_not(path, begin, "the daemon did not start"), process.returncode or EXIT_BUG
            )
        peer = ask(target, timeout_s=1.0)
        if peer.is_ours and peer.pid == process.pid:
            process.returncode = 0  # it is meant to outlive us; without this, Popen warns of that
            return peer
        time.sleep(_POLL_S)
    process.terminate()
    process.wait(STOP_S)
    raise CommandFailed(_why_not(path, begin, f"the daemon was not ready within {START_S:g} s"))


def _why_not(path: Path, begin: int, what: str) -> str:
    with path.open("rb") as log:
        log.seek(begin)
        lines = log.read().decode("utf-8", "replace").splitlines()[-_TAIL_LINES:]
    return "\n".join([f"{what}; {path} ends with", *(f"  {line}" for line in lines or ["(nothing)"])])


def terminate(peer: Peer) -> None:
    """Ask the daemon to drain and end.

    Raises:
        CommandFailed: the process it names is no claude-proxy, or another user's.
    """
    if not _is_claude_proxy(peer.pid):
        raise CommandFailed(
            f"process {peer.pid}, which the daemon says it is, is no claude-proxy here; if it runs in a container, "
            "stop it there"
        )
    try:
        os.kill(peer.pid, signal.SIGTERM)
    except ProcessLookupError:
        pass
    except PermissionError:
        raise CommandFailed(f"process {peer.pid} belongs to another user, who can stop it") from None


def await_end(pid: int, timeout_s: float, tell: Callable[[float], None] | None = None) -> bool:
    """Wait until a process has ended; `tell` is called with the seconds so far, every five."""
    begun = told = time.monotonic()
    while is_alive(pid):
        now = time.monotonic()
        if now - begun > timeout_s:
            return False
        if tell is not None and now - told >= 5:
            told = now
            tell(now - begun)
        time.sleep(_POLL_S)
    return True


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and waits for its parent to notice does not."""
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
