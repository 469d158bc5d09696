"""Requests like Claude Code's, and scripted responses in both dialects.

A response is selected by the model's name, ``bench-NAME``, so that a contender needs nothing but its own configuration.
`Content` is what a client must have received in the end.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

__all__ = ["PACED", "RESPONSES", "STAMP", "Content", "Response", "anthropic_frame", "bodies", "openai_frame"]

#: Headers as Claude Code sends them; their number is part of the cost of a request.
HEADERS = {
    "accept": "application/json",
    "anthropic-beta": "claude-code-20250219,interleaved-thinking-2025-05-14,fine-grained-tool-streaming-2025-05-14",
    "anthropic-dangerous-direct-browser-access": "true",
    "anthropic-version": "2023-06-01",
    "authorization": "Bearer sk-bench-000000000000000000000000",
    "content-type": "application/json",
    "user-agent": "claude-cli/2.1.198 (external, cli)",
    "x-app": "cli",
    "x-claude-code-session-id": "5f0c1c0e-7c33-4c6c-9b5e-1d0b5a3a0c11",
    "x-stainless-arch": "x64",
    "x-stainless-lang": "js",
    "x-stainless-os": "Linux",
    "x-stainless-package-version": "0.94.0",
    "x-stainless-retry-count": "0",
    "x-stainless-runtime": "node",
    "x-stainless-runtime-version": "v24.3.0",
    "x-stainless-timeout": "600",
}

#: In the text of a paced chunk: its number, and the time at which the upstream wrote it, in ns of the monotonic clock.
STAMP = re.compile(rb"<(\d{7}) (\d{17})>")
STAMP_TEMPLATE = "<%07d %017d>"
#: The model whose stream continues until ``POST /finish``.
PACED = "paced"

_WORDS = (
    'the "quick" function', "returns\n", "a value — if", "path/to/file.py:", "it is\tnot", "None,", "else", "raises",
    "KeyError;", "see §4", "def run(self) -> int:\n    ", "this module", "holds", "état", "of it.",
)  # fmt: skip
_ASCII_WORDS = tuple(word for word in _WORDS if word.isascii())


def prose(length: int, seed: int) -> str:
    """Return a reproducible text of about `length` characters, with some that JSON escapes and some non-ASCII ones."""
    words: list[str] = []
    size = 0
    state = seed
    choices = _WORDS if seed % 4 == 0 else _ASCII_WORDS  # one text in four is not only ASCII
    while size < length:
        state = (state * 1103515245 + 12345) & 0x7FFFFFFF
        words.append(choices[(state >> 16) % len(choices)])
        size += len(words[-1]) + 1
    return " ".join(words)


# -- requests


def _tool(number: int) -> dict[str, Any]:
    properties = {
        f"field_{each}": {"type": "string", "description": prose(180, number * 31 + each)}
        for each in range(6)
    }
    return {
        "name": f"Tool{number}",
        "description": prose(1700, number),
        "input_schema": {"type": "object", "properties": properties, "required": ["field_0"]},
    }


def _messages(turns: int) -> list[dict[str, Any]]:
    """Build a history of `turns` tool calls and results, 3 KB each, with a cache mark at its end, as Claude Code's."""
    messages: list[dict[str, Any]] = [{"role": "user", "content": [{"type": "text", "text": prose(900, 7)}]}]
    for number in range(1, turns + 1):
        call_id = f"toolu_{number:020d}"
        call = {"type": "tool_use", "id": call_id, "name": "Tool1", "input": {"field_0": prose(300, number)}}
        result = {"type": "tool_result", "tool_use_id": call_id, "content": prose(2500, number + 1)}
        messages.append(
            {"role": "assistant", "content": [{"type": "text", "text": prose(150, number)}, call]}
        )
        messages.append({"role": "user", "content": [result]})
    messages[-1]["content"][-1]["cache_control"] = {"type": "ephemeral"}
    return messages


#: size -> number of turns in the history of each request
_TURNS = {"large": range(14, 26), "huge": range(620, 621)}


_THINKING_SIZES = ("thinking", "reordered")


