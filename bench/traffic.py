"""Requests like Claude Code's, and the content of scripted responses (`bench.dialects` writes them).

A response is selected by the model's name, ``bench-NAME``, so that a contender needs nothing but its own configuration.
`Content` is what a client must have received in the end.
"""

from __future__ import annotations

import functools
import json
import re
from dataclasses import dataclass, field
from typing import Any

from bench.dialects import Deltas, dump

__all__ = ["PACED", "RESPONSES", "STAMP", "Content", "Response", "bodies"]

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
        return (dump({**body, **options}),)
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
        return tuple(map(dump, whole))
    return tuple(dump({**body, **options, "messages": _messages(turns)}) for turns in _TURNS[size])


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

    deltas: Deltas = field(repr=False)

    @property
    def chunk_count(self) -> int:
        return len(self.deltas)

    def expected(self) -> Content:
        content = Content(is_complete=True)
        for kind in ("text", "thinking", "arguments"):
            setattr(content, kind, "".join(text for each, text in self.deltas if each == kind))
        return content


def _texts(count: int, kind: str = "text") -> Deltas:
    return [(kind, f"{number:06d} words, ") for number in range(count)]


def _arguments(length: int, step: int) -> Deltas:
    content = prose(length, 5)
    text = dump({"field_0": content}).decode()
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
