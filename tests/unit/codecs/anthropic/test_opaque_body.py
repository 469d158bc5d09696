"""Bodies that are passed on as they come, with usage read from a copy and keys masked in errors."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxyd.codecs.anthropic.events import MessageStop, TextDelta, encode_event, encode_frame
from proxyd.codecs.anthropic.opaque_body import OpaqueBody
from proxyd.codecs.wire.decompression import Decompressor
from proxyd.errors import Truncated
from proxyd.secret import Secret

MESSAGE = json.dumps(
    {
        "type": "message",
        "content": [{"type": "text", "text": "sk-a-key-of-the-model's-own-making"}],
        "stop_reason": "max_tokens",
        "usage": {"input_tokens": 7, "output_tokens": 9, "cache_read_input_tokens": 2},
    }
).encode()
_START: dict[str, Any] = {"type": "message_start", "message": {"usage": {"input_tokens": 7}}}
STREAM = encode_frame("message_start", _START) + encode_event(TextDelta(0, "x")) + encode_event(MessageStop())


def passed(body: OpaqueBody, data: bytes, cuts: set[int]) -> bytes:
    edges = [0, *sorted(cuts), len(data)]
    found = [body.feed(data[edges[at] : edges[at + 1]]) for at in range(len(edges) - 1)]
    return b"".join([*found, body.close()])


@given(st.sets(st.integers(1, 150), max_size=4), st.booleans(), st.booleans())
def test_bytes_are_unchanged_and_usage_is_read(cuts: set[int], is_compressed: bool, has_keys: bool) -> None:
    data = gzip.compress(MESSAGE) if is_compressed else MESSAGE
    key = Secret("sk-a-key-of-the-model's-own-making")
    keys = [key] if has_keys and not is_compressed else []
    body = OpaqueBody("application/json", Decompressor() if is_compressed else None, keys)
    assert passed(body, data, {cut for cut in cuts if cut < len(data)}) == data
    assert (body.usage.input_tokens, body.usage.output_tokens, body.stop_reason) == (7, 9, "max_tokens")
    assert body.reports_cache
    assert body.has_ended


@given(st.sets(st.integers(1, 60), max_size=4))
def test_keys_are_masked_in_an_error_wherever_it_is_cut(cuts: set[int]) -> None:
    key = Secret("sk-secret-0123456789")
    data = b'{"error": {"message": "the key sk-secret-0123456789 is wrong"}}'
    found = passed(OpaqueBody("application/json", keys=[key]), data, cuts)
    assert b"sk-secret-0123456789" not in found
    assert found.startswith(b'{"error": {"message": "the key ')
    assert found.endswith(b' is wrong"}}')


def test_compressed_stream_is_watched_to_its_last_event() -> None:
    body = OpaqueBody("text/event-stream", Decompressor())
    data = gzip.compress(STREAM)
    assert body.feed(data[:20]) == data[:20]
    assert not body.has_finish
    assert body.feed(data[20:]) == data[20:]
    assert (body.has_finish, body.has_last_event, body.usage.input_tokens) == (True, True, 7)


@pytest.mark.parametrize("kind", ["application/json", "text/event-stream", "image/png", ""])
def test_what_cannot_be_read_is_passed_on(kind: str) -> None:
    body = OpaqueBody(kind, Decompressor())
    assert passed(body, b"\x00no gzip" * 10, {5, 50}) == b"\x00no gzip" * 10
    assert body.usage.output_tokens == 0


def test_failure_has_no_form_within_a_body() -> None:
    body = OpaqueBody("application/json")
    body.feed(MESSAGE[:20])
    assert not body.has_started
    assert body.fail(Truncated("cut")) == b""
    assert body.failure is None
