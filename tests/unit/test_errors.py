"""HTTP responses of exceptions."""

from __future__ import annotations

import gc
import weakref

import pytest

from proxyd import errors
from proxyd.errors import (
    NO_RETRY,
    BadCredential,
    BadReply,
    BodyTimedOut,
    ClientError,
    Forbidden,
    Misdirected,
    NotFound,
    Overloaded,
    ProxyError,
    Refused,
    TimedOut,
    TooLong,
    Truncated,
    Unreachable,
    WrongAddress,
    clear_tracebacks,
    envelope,
    error_response,
    kind_of_status,
    message_of,
    name_address,
    response_headers,
)
from proxyd.secret import MASK, Secret


@pytest.mark.parametrize(
    ("exc", "expected"),
    [
        (errors.ProxyError("m"), (500, "api_error")),
        (errors.ClientError("m"), (400, "invalid_request_error")),
        (errors.BodyTooLarge("m"), (413, "request_too_large")),
        (errors.Unreachable("m"), (502, "api_error")),  # the row of its parent
        (errors.FrameTooLarge("m"), (502, "api_error")),
        (errors.TimedOut("m"), (504, "timeout_error")),
        (errors.Overloaded("m"), (529, "overloaded_error")),
        (errors.Refused("m", status=429, kind="rate_limit_error"), (429, "rate_limit_error")),
        (errors.LimitReached("m"), (429, "billing_error")),
        (errors.LimitReached("m", kind="rate_limit_error"), (429, "rate_limit_error")),
        (errors.KeysAside("m"), (529, "overloaded_error")),
        (errors.TooLong("m", window=1000), (400, "invalid_request_error")),
        (KeyError("m"), (500, "api_error")),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_status_and_type(exc: Exception, expected: tuple[int, str]) -> None:
    assert error_response(exc) == expected


def test_every_exception_has_a_response() -> None:
    classes = [value for value in vars(errors).values() if isinstance(value, type)]
    for cls in classes:
        if issubclass(cls, errors.ProxyError) and not issubclass(cls, errors.Refused):
            assert 400 <= error_response(cls("m"))[0] < 600


def test_envelope() -> None:
    expected = {"type": "error", "error": {"type": "not_found_error", "message": "no such model"}}
    assert envelope(errors.NotFound("no such model")) == expected
    assert envelope(errors.NotFound("no such model"), "req_1") == {**expected, "request_id": "req_1"}


def test_text_of_a_foreign_exception_is_not_shown() -> None:
    assert message_of(ValueError("a prompt")) == "internal error in claude-proxy; see its log"


def test_configured_keys_are_masked_in_messages() -> None:
    ours, theirs = Secret("configured-key-1"), Secret("the-client's-own", is_configured=False)
    exc = errors.Unreachable(f"refused {ours.reveal()} and {theirs.reveal()}")
    assert message_of(exc) == f"refused {MASK} and {theirs.reveal()}"


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "invalid_request_error"),
        (402, "billing_error"),
        (418, "invalid_request_error"),
        (429, "rate_limit_error"),
        (500, "api_error"),
        (503, "api_error"),
        (529, "overloaded_error"),
    ],
)
def test_type_of_a_status(status: int, kind: str) -> None:
    assert kind_of_status(status) == kind


def test_cleared_tracebacks_keep_nothing_alive() -> None:
    class Call:
        pass

    def fail(call: Call) -> None:
        try:
            raise KeyError("inner")
        except KeyError as exc:
            raise errors.Truncated("outer") from exc

    def run() -> tuple[errors.Truncated, weakref.ref[Call]]:
        call = Call()
        try:
            fail(call)
        except errors.Truncated as exc:
            return exc, weakref.ref(call)
        raise AssertionError

    gc.disable()
    try:
        exc, reference = run()
        assert reference() is not None, "the traceback refers to the frame"
        clear_tracebacks(exc)
        assert reference() is None
    finally:
        gc.enable()
    clear_tracebacks(None)


@pytest.mark.parametrize(
    ("failure", "is_named"),
    [
        (Truncated("the upstream closed the stream"), True),
        (Refused("overloaded", status=529, kind="overloaded_error"), True),
        (Truncated("https://u/v1 closed the stream"), False),
        (TooLong("prompt is too long: 3 tokens > 2 maximum"), False),
        (Refused("a text by which Claude Code recovers", status=400, kind="invalid_request_error"), False),
        (ClientError("bad request"), False),
        (Overloaded("full"), False),
    ],
)
def test_failure_of_an_upstream_names_its_address_once(failure: ProxyError, is_named: bool) -> None:
    message = failure.message
    name_address(failure, "https://u/v1")
    name_address(failure, "https://u/v1")
    assert failure.message == message + (" (https://u/v1)" if is_named else "")


def _refused(status: int, **headers: str) -> Refused:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Refused("no", status=status, kind="api_error", headers=named)


@pytest.mark.parametrize(
    ("failure", "is_permanent"),
    [
        (BadCredential("no key"), True),
        (Forbidden("not yours"), True),
        (NotFound("no model"), True),
        (Misdirected("other host"), True),
        (WrongAddress("no path"), True),
        (Unreachable("nobody listens", headers=NO_RETRY), True),
        (Overloaded("circuit", headers={"retry-after": "30", **NO_RETRY}), True),
        (_refused(401), True),
        (_refused(403), True),
        (_refused(404), True),
        (_refused(429, retry_after="601"), True),
        (_refused(429, retry_after="600"), False),
        (_refused(429), False),
        (_refused(500), False),
        (_refused(529, retry_after="soon"), False),
        (ClientError("bad request"), False),
        (TooLong("prompt is too long"), False),
        (BodyTimedOut("slow"), False),
        (Unreachable("reset"), False),
        (TimedOut("silent"), False),
        (BadReply("not HTTP"), False),
        (Overloaded("full", headers={"retry-after": "1"}), False),
        (ValueError("a bug"), False),
    ],
)
def test_header_that_stops_retries(failure: Exception, is_permanent: bool) -> None:
    headers = response_headers(failure)
    assert (headers.get("x-should-retry") == "false") is is_permanent
    for name, value in getattr(failure, "headers", {}).items():
        assert headers[name] == value
