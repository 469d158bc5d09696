"""One answer with every kind of block, in both dialects, in pieces; and a judge of what a client was sent."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

__all__ = ["CHUNKED", "DIRECT", "HELLO", "TRANSLATED", "as_chunks", "judge"]

HELLO = {
    "model": "m",
    "max_tokens": 50,
    "stream": True,
    "messages": [{"role": "user", "content": "hi"}],
    "tools": [{"name": "Write", "input_schema": {"type": "object"}}],
}

CHUNKED = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def _chunk(delta: dict[str, Any] | None, finish: str | None = None, **more: Any) -> bytes:
    choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": finish}]
    return b"data: " + json.dumps({"id": "c", "model": "m", "choices": choices, **more}).encode() + b"\n\n"


def _call(**function: str) -> dict[str, Any]:
    head = {"id": "call_1", "type": "function"} if "name" in function else {}
    return {"tool_calls": [{"index": 0, **head, "function": function}]}


#: Each event by the phase that it begins; the fault of a phase happens after its event.
TRANSLATED: dict[str, bytes] = {
    "role": _chunk({"role": "assistant", "content": ""}),
    "thinking": _chunk({"reasoning_content": "Let me think. "}),
    "more_thinking": _chunk({"reasoning_content": "Yes."}),
    "text": _chunk({"content": "I will "}),
    "more_text": _chunk({"content": "write it."}),
    "tool": _chunk(_call(name="Write", arguments="")),
    "arguments": _chunk(_call(arguments='{"path": "a')),
    "more_arguments": _chunk(_call(arguments='.txt"}')),
    "finish": _chunk({}, "tool_calls"),
    "usage": _chunk(None, usage={"prompt_tokens": 12, "completion_tokens": 3, "total_tokens": 15}),
    "end": b"data: [DONE]\n\n",
}


def _event(kind: str, **data: Any) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **data})}\n\n".encode()


def _delta(index: int, kind: str, **delta: str) -> bytes:
    return _event("content_block_delta", index=index, delta={"type": kind, **delta})


def _start(index: int, kind: str, **block: Any) -> bytes:
    return _event("content_block_start", index=index, content_block={"type": kind, **block})


def _stop(index: int) -> bytes:
    return _event("content_block_stop", index=index)


_MESSAGE = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "m",
    "content": [],
    "stop_reason": None,
    "stop_sequence": None,
    "usage": {"input_tokens": 12, "output_tokens": 1},
}

DIRECT: dict[str, bytes] = {
    "role": _event("message_start", message=_MESSAGE),
    "thinking": _start(0, "thinking", thinking="", signature="")
    + _delta(0, "thinking_delta", thinking="Let me "),
    "more_thinking": _delta(0, "thinking_delta", thinking="think.")
    + _delta(0, "signature_delta", signature="c2ln"),
    "text": _stop(0) + _start(1, "text", text="") + _delta(1, "text_delta", text="I will "),
    "more_text": _delta(1, "text_delta", text="write it."),
    "tool": _stop(1) + _start(2, "tool_use", id="toolu_1", name="Write", input={}),
    "arguments": _delta(2, "input_json_delta", partial_json='{"path": "a'),
    "more_arguments": _delta(2, "input_json_delta", partial_json='.txt"}'),
    "finish": _stop(2),
    "usage": _event(
        "message_delta", delta={"stop_reason": "tool_use", "stop_sequence": None}, usage={"output_tokens": 3}
    ),
    "end": _event("message_stop"),
}


def as_chunks(*pieces: bytes) -> bytes:
    """Each piece as one HTTP chunk."""
    return b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in pieces)


def judge(events: Sequence[tuple[str, dict[str, Any]]]) -> str:
    """Hold a client's stream against the order rules of the Messages API (docs/spec/messages-api.md#order); says how
    it ended.

    Written apart from the proxy's own grammar, so that one mistake cannot hide in both.

    Returns:
        ``message_stop``, or ``error``; "" for a stream without an end.
    """
    open_block: int | None = None
    blocks, has_started, end = 0, False, ""
    for name, data in events:
        kind = data["type"]
        assert name == kind, f"event: {name} with data of type {kind}"
        assert not end, f"{kind} after {end}"
        if kind == "ping":
            continue
        if kind == "error":
            assert set(data) >= {"type", "error"}
            assert set(data["error"]) == {"type", "message"}
            end = kind
            continue
        assert has_started == (kind != "message_start"), f"{kind} at the wrong place"
        has_started = True
        if kind == "content_block_start":
            assert open_block is None, "two open blocks"
            assert data["index"] == blocks, "blocks are numbered without gaps"
            open_block = blocks
            blocks += 1
        elif kind in ("content_block_delta", "content_block_stop"):
            assert data["index"] == open_block, f"{kind} for a block that is not open"
            open_block = None if kind == "content_block_stop" else open_block
        elif kind in ("message_delta", "message_stop"):
            assert open_block is None, f"{kind} within a block"
            end = kind if kind == "message_stop" else ""
    return end
