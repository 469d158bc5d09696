"""Puts what asyncio and aiohttp report into our log."""

from __future__ import annotations

import asyncio
import errno
from typing import Any

from aiohttp import web

from proxyd.errors import BodyTimedOut
from proxyd.logs.setup import get_logger
from proxyd.proxy.aiohttp_server import HttpProcessingError

__all__ = ["HttpLogger", "LoopExceptionHandler"]

log = get_logger("server")

_FILES_LOG_EVERY_S = 60.0


class HttpLogger:
    """Logger for aiohttp's server.

    A malformed request is the sender's fault and gets a 400; aiohttp would log it with a traceback that quotes its
    head, keys included.
    """

    def exception(self, message: str, *args: object, exc_info: BaseException | None = None) -> None:
        if isinstance(exc_info, HttpProcessingError):
            log.info("request.malformed", problem=type(exc_info).__name__, status=exc_info.code)
        elif isinstance(exc_info, (BodyTimedOut, web.RequestPayloadError)):
            pass  # was logged when the handler raised it; aiohttp meets it again in the rest of the body
        else:
            log.error("request.crashed", exc_info=exc_info or True)

    def debug(self, message: str, *args: object, **more: object) -> None:
        log.debug("http.debug", message=message % args if args else message)

    def warning(self, message: str, *args: object, **more: object) -> None:
        log.warning("library.log", message=message % args if args else message)

    error = warning


class LoopExceptionHandler:
    """Exception handler of the event loop.

    Without a free file descriptor asyncio pauses accepting for a second at a time; that is logged once a minute
    (docs/spec/operations.md#c8).
    """

    def __init__(self) -> None:
        self._files_logged_at = float("-inf")

    def __call__(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        exc = context.get("exception")
        if isinstance(exc, OSError) and exc.errno in (errno.EMFILE, errno.ENFILE):
            if loop.time() - self._files_logged_at > _FILES_LOG_EVERY_S:
                self._files_logged_at = loop.time()
                log.error(
                    "server.out_of_files", problem="no file descriptor is free; raise the limit (ulimit -n)"
                )
            return
        log.error("loop.exception", problem=context.get("message"), exc_info=exc)
