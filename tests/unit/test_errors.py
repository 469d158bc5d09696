"""Which failures a retry cannot cure, and the header that says so."""

from __future__ import annotations

import pytest

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
    Refused,
    TimedOut,
    TooLong,
    Unreachable,
    WrongAddress,
    response_headers,
)


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
