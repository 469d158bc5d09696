"""An event stream parser independent of the product: WHATWG HTML 9.2, one character at a time."""

from __future__ import annotations

import json
from typing import Any

__all__ = ["message_of", "read_events"]


def read_events(stream: bytes) -> list[tuple[str, str]]:
    """Return the dispatched events as ``(name, data)``; an incomplete one at the end is discarded, by the standard."""
    events: list[tuple[str, str]] = []
    name, data = "", []
    text = stream.decode("utf-8", "surrogatepass").removeprefix("\ufeff")
    line, at = "", 0
    while at < len(text):
        char = text[at]
        at += 1
        if char not in "\r\n":
            line += char
            continue
        if char == "\r" and text[at : at + 1] == "\n":
            at += 1
        if not line:
            if data:
                events.append((name or "message", "\n".join(data)))
            name, data = "", []
        elif line[0] != ":":
            key, _, value = line.partition(":")
            value = value[1:] if value.startswith(" ") else value
            if key == "event":
                name = value
            elif key == "data":
                data.append(value)
        line = ""
    return events


def message_of(stream: bytes) -> dict[str, Any]:
    """Return the message of a whole stream; the ``input`` of a tool use stays the text of its fragments.

    A stream that ended in an error has ``error`` in its message.
    """
    message: dict[str, Any] = {}
    for name, text in read_events(stream):
        data = json.loads(text)
        assert data["type"] == name, "an event must be named by its type, or the SDKs skip it"
        if name == "message_start":
            message = data["message"]
        elif name == "content_block_start":
            block = data["content_block"]
            message["content"].append({**block, "input": ""} if block["type"] == "tool_use" else block)
        elif name == "content_block_delta":
            block, delta = message["content"][data["index"]], data["delta"]
            if delta["type"] == "signature_delta":
                block["signature"] = delta["signature"]
            else:
                source = delta["type"].removesuffix("_delta").replace("input_json", "partial_json")
                target = "input" if source == "partial_json" else source
                block[target] += delta[source]
        elif name == "message_delta":
            message.update(data["delta"])
            message["usage"].update(data["usage"])
        elif name == "error":
            message["error"] = data["error"]
    return message
