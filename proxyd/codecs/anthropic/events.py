"""Events of an Anthropic message stream, and their encoding as SSE frames.

Source: docs/spec/messages-api.md#events. There is one class per event type, and one per delta type that the proxy sends
itself. Every other event of an Anthropic upstream is `Unknown` and keeps its data.

The delta encoders fill a byte template with one JSON string: most of a stream is deltas.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Union

from proxyd import jsonio

__all__ = [
    "PING",
    "BlockStart",
    "BlockStop",
    "ErrorEvent",
    "JsonDelta",
    "MessageDelta",
    "MessageStart",
    "MessageStop",
    "Ping",
    "SignatureDelta",
    "StreamEvent",
    "TextDelta",
    "ThinkingDelta",
    "Unknown",
    "around_text",
    "data_of",
    "delta_of",
    "encode_event",
    "encode_events",
    "encode_frame",
    "event_from_data",
    "message_start",
]


@dataclass(frozen=True, slots=True)
class MessageStart:
    """`message` is a whole Message with ``content: []``, ``stop_reason: null`` and a first ``usage``."""

    message: dict[str, Any]


@dataclass(frozen=True, slots=True)
class BlockStart:
    """`block` has its type and empty content."""

    index: int
    block: dict[str, Any]


@dataclass(frozen=True, slots=True)
class TextDelta:
    index: int
    text: str


@dataclass(frozen=True, slots=True)
class ThinkingDelta:
    index: int
    thinking: str


@dataclass(frozen=True, slots=True)
class SignatureDelta:
    """At most one per thinking block, before its stop; it replaces the signature, it does not append."""

    index: int
    signature: str


@dataclass(frozen=True, slots=True)
class JsonDelta:
    """`partial_json`: a fragment of the tool input's JSON text."""

    index: int
    partial_json: str


@dataclass(frozen=True, slots=True)
class BlockStop:
    index: int


@dataclass(frozen=True, slots=True)
class MessageDelta:
    """`delta` has stop_reason and stop_sequence, `usage` cumulative totals, `context_management` the edits that were
    made to the request, if there were any.
    """

    delta: dict[str, Any]
    usage: dict[str, Any]
    context_management: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class MessageStop:
    pass


@dataclass(frozen=True, slots=True)
class Ping:
    pass


@dataclass(frozen=True, slots=True)
class ErrorEvent:
    """`body` is the whole error envelope (`errors.envelope`). It ends the stream."""

    body: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Unknown:
    """An event or delta type that the proxy does not send itself; `data` is passed through."""

    data: dict[str, Any]


StreamEvent = Union[  # noqa: UP007 - a dozen names read better below each other
    MessageStart,
    BlockStart,
    TextDelta,
    ThinkingDelta,
    SignatureDelta,
    JsonDelta,
    BlockStop,
    MessageDelta,
    MessageStop,
    Ping,
    ErrorEvent,
    Unknown,
]


def message_start(message_id: str, model: str, usage: dict[str, Any]) -> MessageStart:
    """Build the first event of a message of ours."""
    return MessageStart(
        {
            "id": message_id,
            "type": "message",
            "role": "assistant",
            "model": model,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": usage,
        }
    )


def encode_frame(name: str, data: dict[str, Any]) -> bytes:
    """Encode one SSE frame; the ``event`` name of every Anthropic event is its ``data.type``."""
    return b"event: %b\ndata: %b\n\n" % (name.encode(), jsonio.dumps(data))


_DELTA = (
    b"event: content_block_delta\n"
    b'data: {"type":"content_block_delta","index":%d,"delta":{"type":"%b","%b":%b}}\n\n'
)
#: block type -> type of its deltas, and the name of their text field
_DELTAS = {
    "text": (b"text_delta", b"text"),
    "thinking": (b"thinking_delta", b"thinking"),
    "tool_use": (b"input_json_delta", b"partial_json"),
}


def delta_of(index: int, block: str, text: str) -> TextDelta | ThinkingDelta | JsonDelta:
    """Build the delta that appends `text` to a block of type `block`."""
    if block == "text":
        return TextDelta(index, text)
    return ThinkingDelta(index, text) if block == "thinking" else JsonDelta(index, text)


def around_text(index: int, block: str) -> tuple[bytes, bytes]:
    """Return what the frame of a delta has before and after its text, which is a JSON string without its quotes."""
    before, _, after = (_DELTA % (index, *_DELTAS[block], b'"\0"')).partition(b"\0")
    return before, after


def _text_delta(event: TextDelta) -> bytes:
    return _DELTA % (event.index, *_DELTAS["text"], jsonio.dumps(event.text))


def _thinking_delta(event: ThinkingDelta) -> bytes:
    return _DELTA % (event.index, *_DELTAS["thinking"], jsonio.dumps(event.thinking))


def _json_delta(event: JsonDelta) -> bytes:
    return _DELTA % (event.index, *_DELTAS["tool_use"], jsonio.dumps(event.partial_json))


def _signature_delta(event: SignatureDelta) -> bytes:
    return _DELTA % (event.index, b"signature_delta", b"signature", jsonio.dumps(event.signature))


