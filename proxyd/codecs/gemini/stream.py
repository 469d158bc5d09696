"""Translate the chunks of a Gemini stream to Anthropic stream events (docs/spec/gemini.md#stream).

::

    chunk ─▶ error, usage
          └▶ candidates[0] ─▶ content.parts ─▶ PartWriter ─▶ MessageWriter, one open block at a time
                           └▶ finishReason: kept until the body ends, since parts and usage may follow it
    end of the body ─▶ message_delta, message_stop

A stream that ends without a finish reason is an error, never a made-up ``end_turn``. A whole response is read as a
stream of one chunk, and a JSON array, which is what the API streams without ``alt=sse``, as its chunks.
"""

from __future__ import annotations

from typing import Any

from proxyd import jsonio
from proxyd.codecs.anthropic.events import StreamEvent, TextDelta, ThinkingDelta
from proxyd.codecs.anthropic.usage import Usage
from proxyd.codecs.codec import NewId, ResponseContext, Warn
from proxyd.codecs.gemini.chunk_template import ChunkTemplate
from proxyd.codecs.gemini.finish import (
    FAILED,
    empty_response,
    failure_of,
    nameless_call,
    refusal_details,
    stop_reason_of,
)
from proxyd.codecs.gemini.part_writer import PartWriter
from proxyd.codecs.gemini.usage import usage_from_gemini
from proxyd.codecs.model_name import model_name
from proxyd.codecs.stream_codec import StreamCodec
from proxyd.codecs.translation.dialect import Dialect
from proxyd.codecs.translation.message_writer import MessageWriter
from proxyd.codecs.upstream_errors.errors import error_in, refusal_from_chunk
from proxyd.codecs.upstream_errors.unreadable import is_heartbeat, unreadable_error
from proxyd.codecs.wire.sse import SSEFrame, plain_frame
from proxyd.errors import BadReply, ProxyError, Truncated

__all__ = ["GeminiStream"]

#: Members of a chunk; one with none of them is unreadable.
_MEMBERS = frozenset(
    {
        "candidates",
        "usageMetadata",
        "promptFeedback",
        "modelVersion",
        "responseId",
        "createTime",
        "modelStatus",
    }
)


