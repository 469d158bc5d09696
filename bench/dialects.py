"""The protocols that the scripted upstream speaks: how each writes the same response.

A stream is written as its vendor writes it: with everything around the text that a client does not read.
"""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable
from itertools import groupby
from typing import Any, ClassVar

__all__ = ["DIALECTS", "Deltas", "Dialect", "dump"]

#: (kind, text), of kind ``text``, ``thinking`` or ``arguments``; one for each chunk.
Deltas = list[tuple[str, str]]

#: The tool, and the id of its call.
_TOOL, _CALL = "Tool1", "call_bench"
#: In a paced chunk: the number of the chunk, which some protocols write beside the text.
NUMBER = 123_456_789


def dump(value: Any) -> bytes:
    """Write JSON as vendors do."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


class Dialect(ABC):
    """One protocol.

    Attributes:
        target: found in the request's target.
        streams: found in a request for a stream.
    """

    target: re.Pattern[bytes]
    streams = re.compile(rb'"stream": ?true')

    @abstractmethod
    def begin(self, kind: str) -> bytes:
        """Return the frames before the first delta of a block of `kind`; for the first block those before it, too."""

    @abstractmethod
    def delta(self, kind: str, text: str, number: int) -> bytes:
        """Return the frame of one delta, the `number`-th of the stream."""

    @abstractmethod
    def end(self, kind: str, text: str) -> bytes:
        """Return the frames after the last delta of a block of `kind` with this whole text."""

    @abstractmethod
    def finish(self, deltas: Deltas) -> bytes:
        """Return the frames after the last block."""

    @abstractmethod
    def body(self, text: str) -> bytes:
        """Return a response that is not streamed."""

    def frames(self, deltas: Deltas) -> Iterable[bytes]:
        """Yield the frames of a stream."""
        number = 0
        self.start()
        for kind, group in groupby(deltas, key=lambda delta: delta[0]):
            yield self.begin(kind)
            texts = [text for _, text in group]
            for text in texts:
                number += 1
                yield self.delta(kind, text, number)
            yield self.end(kind, "".join(texts))
        yield self.finish(deltas)

    def start(self) -> None:
        """Begin a new stream."""
        self.index = -1


class _Chat(Dialect):
    target = re.compile(rb"/chat/completions")
    _CHUNK: ClassVar[dict[str, Any]] = {
        "id": "chatcmpl-bench",
        "object": "chat.completion.chunk",
        "created": 1760000000,
        "model": "bench",
    }
    _USAGE: ClassVar[dict[str, Any]] = {
        "prompt_tokens": 30_000,
        "completion_tokens": 300,
        "total_tokens": 30_300,
    }

    def _frame(self, delta: dict[str, Any], finish: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return b"data: " + dump({**self._CHUNK, "choices": [choice]}) + b"\n\n"

    def begin(self, kind: str) -> bytes:
        self.index += 1
        frame = b"" if self.index else self._frame({"role": "assistant", "content": ""})
        if kind == "arguments":
            function = {"name": _TOOL, "arguments": ""}
            call = {"index": 0, "id": _CALL, "type": "function", "function": function}
            frame += self._frame({"tool_calls": [call]})
        return frame

    def delta(self, kind: str, text: str, number: int) -> bytes:
        if kind == "arguments":
            return self._frame({"tool_calls": [{"index": 0, "function": {"arguments": text}}]})
        return self._frame({"content" if kind == "text" else "reasoning_content": text})

    def end(self, kind: str, text: str) -> bytes:
        return b""

    def finish(self, deltas: Deltas) -> bytes:
        usage = b"data: " + dump({**self._CHUNK, "choices": [], "usage": self._USAGE}) + b"\n\n"
        reason = "tool_calls" if deltas[-1][0] == "arguments" else "stop"
        return self._frame({}, reason) + usage + b"data: [DONE]\n\n"

    def body(self, text: str) -> bytes:
        choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        return dump({**self._CHUNK, "object": "chat.completion", "choices": [choice], "usage": self._USAGE})


class _Anthropic(Dialect):
    target = re.compile(rb"/v1/messages")
    _MESSAGE: ClassVar[dict[str, Any]] = {
        "id": "msg_bench",
        "type": "message",
        "role": "assistant",
        "model": "bench",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {"input_tokens": 30_000, "output_tokens": 1},
    }
    _BLOCKS: ClassVar[dict[str, Any]] = {
        "text": {"type": "text", "text": ""},
        "thinking": {"type": "thinking", "thinking": "", "signature": ""},
        "arguments": {"type": "tool_use", "id": "toolu_bench", "name": _TOOL, "input": {}},
    }
    _DELTAS: ClassVar[dict[str, Any]] = {
        "text": ("text_delta", "text"),
        "thinking": ("thinking_delta", "thinking"),
        "arguments": ("input_json_delta", "partial_json"),
    }

    @staticmethod
    def _frame(event: dict[str, Any]) -> bytes:
        return b"event: %b\ndata: %b\n\n" % (event["type"].encode(), dump(event))

    def begin(self, kind: str) -> bytes:
        self.index += 1
        start = b"" if self.index else self._frame({"type": "message_start", "message": self._MESSAGE})
        block = self._BLOCKS[kind]
        return start + self._frame(
            {"type": "content_block_start", "index": self.index, "content_block": block}
        )

    def delta(self, kind: str, text: str, number: int) -> bytes:
        name, key = self._DELTAS[kind]
        return self._frame(
            {"type": "content_block_delta", "index": self.index, "delta": {"type": name, key: text}}
        )

    def end(self, kind: str, text: str) -> bytes:
        return self._frame({"type": "content_block_stop", "index": self.index})

    def finish(self, deltas: Deltas) -> bytes:
        reason = "tool_use" if deltas[-1][0] == "arguments" else "end_turn"
        delta = {"stop_reason": reason, "stop_sequence": None}
        end = self._frame({"type": "message_delta", "delta": delta, "usage": {"output_tokens": 300}})
        return end + self._frame({"type": "message_stop"})

    def body(self, text: str) -> bytes:
        usage = {"input_tokens": 30_000, "output_tokens": 300}
        block = {"type": "text", "text": text}
        return dump({**self._MESSAGE, "content": [block], "stop_reason": "end_turn", "usage": usage})


class _Responses(Dialect):
    """As OpenAI writes it: each delta has the id of its item, and a number."""

    target = re.compile(rb"/v1/responses")
    _RESPONSE: ClassVar[dict[str, Any]] = {
        "id": "resp_bench",
        "object": "response",
        "created_at": 1760000000,
        "model": "bench",
    }
    _USAGE: ClassVar[dict[str, Any]] = {
        "input_tokens": 30_000,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": 300,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 30_300,
    }
    _DELTAS: ClassVar[dict[str, Any]] = {
        "text": ("response.output_text", {"content_index": 0, "logprobs": []}),
        "thinking": ("response.reasoning_summary_text", {"summary_index": 0}),
        "arguments": ("response.function_call_arguments", {}),
    }

    @staticmethod
    def _frame(kind: str, number: int = 0, **event: Any) -> bytes:
        data = dump({"type": kind, "sequence_number": number, **event})
        return b"event: %b\ndata: %b\n\n" % (kind.encode(), data)

    @property
    def _id(self) -> str:
        return f"item_{self.index:052d}"

    def _item(self, kind: str, text: str, status: str) -> dict[str, Any]:
        item: dict[str, Any] = {"id": self._id, "status": status}
        if kind == "arguments":
            return {**item, "type": "function_call", "call_id": _CALL, "name": _TOOL, "arguments": text}
        if kind == "thinking":
            summary = [{"type": "summary_text", "text": text}] if text else []
            return {**item, "type": "reasoning", "summary": summary, "encrypted_content": "gAAAA" * 100}
        part = {"type": "output_text", "text": text, "annotations": []}
        return {**item, "type": "message", "role": "assistant", "content": [part] if text else []}

    def begin(self, kind: str) -> bytes:
        self.index += 1
        started = {**self._RESPONSE, "status": "in_progress", "output": []}
        frames = b"" if self.index else self._frame("response.created", response=started)
        item = self._item(kind, "", "in_progress")
        return frames + self._frame("response.output_item.added", output_index=self.index, item=item)

    def delta(self, kind: str, text: str, number: int) -> bytes:
        name, more = self._DELTAS[kind]
        return self._frame(
            f"{name}.delta", number, item_id=self._id, output_index=self.index, delta=text, **more
        )

    def end(self, kind: str, text: str) -> bytes:
        item = self._item(kind, text, "completed")
        return self._frame("response.output_item.done", output_index=self.index, item=item)

    def finish(self, deltas: Deltas) -> bytes:
        completed = {**self._RESPONSE, "status": "completed", "output": [], "usage": self._USAGE}
        return self._frame("response.completed", response=completed)

    def body(self, text: str) -> bytes:
        self.start()
        output = [self._item("text", text, "completed")]
        return dump({**self._RESPONSE, "status": "completed", "output": output, "usage": self._USAGE})


class _Gemini(Dialect):
    """As AI Studio writes it: the usage so far in each chunk. A call comes whole."""

    target = re.compile(rb"/models/")
    streams = re.compile(rb":streamGenerateContent")

    @staticmethod
    def _chunk(parts: list[dict[str, Any]], number: int, finish: str | None = None) -> bytes:
        candidate: dict[str, Any] = {"content": {"parts": parts, "role": "model"}}
        if finish:
            candidate["finishReason"] = finish
        usage = {
            "promptTokenCount": 30_000,
            "candidatesTokenCount": number,
            "totalTokenCount": 30_000 + number,
            "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 30_000}],
        }
        return dump(
            {
                "candidates": [{**candidate, "index": 0}],
                "usageMetadata": usage,
                "modelVersion": "bench",
                "responseId": "bench-response",
            }
        )

    def _frame(self, *args: Any) -> bytes:
        return b"data: " + self._chunk(*args) + b"\r\n\r\n"

    def begin(self, kind: str) -> bytes:
        return b""

    def delta(self, kind: str, text: str, number: int) -> bytes:
        if kind == "arguments":
            return b""
        return self._frame(
            [{"text": text, "thought": True} if kind == "thinking" else {"text": text}], number
        )

    def end(self, kind: str, text: str) -> bytes:
        if kind != "arguments":
            return b""
        return self._frame([{"functionCall": {"name": _TOOL, "args": json.loads(text)}}], 300)

    def finish(self, deltas: Deltas) -> bytes:
        return self._frame([{"text": ""}], 300, "STOP")

    def body(self, text: str) -> bytes:
        return self._chunk([{"text": text}], 300, "STOP")


#: Every protocol by its name; the first whose target is found in a request's counts.
DIALECTS: dict[str, Dialect] = {
    "openai": _Chat(),
    "responses": _Responses(),
    "gemini": _Gemini(),
    "anthropic": _Anthropic(),
}