def _block_start(event: BlockStart) -> bytes:
    return (
        b'event: content_block_start\ndata: {"type":"content_block_start","index":%d,"content_block":%b}\n\n'
    ) % (event.index, jsonio.dumps(event.block))


def _block_stop(event: BlockStop) -> bytes:
    return b'event: content_block_stop\ndata: {"type":"content_block_stop","index":%d}\n\n' % event.index


def _message_start(event: MessageStart) -> bytes:
    return b'event: message_start\ndata: {"type":"message_start","message":%b}\n\n' % jsonio.dumps(
        event.message
    )


def _message_delta(event: MessageDelta) -> bytes:
    edits = event.context_management
    return b'event: message_delta\ndata: {"type":"message_delta","delta":%b,"usage":%b%b}\n\n' % (
        jsonio.dumps(event.delta),
        jsonio.dumps(event.usage),
        b"" if edits is None else b',"context_management":%b' % jsonio.dumps(edits),
    )


PING = encode_frame("ping", {"type": "ping"})
_MESSAGE_STOP = encode_frame("message_stop", {"type": "message_stop"})


def _whole(event: StreamEvent) -> bytes:
    data = data_of(event)
    return encode_frame(str(data.get("type") or "unknown"), data)


_ENCODERS: dict[type, Callable[[Any], bytes]] = {
    TextDelta: _text_delta,
    ThinkingDelta: _thinking_delta,
    JsonDelta: _json_delta,
    SignatureDelta: _signature_delta,
    BlockStart: _block_start,
    BlockStop: _block_stop,
    MessageStart: _message_start,
    MessageDelta: _message_delta,
    MessageStop: lambda event: _MESSAGE_STOP,
    Ping: lambda event: PING,
}


def encode_event(event: StreamEvent) -> bytes:
    """Encode `event` as one SSE frame."""
    return _ENCODERS.get(type(event), _whole)(event)


def encode_events(events: Iterable[StreamEvent]) -> bytes:
    """Encode `events` as SSE frames."""
    return b"".join(map(encode_event, events))


def data_of(event: StreamEvent) -> dict[str, Any]:
    """Return the event's ``data`` object, as hooks get it."""
    match event:
        case TextDelta(index, text):
            return _delta_data(index, {"type": "text_delta", "text": text})
        case ThinkingDelta(index, thinking):
            return _delta_data(index, {"type": "thinking_delta", "thinking": thinking})
        case JsonDelta(index, partial_json):
            return _delta_data(index, {"type": "input_json_delta", "partial_json": partial_json})
        case SignatureDelta(index, signature):
            return _delta_data(index, {"type": "signature_delta", "signature": signature})
        case BlockStart(index, block):
            return {"type": "content_block_start", "index": index, "content_block": block}
        case BlockStop(index):
            return {"type": "content_block_stop", "index": index}
        case MessageStart(message):
            return {"type": "message_start", "message": message}
        case MessageDelta(delta, usage, edits):
            more = {} if edits is None else {"context_management": edits}
            return {"type": "message_delta", "delta": delta, "usage": usage, **more}
        case MessageStop():
            return {"type": "message_stop"}
        case Ping():
            return {"type": "ping"}
        case ErrorEvent(body):
            return body
        case Unknown(data):
            return data


def _delta_data(index: int, delta: dict[str, Any]) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": index, "delta": delta}


_DELTA_CLASSES: dict[str, tuple[type[Any], str]] = {
    "text_delta": (TextDelta, "text"),
    "thinking_delta": (ThinkingDelta, "thinking"),
    "input_json_delta": (JsonDelta, "partial_json"),
    "signature_delta": (SignatureDelta, "signature"),
}


def event_from_data(data: dict[str, Any]) -> StreamEvent:
    """Build the event for a ``data`` object; `Unknown` if the proxy does not send its type or shape itself.

    An event with fields that its class cannot carry is `Unknown` too, so that nothing of it is lost.
    """
    match data:
        case {"type": "content_block_delta", "index": int(index), "delta": {"type": str(kind)} as delta}:
            cls, field = _DELTA_CLASSES.get(kind, (None, ""))
            if cls is not None and isinstance(delta.get(field), str) and len(delta) == 2 and len(data) == 3:
                return cls(index, delta[field])  # type: ignore[no-any-return]
        case {"type": "content_block_start", "index": int(index), "content_block": dict(block)} if (
            len(data) == 3
        ):
            return BlockStart(index, block)
        case {"type": "content_block_stop", "index": int(index)} if len(data) == 2:
            return BlockStop(index)
        case {"type": "message_start", "message": dict(message)} if len(data) == 2:
            return MessageStart(message)
        case {"type": "message_delta", "delta": dict(delta), "usage": dict(usage)} if len(data) == 3:
            return MessageDelta(delta, usage)
        case {
            "type": "message_delta",
            "delta": dict(delta),
            "usage": dict(usage),
            "context_management": dict(edits),
        } if len(data) == 4:
            return MessageDelta(delta, usage, edits)
        case {"type": "message_stop"} if len(data) == 1:
            return MessageStop()
        case {"type": "ping"} if len(data) == 1:
            return Ping()
        case {"type": "error", "error": dict()}:
            return ErrorEvent(data)
    return Unknown(data)
