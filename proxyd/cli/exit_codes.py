"""Exit codes (docs/spec/operations.md#f5), and how a command says that it failed."""

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
#: A replay that is not as it was recorded; 1, as `diff` has it, is a bug.
EXIT_DIFFERS = 4
EXIT_USAGE = 64
EXIT_UPSTREAM = 69
EXIT_ADDRESS_IN_USE = 75
EXIT_PERMISSIONS = 77
EXIT_CONFIG = 78
#: As a shell has it for a program that is not there; ``claude-proxy code`` ends as ``claude`` would.
EXIT_NO_COMMAND = 127


class CommandFailed(Exception):
    """One sentence for stderr that says what to do, and the code to end with."""

    def __init__(self, message: str, code: int = EXIT_BUG) -> None:
        super().__init__(message)
        self.message = message
        self.code = code


def failure_of_os(exc: OSError) -> CommandFailed:
    """What the system refused, as a sentence."""
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
