"""What holds for whatever bytes an upstream sends: the target of `make fuzz`, and of a quick test in the suite.

The input is read as ``variant, cut, stream…``: the first byte picks the vendor's dialect, the second where the
stream is cut into chunks, the rest is what the upstream sent. Both modes read the same bytes:

- translated: nothing but a `ProxyError` is raised, and that only while no event was given out; the events obey
  the grammar and end; cutting the stream elsewhere changes no event and no error;
- direct: what is given out is the beginning of what came in, byte for byte; where the stream was cut matters
  only for how many blank lines behind the last frame go on before a stream that breaks.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence

from proxyd import errors
from proxyd.codecs.anthropic.events import ErrorEvent, encode_event
from proxyd.codecs.anthropic.grammar import Grammar
from proxyd.codecs.anthropic.passthrough import PassthroughStream, split_frames
from proxyd.codecs.codec import ResponseContext
from proxyd.codecs.formats import CHAT, GEMINI, RESPONSES
from proxyd.codecs.response_decoder import ResponseDecoder
from proxyd.codecs.upstream_errors.errors import ErrorContext
from proxyd.errors import ProxyError
from proxyd.providers.registry import PROFILES, dialect_for
from proxyd.providers.translated_request import new_decoder

__all__ = ["SEEDS", "check"]

_VARIANTS = [(CHAT, dialect_for(profile, "", {})) for profile in PROFILES.values()]
_VARIANTS += [
    (
        CHAT,
        dialect_for(
            PROFILES["generic"], "", {"think_tags": ["think", "thought"], "think_tag_is_implied": implied}
        ),
    )
    for implied in (False, True)
]
_FIRST_OF_RESPONSES = len(_VARIANTS)
_VARIANTS += [
    (RESPONSES, dialect_for(PROFILES["openai"], "gpt-5.6", {"message_phases": phases}, RESPONSES))
    for phases in (False, True)
]
_FIRST_OF_GEMINI = len(_VARIANTS)
_VARIANTS += [(GEMINI, dialect_for(PROFILES["gemini"], "gemini-3-pro", {}, GEMINI))]
_MAX_BODY_BYTES = 1 << 20

#: Streams to start from: one of each kind of content, and of each way to end.
SEEDS: tuple[bytes, ...] = (
    b'\0\0data: {"choices":[{"delta":{"content":"Hi"}}]}\n\ndata: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\n'
    b'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2}}\n\ndata: [DONE]\n\n',
    b'\1\7data: {"choices":[{"delta":{"reasoning_content":"hm","content":null}}]}\r\n\r\ndata: {"choices":[{"delta":'
    b'{"tool_calls":[{"index":0,"id":"c1","function":{"name":"f","arguments":"{\\"a\\":"}}]}}]}\r\n\r\ndata: '
    b'{"choices":[{"delta":{"tool_calls":[{"index":0,"function":{"arguments":"1}"}}]},"finish_reason":"tool_calls"}]}'
    b"\r\n\r\n",
    b'\xff\x20data: {"choices":[{"delta":{"content":"<think>a</think>b"}}]}\n\n'
    b'data: {"error":{"message":"x","code":500}}\n\n',
    b'\x03\x40{"choices":[{"message":{"content":"a","tool_calls":[{"id":"x","function":{"name":"f","arguments":{}}}]},'
    b'"finish_reason":"length"}],"usage":{"prompt_tokens":1}}',
    b'\x05\x11: ping\n\nevent: error\ndata: {"error":"overloaded"}\n\n',
    b"\x06\x00<html>bad gateway</html>",
    b'\x09\x33data: {"choices":[{"index":1,"delta":{"content":[{"type":"thinking","thinking":'
    b'[{"type":"text","text":"t"}]},{"type":"text","text":"u"}]}}]}\n\n'
    b'data: {"choices":[{"delta":{"refusal":"no"},"finish_reason":"content_filter"}]}\n\n',
    b'\x00\x01event: message_start\ndata: {"type":"message_start","message":{"usage":{"input_tokens":1}}}\n\n'
    b'event: message_stop\ndata: {"type":"message_stop"}\n\n',
    *(
        bytes([_FIRST_OF_RESPONSES + at % 2, at]) + stream
        for at, stream in enumerate(
            (
                b'data: {"type":"response.output_text.delta","sequence_number":1,"output_index":0,"delta":"a"}\n\n'
                b'data: {"type":"response.output_text.delta","sequence_number":2,"output_index":0,"delta":"b"}\n\n'
                b'event: response.completed\ndata: {"type":"response.completed","response":{"status":"completed",'
                b'"usage":{"input_tokens":3,"output_tokens":1}}}\n\n',
                b'data: {"type":"response.output_item.added","output_index":0,"item":{"type":"reasoning"}}\n\n'
                b'data: {"type":"response.reasoning_summary_text.delta","output_index":0,"summary_index":0,"delta":"t"}'
                b'\n\ndata: {"type":"response.output_item.done","output_index":0,"item":{"type":"reasoning",'
                b'"encrypted_content":"g"}}\n\ndata: {"type":"response.output_item.done","output_index":1,"item":'
                b'{"type":"function_call","call_id":"c","name":"f","arguments":"{}"}}\n\n'
                b'data: {"type":"response.incomplete","response":{"incomplete_details":{"reason":"max_output_tokens"}}}'
                b"\n\n",
                b'data: {"type":"response.function_call_arguments.delta","output_index":0,"delta":"{\\"a\\":"}\n\n'
                b'data: {"type":"response.failed","response":{"error":{"code":"server_error","message":"m"}}}\n\n',
                b'{"object":"response","status":"completed","output":[{"type":"message","content":[{"type":"refusal",'
                b'"refusal":"no"}]}]}',
            )
        )
    ),
    *(
        bytes([_FIRST_OF_GEMINI, at]) + stream
        for at, stream in enumerate(
            (
                b'data: {"candidates":[{"content":{"parts":[{"text":"a","thought":true}],"role":"model"},"index":0}]}'
                b'\r\n\r\ndata: {"candidates":[{"content":{"parts":[{"functionCall":{"name":"f","args":{"a":1}},'
                b'"thoughtSignature":"czE="}]},"finishReason":"STOP"}],"usageMetadata":{"promptTokenCount":3}}\r\n\r\n',
                b'data: {"candidates":[{"content":{"parts":[{"text":"a"},{"text":"","thoughtSignature":"czE="}]}}]}\n\n'
                b'data: {"candidates":[{"finishReason":"MALFORMED_FUNCTION_CALL"}]}\n\n',
                b'data: {"promptFeedback":{"blockReason":"SAFETY"}}\n\n',
                b'[{"candidates":[{"content":{"parts":[{"text":"a"}]},"finishReason":"MAX_TOKENS"}]},\n{"usageMetadata":'
                b'{"promptTokenCount":3,"candidatesTokenCount":1}}]',
                b'data: {"candidates":[{"content":{"parts":[{"text":"a"}]}}]}\n\ndata: {"error":{"code":503,"message":'
                b'"overloaded","status":"UNAVAILABLE","details":[{"retryDelay":"3s"}]}}\n\n',
            )
        )
    ),
)


def check(data: bytes) -> None:
    """Raise AssertionError, or whatever went wrong inside, if `data` breaks a rule of the module's text."""
    if len(data) < 2:
        return
    stream, cuts = data[2:], random.Random(data[1])
    chunks = list(_cut(stream, cuts)) if data[1] else [stream]
    whole = _translate(data[0], [stream])
    assert _translate(data[0], chunks) == whole, "the events depend on how the stream was cut"
    _check_direct(stream, chunks)