def _with_thinking(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Put a thinking block of 400 characters, with a signature of 300, before the content of each reply."""
    for number, message in enumerate(messages):
        if message["role"] == "assistant":
            thinking = {"type": "thinking", "thinking": prose(400, number), "signature": "EqQB" * 75}
            message["content"].insert(0, thinking)
    return messages


@functools.cache
def bodies(model: str, size: str = "large", *, stream: bool = True) -> tuple[bytes, ...]:
    """Build the bodies of Messages requests, in the order of sending: ``small`` is one short prompt, ``large`` twelve
    requests of one session of Claude Code, 119 to 156 KB, each a turn longer than the one before, ``huge`` is 2 MB.
    ``thinking`` is as ``large``, with a signed thinking block in each reply, as Claude Code returns them; ``reordered``
    is that with its members in the order of Anthropic's Python SDK.
    """
    body: dict[str, Any] = {
        "model": model,
        "messages": [{"role": "user", "content": "What is in this folder?"}],
    }
    options = {"max_tokens": 32_000, "stream": stream}
    if size == "small":
        return (_dump({**body, **options}),)
    body["system"] = [
        {"type": "text", "text": "You are Claude Code.", "cache_control": {"type": "ephemeral"}},
        {"type": "text", "text": prose(14_000, 3), "cache_control": {"type": "ephemeral"}},
    ]
    body["tools"] = [_tool(number) for number in range(1, 18)]
    body["metadata"] = {"user_id": "user_bench_account__session_5f0c1c0e-7c33-4c6c-9b5e-1d0b5a3a0c11"}
    if size in _THINKING_SIZES:
        whole = [
            {**body, "messages": _with_thinking(_messages(turns)), **options} for turns in _TURNS["large"]
        ]
        if size == "reordered":
            order = ("max_tokens", "messages", "model", "metadata", "stream", "system", "tools")
            whole = [{name: each[name] for name in order} for each in whole]
        return tuple(map(_dump, whole))
    return tuple(_dump({**body, **options, "messages": _messages(turns)}) for turns in _TURNS[size])


# -- responses


@dataclass
class Content:
    """Content of a response: the joined texts of each kind, and whether the message ended."""

    text: str = ""
    thinking: str = ""
    arguments: str = ""
    is_complete: bool = False

    @classmethod
    def of_stream(cls, body: bytes) -> Content:
        """Read an Anthropic event stream."""
        parts: dict[str, list[str]] = {"text": [], "thinking": [], "partial_json": []}
        last = ""
        for line in body.split(b"\n"):
            if not line.startswith(b"data:"):
                continue
            data = json.loads(line[5:])
            last = data["type"]
            if last == "content_block_delta":
                for name, texts in parts.items():
                    if name in data["delta"]:
                        texts.append(data["delta"][name])
        text, thinking, arguments = map("".join, parts.values())
        return cls(text, thinking, arguments, last == "message_stop")

    @classmethod
    def of_message(cls, body: bytes) -> Content:
        """Read a message that was not streamed."""
        content = cls(is_complete=True)
        for block in json.loads(body)["content"]:
            if block["type"] == "text":
                content.text += block["text"]
            elif block["type"] == "thinking":
                content.thinking += block["thinking"]
            elif block["type"] == "tool_use":
                content.arguments += json.dumps(block["input"])
        return content


@dataclass
class Response:
    """Deltas in order, one per chunk: (kind, text), of kind ``text``, ``thinking`` or ``arguments``."""

    deltas: list[tuple[str, str]] = field(repr=False)

    @property
    def chunk_count(self) -> int:
        return len(self.deltas)

    def expected(self) -> Content:
        content = Content(is_complete=True)
        for kind in ("text", "thinking", "arguments"):
            setattr(content, kind, "".join(text for each, text in self.deltas if each == kind))
        return content

    def frames(self, dialect: str) -> Iterable[bytes]:
        """Build the frames of the stream; `dialect` is ``openai`` or ``anthropic``."""
        return _openai_frames(self.deltas) if dialect == "openai" else _anthropic_frames(self.deltas)

    def body(self, dialect: str) -> bytes:
        """Build the body of a response that is not streamed, from its text only."""
        text = self.expected().text
        if dialect == "anthropic":
            block = {"type": "text", "text": text}
            usage = {"input_tokens": 30_000, "output_tokens": 300}
            return _dump({**_MESSAGE, "content": [block], "stop_reason": "end_turn", "usage": usage})
        choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        return _dump({**_CHUNK, "object": "chat.completion", "choices": [choice], "usage": _OPENAI_USAGE})


_MESSAGE: dict[str, Any] = {
    "id": "msg_bench",
    "type": "message",
    "role": "assistant",
    "model": "bench",
    "content": [],
    "stop_reason": None,
    "stop_sequence": None,
    "usage": {"input_tokens": 30_000, "output_tokens": 1},
}
_CHUNK = {"id": "chatcmpl-bench", "object": "chat.completion.chunk", "created": 1760000000, "model": "bench"}
_OPENAI_USAGE = {"prompt_tokens": 30_000, "completion_tokens": 300, "total_tokens": 30_300}


def _dump(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def openai_frame(delta: dict[str, Any], finish: str | None = None, **more: Any) -> bytes:
    """Build a frame with one ``chat.completion.chunk``."""
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
    return b"data: " + _dump({**_CHUNK, "choices": [choice], **more}) + b"\n\n"


def anthropic_frame(data: dict[str, Any]) -> bytes:
    """Build a frame with one event of a message stream."""
    return b"event: %b\ndata: %b\n\n" % (data["type"].encode(), _dump(data))


def openai_end(finish: str = "stop") -> list[bytes]:
    """Build the frames after the last delta."""
    usage = b"data: " + _dump({**_CHUNK, "choices": [], "usage": _OPENAI_USAGE}) + b"\n\n"
    return [openai_frame({}, finish), usage, b"data: [DONE]\n\n"]


def anthropic_begin() -> bytes:
    return anthropic_frame({"type": "message_start", "message": _MESSAGE})


def anthropic_end(reason: str = "end_turn") -> list[bytes]:
    """Build the frames after the stop of the last block."""
    delta = {"stop_reason": reason, "stop_sequence": None}
    data = {"type": "message_delta", "delta": delta, "usage": {"output_tokens": 300}}
    return [anthropic_frame(data), anthropic_frame({"type": "message_stop"})]


_OPENAI_DELTAS = {"text": "content", "thinking": "reasoning_content"}
_BLOCKS: dict[str, dict[str, Any]] = {
    "text": {"type": "text", "text": ""},
    "thinking": {"type": "thinking", "thinking": "", "signature": ""},
    "arguments": {"type": "tool_use", "id": "toolu_bench", "name": "Tool1", "input": {}},
}
_ANTHROPIC_DELTAS = {
    "text": ("text_delta", "text"),
    "thinking": ("thinking_delta", "thinking"),
    "arguments": ("input_json_delta", "partial_json"),
}


def _openai_frames(deltas: list[tuple[str, str]]) -> Iterable[bytes]:
    has_call = False
    yield openai_frame({"role": "assistant", "content": ""})
    for kind, text in deltas:
        if kind in _OPENAI_DELTAS:
            yield openai_frame({_OPENAI_DELTAS[kind]: text})
            continue
        call: dict[str, Any] = {"index": 0, "function": {"arguments": text}}
        if not has_call:
            has_call = True
            call |= {"id": "call_bench", "type": "function"}
            call["function"]["name"] = "Tool1"
        yield openai_frame({"tool_calls": [call]})
    yield from openai_end("tool_calls" if has_call else "stop")


def _anthropic_frames(deltas: list[tuple[str, str]]) -> Iterable[bytes]:
    yield anthropic_begin()
    index, current = -1, ""
    for kind, text in deltas:
        if kind != current:
            if current:
                yield anthropic_frame({"type": "content_block_stop", "index": index})
            index, current = index + 1, kind
            yield anthropic_frame(
                {"type": "content_block_start", "index": index, "content_block": _BLOCKS[kind]}
            )
        name, key = _ANTHROPIC_DELTAS[kind]
        yield anthropic_frame(
            {"type": "content_block_delta", "index": index, "delta": {"type": name, key: text}}
        )
    yield anthropic_frame({"type": "content_block_stop", "index": index})
    yield from anthropic_end("tool_use" if current == "arguments" else "end_turn")


def _texts(count: int, kind: str = "text") -> list[tuple[str, str]]:
    return [(kind, f"{number:06d} words, ") for number in range(count)]


def _arguments(length: int, step: int) -> list[tuple[str, str]]:
    content = prose(length, 5)
    text = json.dumps({"field_0": content}, ensure_ascii=False)
    return [("arguments", text[at : at + step]) for at in range(0, len(text), step)]


RESPONSES: dict[str, Response] = {
    "short": Response(_texts(3)),
    "burst": Response(_texts(300)),
    "reasoning": Response(_texts(150, "thinking") + _texts(150)),
    "tool": Response(_arguments(18_500, 4)),
    "chunks-1k": Response(_texts(1_000)),
    "chunks-100k": Response(_texts(100_000)),
    "fragments-40k": Response(_arguments(37_000, 1)),
    "fragments-400k": Response(_arguments(370_000, 1)),
}
