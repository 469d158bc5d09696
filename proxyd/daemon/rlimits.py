"""Resource limits of the process."""

from __future__ import annotations

import resource

from proxyd.logs.setup import get_logger

__all__ = ["forbid_core_dumps", "raise_file_limit"]

log = get_logger("server")

#: Two descriptors a stream, with room to spare.
_WANTED_FILES = 65_536


def raise_file_limit() -> None:
    """Raise the soft limit of file descriptors as far as we want and may (docs/spec/operations.md#c8)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _WANTED_FILES if hard == resource.RLIM_INFINITY else min(hard, _WANTED_FILES)
    if soft < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        except (OSError, ValueError):
            log.debug("server.file_limit", soft=soft)


def forbid_core_dumps() -> None:
    """Set the core size limit to zero: a core would hold keys and prompts (docs/spec/operations.md#e7)."""
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    try:
        resource.setrlimit(resource.RLIMIT_CORE, (0, hard))
    except (OSError, ValueError):
        log.debug("server.core_limit")
