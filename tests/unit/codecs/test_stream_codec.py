"""What every codec does alike: unreadable content, errors in a whole body, usage before it is reported."""

from __future__ import annotations

import json
from typing import Any

import pytest

from proxyd.codecs.codec import ResponseContext
from proxyd.codecs.openai.stream import OpenAIStream
from proxyd.codecs.responses.stream import ResponsesStream
from proxyd.codecs.stream_codec import StreamCodec
from proxyd.codecs.translation.dialect import Dialect
from proxyd.codecs.wire.sse import SSEFrame
from proxyd.errors import ProxyError

#: A codec, and a frame of its protocol with the text "12345678".
CODECS: list[tuple[type[Any], dict[str, Any]]] = [
    (OpenAIStream, {"choices": [{"index": 0, "delta": {"content": "12345678"}}]}),
    (
        ResponsesStream,
        {"type": "response.output_text.delta", "output_index": 0, "content_index": 0, "delta": "12345678"},
    ),
]


def codec_of(kind: type[Any]) -> Any:
    context = ResponseContext(model="m", upstream_model="up", estimated_input_tokens=7)
    codec = kind(context, Dialect(), lambda prefix: f"{prefix}1", lambda _: None)
    assert isinstance(codec, StreamCodec)
    return codec


@pytest.mark.parametrize(("kind", "frame"), CODECS)
def test_usage_is_estimated_until_it_is_reported(kind: type[Any], frame: dict[str, Any]) -> None:
    codec = codec_of(kind)
    assert not codec.has_started
    codec.feed(SSEFrame(b"", json.dumps(frame).encode()))
    assert codec.has_started
    assert (codec.usage.input_tokens, codec.usage.output_tokens, codec.usage.is_estimated) == (7, 2, True)


@pytest.mark.parametrize(("kind", "frame"), CODECS)
def test_unreadable_content_is_the_error_of_a_stream_without_an_end(
    kind: type[Any], frame: dict[str, Any]
) -> None:
    codec = codec_of(kind)
    codec.feed(SSEFrame(b"", json.dumps(frame).encode()))
    assert codec.unreadable_error() is None
    codec.on_unreadable(b"the worker died")
    assert "the worker died" in codec.unreadable_error().message
    with pytest.raises(ProxyError, match="the worker died"):
        codec.close()


@pytest.mark.parametrize(("kind", "_"), CODECS)
def test_an_error_that_can_be_read_is_raised_at_once(kind: type[Any], _: Any) -> None:
    with pytest.raises(ProxyError, match="no memory"):
        codec_of(kind).on_unreadable(b'{"error": {"message": "no memory"}}')


@pytest.mark.parametrize(("kind", "_"), CODECS)
def test_a_body_reports_an_error_or_none(kind: type[Any], _: Any) -> None:
    codec = codec_of(kind)
    body = b'{"error": {"message": "slow down", "code": "rate_limit_exceeded"}}'
    error = codec.error_in_body(body)
    assert isinstance(error, ProxyError)
    assert "slow down" in error.message
    assert codec.error_in_body(b"{}") is None
    assert codec.error_in_body(b"no JSON") is None
