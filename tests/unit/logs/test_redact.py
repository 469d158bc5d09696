"""Redaction of log events and tracebacks."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from proxyd.errors import ClientError
from proxyd.logs.redact import redact, redact_event, safe_traceback

KEY = "sk-abcdefgh12345678"


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        ({"event": "a.b", "count": 3}, {"event": "a.b", "count": 3}),
        ({"event": "a.b", "text": f"got {KEY}"}, {"event": "a.b", "text": "got ***"}),
        ({"event": "a.b", "api_key": "short"}, {"event": "a.b", "api_key": "***"}),
        (
            {"event": "a.b", "items": [KEY, {"token": "x"}]},
            {"event": "a.b", "items": ["***", {"token": "***"}]},
        ),
        ({"event": "a.b", "input_tokens": 5}, {"event": "a.b", "input_tokens": 5}),
    ],
)
def test_event_fields_are_masked_by_name_and_by_value(event: Any, expected: dict[str, Any]) -> None:
    assert redact_event(None, "info", event) == expected


def test_bytes_are_masked_by_name() -> None:
    assert redact({"password": b"x", "data": b"x"}) == {"password": "***", "data": b"x"}


def _traceback_of(raised: BaseException, cause: BaseException | None = None) -> str:
    try:
        raise raised from cause
    except BaseException:
        return safe_traceback(sys.exc_info())


@pytest.mark.parametrize(
    ("exc", "is_shown"),
    [(ValueError("prompt text"), False), (OSError("prompt text"), True), (ClientError("prompt text"), True)],
)
def test_only_messages_that_quote_no_data_are_shown(exc: Exception, is_shown: bool) -> None:
    text = _traceback_of(exc)
    assert ("prompt text" in text) is is_shown
    assert type(exc).__qualname__ in text
    assert "test_redact.py" in text


def test_causes_come_first_and_cycles_end() -> None:
    cause = KeyError("prompt text")
    text = _traceback_of(RuntimeError("also"), cause)
    assert text.index("KeyError") < text.index("RuntimeError")
    cause.__cause__ = cause
    assert _traceback_of(RuntimeError("also"), cause).count("KeyError") == 1
