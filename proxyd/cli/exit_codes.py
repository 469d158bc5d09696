"""Exit codes (docs/spec/operations.md#f5), and the exception by which a command fails."""

from __future__ import annotations

import errno

__all__ = [
    "EXIT_ADDRESS_IN_USE",
    "EXIT_BUG",
    "EXIT_CONFIG",
    "EXIT_DIFFERS",
    "EXIT_NOT_RUNNING",
    "EXIT_NO_COMMAND",
    "EXIT_PERMISSIONS",
    "EXIT_UPSTREAM",
    "EXIT_USAGE",
    "CommandFailed",
    "failure_of_os",
]

EXIT_BUG = 1
EXIT_NOT_RUNNING = 3
#: A replay differs from its record. Not 1, as with ``diff``: that is a bug.
EXIT_DIFFERS = 4
EXIT_USAGE = 64
EXIT_UPSTREAM = 69
EXIT_ADDRESS_IN_USE = 75
EXIT_PERMISSIONS = 77
EXIT_CONFIG = 78
#: A shell's code for a missing program, since ``claude-proxy code`` ends with the exit code of ``claude``.
EXIT_NO_COMMAND = 127


class CommandFailed(Exception):
    """A failed command: one sentence for stderr that says what to do, and the exit code."""

    def __init__(self, message: str, code: int = EXIT_BUG) -> None:
        super().__init__(message)
        self.message = message
        self.code = code


def failure_of_os(exc: OSError) -> CommandFailed:
    """Convert an error of the operating system to a sentence with a remedy."""
    what = f"{exc.filename}: " if exc.filename else ""
    reason = (exc.strerror or type(exc).__name__).lower()
    if exc.errno in (errno.EACCES, errno.EPERM):
        remedy = "check who owns it and its permissions"
        return CommandFailed(f"{what}{reason}; {remedy}", EXIT_PERMISSIONS)
    if exc.errno == errno.EROFS:
        remedy = "set XDG_CONFIG_HOME and XDG_STATE_HOME to folders that can be written"
        return CommandFailed(f"{what}{reason}; {remedy}", EXIT_PERMISSIONS)
    if exc.errno in (errno.ENOSPC, errno.EDQUOT):
        return CommandFailed(f"{what}{reason}; free some space and try again")
    return CommandFailed(f"{what}{reason}")
