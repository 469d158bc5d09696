"""Read usage, stop reason and the end of the message from an Anthropic stream that passes through unchanged.

One search over the bytes finds the few frames that carry these; no other frame is parsed.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from proxyd import jsonio
from proxyd.codecs.anthropic.usage import Usage, usage_from_anthropic
from proxyd.codecs.model_name import model_name
from proxyd.codecs.wire.sse import SSEDecoder
from proxyd.errors import FrameTooLarge

__all__ = ["UsageTap"]

_WORD = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
#: Types of the frames that are read, or prefixes of them. In JSON strings the quotes would be escaped, so these are
#: types, or other strings that look like one. Two searches cost a fifth of one pattern with both.
_MESSAGE, _ERROR = b'"message_', b'"error"'
#: The last frame as Anthropic writes it; other forms of it are parsed.
_STOP = b'event: message_stop\ndata: {"type":"message_stop"}'
#: Frames that do not end a stream are parsed later, up to so many of them: Anthropic sends two, some servers one per
#: delta.
_DEFERRED, _MAX_DEFERRED = (b"event: message_start\n", b"event: message_delta\n"), 8
_CACHED = re.compile(rb'"cache_(?:read|creation)_input_tokens":\s*[1-9]')
#: Bytes in a delta's frame besides its text: names, types, index (counted on Anthropic's own stream).
_DELTA, _DELTA_OVERHEAD_BYTES, _BEFORE_TYPE_BYTES, _CHARS_PER_TOKEN = b'"content_block_delta"', 130, 40, 4


class UsageTap:
    """Observes the whole frames of one stream, or the body of a response that is not streamed.

    The end of the message is noticed at once. Frames with usage are kept and parsed when usage or stop reason is
    first needed, which is usually after the end of the call.

    Attributes:
        has_ended: the last event was seen.
    """

    __slots__ = (
        "_deferred",
        "_delta_bytes",
        "_deltas",
        "_error_type",
        "_model",
        "_stop_reason",
        "_usage",
        "has_ended",
    )

    def __init__(self) -> None:
        self.has_ended = False
        self._deferred: list[bytes] = []
        self._deltas = self._delta_bytes = 0
        self._usage = Usage()
        self._stop_reason: str | None = None
        self._error_type: str | None = None
        self._model: str | None = None

    @property
    def usage(self) -> Usage:
        """Usage as reported so far."""
        self._read_deferred()
        return self._usage

    @property
    def usage_so_far(self) -> Usage:
        """Usage as reported; the output of a stream without an end is estimated from the bytes of its deltas."""
        usage = self.usage
        if self.has_ended or not self._deltas:
            return usage
        estimate = (self._delta_bytes - self._deltas * _DELTA_OVERHEAD_BYTES) // _CHARS_PER_TOKEN
        return replace(
            usage, output_tokens=max(usage.output_tokens, self._deltas, estimate), is_estimated=True
        )

    @property
    def stop_reason(self) -> str | None:
        self._read_deferred()
        return self._stop_reason

    @property
    def model(self) -> str | None:
        """The model's name, as the upstream says it."""
        self._read_deferred()
        return self._model

    @property
    def error_type(self) -> str | None:
        """Type of the stream's error event, if there was one."""
        self._read_deferred()
        return self._error_type

    @property
    def reports_cache(self) -> bool:
        """Whether the upstream has reported tokens read from or written to its prompt cache."""
        if any(map(_CACHED.search, self._deferred)):
            return True
        return bool(self._usage.cache_read_tokens or self._usage.cache_write_tokens)

    def count_deltas(self, frames: bytes) -> None:
        """Count the deltas of whole frames, for the estimate of `usage_so_far`."""
        deltas = frames.count(_DELTA)
        if deltas:
            self._deltas += deltas
            self._delta_bytes += len(frames) - max(0, frames.find(_DELTA) - _BEFORE_TYPE_BYTES)

    def watch(self, frames: bytes) -> None:
        """Read whole frames; those that are not understood are ignored."""
        if _MESSAGE not in frames and _ERROR not in frames:
            return  # nearly all
        if b"\r" in frames:
            frames = frames.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        spans: set[tuple[int, int]] = set()
        for name in (_MESSAGE, _ERROR):
            end = 0
            while (at := frames.find(name, end)) >= 0:
                start = frames.rfind(b"\n\n", 0, at) + 1  # a leading line end is harmless
                end = frames.find(b"\n\n", at)
                end = end if end >= 0 else len(frames)
                spans.add((start, end))
        for start, end in sorted(spans):
            block = frames[start:end].lstrip(b"\n")
            if block == _STOP:
                self.has_ended = True
            elif block.startswith(_DEFERRED) and len(self._deferred) < _MAX_DEFERRED:
                self._deferred.append(block)
            else:
                self._read_deferred()
                self._read_block(block)

    def watch_body(self, body: bytes) -> None:
        """Read the body of a response that is not streamed."""
        try:
            message = jsonio.loads(body)
        except jsonio.JSONError:
            return
        if isinstance(message, dict):
            self._read(message)

    def _read_deferred(self) -> None:
        if self._deferred:
            deferred, self._deferred = self._deferred, []
            for block in deferred:
                self._read_block(block)

    def _read_block(self, block: bytes) -> None:
        try:
            frame = SSEDecoder.parse(block)
            data = None if frame is None else jsonio.loads(frame.data)
        except (FrameTooLarge, jsonio.JSONError):
            return
        if isinstance(data, dict):
            self._read(data)

    def _read(self, data: dict[str, Any]) -> None:
        """Read the data of one event, or a whole message."""
        kind = data.get("type")
        message = data.get("message") if kind == "message_start" else data
        if not isinstance(message, dict):
            return
        if kind in ("message_start", "message_delta", "message"):
            self._usage = usage_from_anthropic(message.get("usage"), self._usage) or self._usage
            delta = data.get("delta") if kind == "message_delta" else message
            reason = delta.get("stop_reason") if isinstance(delta, dict) else None
            self._stop_reason = _word(reason) or self._stop_reason
            self._model = self._model or model_name(message.get("model"))
        elif kind == "message_stop":
            self.has_ended = True
        elif kind == "error":
            error = data.get("error")
            self._error_type = _word(error.get("type") if isinstance(error, dict) else None) or "unknown"
            self.has_ended = True


def _word(value: Any) -> str | None:
    """Return `value` if it has the form of an API constant and is not free text (docs/spec/operations.md#e7)."""
    return value if isinstance(value, str) and _WORD.fullmatch(value) else None