class GeminiStream(StreamCodec):
    """The codec of one Gemini stream; see the module's text."""

    __slots__ = (
        "_details",
        "_has_chunks",
        "_has_other_candidates",
        "_is_done",
        "_last_repeated",
        "_parts",
        "_reason",
        "_template",
    )

    def __init__(self, context: ResponseContext, dialect: Dialect, new_id: NewId, warn: Warn) -> None:
        super().__init__(context, warn)
        self._writer = MessageWriter(context, new_id, self._usage)
        self._parts = PartWriter(context, self._writer, warn)
        self._reason: str | None = None  # the stop reason
        self._details: dict[str, Any] | None = None  # of a refusal
        self._is_done = False  # [DONE], which some gateways send
        self._has_chunks = False
        self._has_other_candidates = False
        self._template = ChunkTemplate()
        self._last_repeated = b""  # the last frame, if it was not parsed: its usage counts

    # -- the codec's interface

    @property
    def has_finish_reason(self) -> bool:
        return self.has_ended or self._reason is not None

    @property
    def has_finish(self) -> bool:
        return self.has_finish_reason or self._is_done

    def feed(self, frame: SSEFrame) -> list[StreamEvent]:
        """Translate one frame of the upstream's stream.

        Raises:
            ProxyError: the frame is an error of the upstream, or no chunk at all. The stream is over then.
        """
        data = frame.data
        if self.has_ended or self._is_done:
            return []
        if not data.strip():
            if frame.event == b"error":
                self.on_unreadable(b"event: error")
            return []
        if data.startswith(b"[DONE]"):
            self._is_done = True
            return self.close()
        try:
            chunk = jsonio.loads(data)
        except jsonio.JSONError as exc:
            raise self._not_json(data, exc) from None
        if frame.event == b"error" and isinstance(chunk, dict) and not chunk.keys() & {"error", "candidates"}:
            chunk = {"error": chunk}
        self._on_chunk(chunk, frame.event, data)
        events = self._writer.take_events()
        if len(events) == 1 and isinstance(chunk, dict):
            match events[0]:
                case TextDelta(_, text):
                    self._template.learn(frame, chunk, "text", text)
                case ThinkingDelta(_, text):
                    self._template.learn(frame, chunk, "thinking", text)
        return events

    def repeat(self, block: bytes) -> bytes:
        kind = self._template.kind
        if not kind or self.has_ended or self._is_done or not self._parts.continues(kind):
            return b""
        text, literal = self._template.read(block)
        if not text:
            return b""
        self._last_repeated = block
        return self._delta(text, literal)

    def on_body(self, value: Any) -> bool:
        """Translate a whole response, or an array of chunks."""
        chunks = value if isinstance(value, list) else [value]
        if not chunks or not all(
            isinstance(each, dict) and not each.keys().isdisjoint(_MEMBERS) for each in chunks
        ):
            return False
        for chunk in chunks:
            self._on_chunk(chunk, b"", b"")
            if self.has_ended:
                break
        return True

    def close(self) -> list[StreamEvent]:
        if self.has_ended:
            return self._writer.take_events()
        if self._reason is None:
            if self._unreadable:
                raise self._unreadable.error(self._context.errors)
            if not self._is_done or self._writer.index < 0:
                raise Truncated(
                    "the upstream closed the stream before finishing"
                    if self._has_chunks or self.has_started
                    else "the upstream ended its stream without a response"
                )
            self._warn("stream.no_finish_reason")
        self._finish(self._reason or "end_turn")
        return self._writer.take_events()

    # -- chunks

    def _on_chunk(self, chunk: Any, event: bytes, data: bytes) -> None:
        if isinstance(chunk, list) and chunk and error_in(chunk) is not None:
            chunk = chunk[0]  # an error, in an array
        if not isinstance(chunk, dict):
            raise unreadable_error(data, self._context.errors)
        if chunk.get("error"):
            raise refusal_from_chunk(error_in(chunk), self._context.errors)
        if chunk.keys().isdisjoint(_MEMBERS):
            self._on_unknown(chunk, event, data)
            return
        self._has_chunks = True
        if "usageMetadata" in chunk:  # before the content: message_start reports the prompt
            self._on_usage(chunk["usageMetadata"], chunk.get("modelVersion"))
        candidates = chunk.get("candidates")
        candidate = self._own_candidate(candidates) if isinstance(candidates, list) else None
        if candidate is not None:
            self._on_candidate(candidate)
        elif isinstance(feedback := chunk.get("promptFeedback"), dict):
            self._on_feedback(feedback)

    def _on_unknown(self, chunk: dict[str, Any], event: bytes, data: bytes) -> None:
        if "choices" in chunk:
            raise BadReply(
                "the upstream answered in the form of Chat Completions; write 'format: openai-chat' for this model"
            )
        if (error := error_in(chunk)) is not None:
            raise refusal_from_chunk(error, self._context.errors)
        if chunk and not is_heartbeat(event, chunk):
            self._unreadable.add(data)

    def _own_candidate(self, candidates: list[Any]) -> dict[str, Any] | None:
        """Return the first candidate. No second one is asked for, so others are a server's mistake."""
        own = [each for each in candidates if isinstance(each, dict) and each.get("index") in (None, 0)]
        if len(own) < len(candidates) and not self._has_other_candidates:
            self._has_other_candidates = True
            self._warn("stream.other_choices")
        return own[0] if own else None

    def _on_candidate(self, candidate: dict[str, Any]) -> None:
        reason = stop_reason_of(candidate.get("finishReason"))
        content = candidate.get("content")
        parts = content.get("parts") if isinstance(content, dict) else None
        if reason == FAILED and not self.has_started:
            raise failure_of(candidate.get("finishReason"))  # nothing was given out, so it is retried
        for part in parts if isinstance(parts, list) else ():
            self._parts.add(part)
            if self._parts.matched is not None:
                self._finish("stop_sequence")
                return
        if reason == FAILED:
            raise failure_of(candidate.get("finishReason"))
        if reason is not None and self._reason in (None, "end_turn"):
            self._reason = reason
            if reason == "refusal":
                self._details = refusal_details(
                    "response", candidate.get("finishReason"), candidate.get("finishMessage")
                )

    def _on_feedback(self, feedback: dict[str, Any]) -> None:
        """Take the reason for which the prompt was blocked: there is no candidate then."""
        reason = feedback.get("blockReason")
        if stop_reason_of(reason) is None or self._writer.index >= 0:
            return
        self._reason = "refusal"
        self._details = refusal_details("prompt", reason, feedback.get("blockReasonMessage"))

    def _on_usage(self, usage: Any, model: Any = None) -> None:
        """Take the usage, which is cumulative: the last counts."""
        self._last_repeated = b""
        self.response_model = self.response_model or model_name(model)
        reported = usage_from_gemini(usage)
        if reported is not None:
            self._reported_usage = reported
            if reported.total_input_tokens:
                self._writer.initial_usage = reported

    def final_usage(self) -> Usage:
        if self._last_repeated:
            frame = plain_frame(self._last_repeated)
            assert frame is not None, "a template is one of a plain frame"
            chunk = jsonio.loads(frame.data)
            self._on_usage(chunk.get("usageMetadata"), chunk.get("modelVersion"))
        return super().final_usage()

    # -- the end

    def _finish(self, reason: str) -> None:
        """End the message.

        Raises:
            ProxyError: there is nothing in it, although it should be complete.
        """
        parts = self._parts
        parts.close()
        if parts.matched is not None:
            reason = "stop_sequence"
        elif reason == "end_turn" and self._writer.index < 0:
            if parts.has_nameless_call:
                raise self._failed(nameless_call())
            if self._context.retries_empty and not self.has_started:
                raise self._failed(empty_response())
        elif reason == "end_turn" and parts.has_calls:
            reason = "tool_use"
        delta: dict[str, Any] = {"stop_reason": reason, "stop_sequence": parts.matched}
        if self._details is not None and reason == "refusal":
            delta["stop_details"] = self._details
        self._usage = self.final_usage()
        self.stop_reason = reason
        self._writer.finish(delta, self._usage)
        self.has_ended = True

    def _failed(self, failure: ProxyError) -> ProxyError:
        self._reason = None  # it was no end
        return failure
