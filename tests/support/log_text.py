"""Logging into a text, for tests of what the log says."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager

import structlog

from proxyd.logs import setup

__all__ = ["LogText", "logging_to_text"]


class LogText:
    """What has been logged."""

    def __init__(self, stream: io.StringIO) -> None:
        self._stream = stream

    def lines(self) -> list[str]:
        """All lines up to now. JSON may contain other line ends than LF."""
        assert setup._queue is not None
        assert setup._queue.flush()
        return self._stream.getvalue().split("\n")[:-1]


@contextmanager
def logging_to_text(level: str = "info", log_format: str = "json") -> Iterator[LogText]:
    """Configure logging into a text while the context lasts."""
    stream = io.StringIO()
    setup.configure(level, log_format, stream)
    try:
        yield LogText(stream)
    finally:
        if setup._queue is not None:
            setup._queue.close()
        structlog.reset_defaults()
