"""Content of a stream that is no event: which lines count, and the error that quotes them."""

from __future__ import annotations

from typing import Any

import pytest

from proxyd.codecs.upstream_errors.errors import ErrorContext
from proxyd.codecs.upstream_errors.unreadable import (
    UnreadableContent,
    error_in_lines,
    is_heartbeat,
    unreadable_error,
    unreadable_lines,
)
from proxyd.errors import error_response


@pytest.mark.parametrize(
    ("block", "expected"),
    [
        (b"data: {}", b""),
        (b": comment\nid: 1\nevent: x\nretry: 5\ndata: {}", b""),
        (b"", b""),
        (b"event: error\ndata: ", b""),
        (b"event: error", b"event: error"),
        (b'error: {"a":1}', b'error: {"a":1}'),
        (b'data: {}\n{"error":1}', b'{"error":1}'),
        (b'{\n  "error": 1\n}', b'{\n  "error": 1\n}'),
        (b"<html>\n<p>data: no</p>", b"<html>\n<p>data: no</p>"),
        (b"nonsense", b"nonsense"),
        (b"dat", b"dat"),
    ],
)
def test_lines_that_are_no_field(block: bytes, expected: bytes) -> None:
    assert unreadable_lines(block) == expected


@pytest.mark.parametrize(
    ("block", "expected"), [(b"dat", b""), (b"e", b""), (b"err", b"err"), (b"x\nda", b"x")]
)
def test_cut_field_at_the_end_is_not_unreadable(block: bytes, expected: bytes) -> None:
    assert unreadable_lines(block, is_cut=True) == expected


@pytest.mark.parametrize(
    ("event", "chunk", "expected"),
    [
        (b"", {"choices": None}, True),
        (b"", {"object": "chat.completion.chunk", "note": 1}, True),
        (b"", {"type": "ping", "t": 1}, True),
        (b"keepalive", {"t": 1}, True),
        (b"", {"id": "c", "model": "m"}, True),
        (b"", {}, True),
        (b"", {"outcome": "lost"}, False),
    ],
)
def test_heartbeats(event: bytes, chunk: dict[str, Any], expected: bool) -> None:
    assert is_heartbeat(event, chunk) is expected


@pytest.mark.parametrize(
    ("text", "status", "quoted"),
    [
        (b'error: {"code":429,"message":"slow down"}', 429, "slow down"),
        (b'[{"error":{"code":503,"message":"try later"}}]', 529, "try later"),
        (b"<html><title>502 Bad Gateway</title>", 502, "502 Bad Gateway"),
        (b"worker 7 died", 502, "worker 7 died"),
        (b'{"odd": true}', 502, '{"odd": true}'),
        (b"\xff\xfe" * 40, 502, "without saying why"),
        (b"event: error", 502, "without saying why"),
        (b"error:", 502, "without saying why"),
    ],
)
def test_error_quotes_the_content(text: bytes, status: int, quoted: str) -> None:
    exc = unreadable_error(text, ErrorContext(route="m"))
    assert error_response(exc)[0] == status
    assert quoted in exc.message


def test_keys_are_masked_in_the_quote() -> None:
    key = "-".join(["sk", "proj", "a1B2c3D4e5F6g7H8i9J0" * 2])
    exc = unreadable_error(f"failed with {key}".encode(), ErrorContext())
    assert "failed with" in exc.message
    assert key[12:] not in exc.message


def test_large_content_is_bounded() -> None:
    content = UnreadableContent()
    assert not content
    for _ in range(100):
        content.add(b"x" * 100_000)
    assert content
    assert len(content.error(ErrorContext()).message) < 3000


@pytest.mark.parametrize(
    ("text", "is_error"),
    [
        (b'error: {"message":"a"}', True),
        (b'{"error":"a"}', True),
        (b"error: a", False),
        (b"error: {}", False),
        (b'{"a":1}', False),
    ],
)
def test_errors_in_lines(text: bytes, is_error: bool) -> None:
    assert (error_in_lines(text) is not None) == is_error