def _cut(stream: bytes, cuts: random.Random) -> Iterator[bytes]:
    at = 0
    while at < len(stream):
        size = cuts.choice((1, 2, 3, 7, 30, 200))
        yield stream[at : at + size]
        at += size


def _translate(variant: int, pieces: Sequence[bytes]) -> tuple[bytes, str]:
    """The client's stream and the error that came instead of it; exactly one of them."""
    response = _new_response(variant)
    stream = b""
    try:
        for chunk in pieces:
            if response.has_ended:
                break
            stream += response.feed(chunk)
        stream += response.close()
    except ProxyError as exc:
        assert not stream, "raised after events had been given out"
        return b"", f"{type(exc).__name__}: {exc.message}"
    events = [event for _, event in split_frames(stream) if event is not None]
    grammar = Grammar()
    for event in events:
        grammar.accept(event)
    assert grammar.has_ended, "the stream has no end"
    assert sum(isinstance(event, ErrorEvent) for event in events) <= 1, "one error event at most"
    assert (response.failure is not None) == isinstance(events[-1], ErrorEvent), (
        "the failure is kept for the log"
    )
    return stream, ""


def _new_response(variant: int) -> ResponseDecoder:
    ids = itertools.count()
    chosen, dialect = _VARIANTS[variant % len(_VARIANTS)]
    return new_decoder(
        chosen,
        ResponseContext(model="m", upstream_model="u", errors=ErrorContext(route="m")),
        dialect,
        lambda prefix, length=24: f"{prefix}{next(ids)}",
        lambda oddity: None,
        _MAX_BODY_BYTES,
    )


def _check_direct(stream: bytes, pieces: Sequence[bytes]) -> None:
    given = []
    for cut in ([stream], pieces):
        direct, out = PassthroughStream(), b""
        try:
            for chunk in cut:
                out += direct.feed(chunk)
            out += direct.close()
        except ProxyError:
            pass
        if direct.failure is not None:
            out = out.removesuffix(encode_event(ErrorEvent(errors.envelope(direct.failure))))
        assert stream.startswith(out), "direct mode altered a byte"
        given.append(out.rstrip(b"\r\n"))
    assert given[0] == given[1], "direct mode depends on how the stream was cut"
