"""What the log gets of the reports of asyncio and aiohttp."""

from __future__ import annotations

import asyncio
import errno

from aiohttp import http_exceptions
from structlog.testing import capture_logs

from proxyd.daemon.library_logs import HttpLogger, LoopExceptionHandler
from proxyd.errors import BodyTimedOut


def test_a_malformed_request_is_logged_without_its_bytes() -> None:
    with capture_logs() as lines:
        HttpLogger().exception("Error", exc_info=http_exceptions.BadHttpMessage("x-api-key: secret"))
    assert [(line["event"], line["problem"]) for line in lines] == [("request.malformed", "BadHttpMessage")]
    assert "secret" not in str(lines)


def test_a_body_that_timed_out_is_not_logged_again() -> None:
    with capture_logs() as lines:
        HttpLogger().exception("Error", exc_info=BodyTimedOut("the request body did not arrive"))
    assert lines == []


def test_other_exceptions_are_bugs() -> None:
    with capture_logs() as lines:
        HttpLogger().exception("Error", exc_info=ZeroDivisionError())
    assert [(line["event"], line["log_level"]) for line in lines] == [("request.crashed", "error")]


def test_a_lack_of_file_descriptors_is_logged_once_a_minute() -> None:
    loop, handler = asyncio.new_event_loop(), LoopExceptionHandler()
    try:
        with capture_logs() as lines:
            for _ in range(3):
                handler(loop, {"message": "accept failed", "exception": OSError(errno.EMFILE, "too many")})
            handler(loop, {"message": "a callback failed", "exception": ZeroDivisionError()})
    finally:
        loop.close()
    assert [line["event"] for line in lines] == ["server.out_of_files", "loop.exception"]


def test_a_warning_of_the_library_is_logged() -> None:
    with capture_logs() as lines:
        HttpLogger().warning("%s is odd", "this", extra=1)
    assert [(line["event"], line["log_level"], line["message"]) for line in lines] == [
        ("library.log", "warning", "this is odd")
    ]
