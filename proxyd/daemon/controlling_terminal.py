"""The terminal from which the process was started."""

from __future__ import annotations

import os
import signal

__all__ = ["ends_with_terminal", "has_terminal"]


def has_terminal() -> bool:
    """Return whether the process has a controlling terminal that is still open."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True


def ends_with_terminal() -> bool:
    """Return whether the process is to stop when its terminal is closed; under nohup it is not."""
    return signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN and has_terminal()
