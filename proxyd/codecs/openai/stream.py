"""Translate Chat Completions chunks to Anthropic stream events: the central state machine.

::

                 first usable delta                       finish_reason, then [DONE], EOF or a grace time
    not started ───────────────────▶ started ───────────────────────────────────────────────────────▶ ended
                  message_start        │  ▲                    message_delta, message_stop
                                       ▼  │
                    open block: none ─▶ thinking ─▶ text ─▶ tool slot     one at a time, any order, 0, 1, 2, …

This module reads the chunks; `BlockWriter` keeps the open block and writes the events.

A stream that ends without a finish reason is an error, never a made-up ``end_turn``
(docs/spec/chat-to-messages.md#end). Reasoning text is taken from the first of several fields that has any, since
servers repeat it (docs/spec/chat-to-messages.md#chunks). Sources: docs/spec/chat-completions.md#chunks,
docs/spec/chat-to-messages.md.
"""

from __future__ import annotations

from typing import Any

from proxyd import jsonio
from proxyd.codecs.anthropic.events import (
    JsonDelta,
    StreamEvent,
    TextDelta,
    ThinkingDelta,
)
from proxyd.codecs.codec import NewId, ResponseContext, Warn
from proxyd.codecs.openai.block_writer import BlockWriter
from proxyd.codecs.openai.call_bodies import TextCall
from proxyd.codecs.openai.completion import completion_to_chunk
from proxyd.codecs.openai.delta_shapes import call_fragments, parts_of, text_of, unwrapped
from proxyd.codecs.openai.delta_template import DeltaTemplate
from proxyd.codecs.openai.finish_reason import FinishReason
from proxyd.codecs.openai.reasoning_fields import reasoning_of
from proxyd.codecs.openai.text_tool_calls import TextToolCalls
from proxyd.codecs.openai.think_tags import ThinkTags
from proxyd.codecs.stream_codec import StreamCodec
from proxyd.codecs.translation.dialect import Dialect
from proxyd.codecs.upstream_errors.errors import error_in, refusal_from_chunk
from proxyd.codecs.upstream_errors.unreadable import (
    is_heartbeat,
    unreadable_error,
)
from proxyd.codecs.wire.sse import SSEFrame
from proxyd.errors import BadReply, Truncated

__all__ = ["OpenAIStream"]


class OpenAIStream(StreamCodec):
    """The codec of one Chat Completions stream; see the module's text."""

    __slots__ = (
        "_choice",
        "_dialect",
        "_ends_with_usage",
        "_finish",
        "_has_deltas",
        "_has_foreign_choices",
        "_is_done",
        "_is_template_of_content",
        "_seen_choices",
        "_tags",
        "_template",
        "_template_index",
        "_text_call_count",
        "_text_calls",
    )

    def __init__(self, context: ResponseContext, dialect: Dialect, new_id: NewId, warn: Warn) -> None:
        super().__init__(context, warn)
        self._dialect = dialect
        self._tags = (
            ThinkTags(
                dialect.think_tags or ("think",),
                is_implied=dialect.think_tag_is_implied,
                repeats=dialect.think_tags_repeat,
            )
            if dialect.think_tags or dialect.think_tag_is_implied
            else None
        )
        self._text_calls = None if context.tools is None else TextToolCalls(context.tools)
        self._text_call_count = 0
        self._template = DeltaTemplate()
        self._template_index = -1  # of the block whose delta it is
        self._is_template_of_content = False  # tags are searched in it
        self._finish = FinishReason()
        self._is_done = False  # by [DONE], or because a whole completion arrived
        self._seen_choices = False
        self._choice: int | None = None  # index of the choice that is translated
        self._has_foreign_choices = False
        self._has_deltas = False
        self._ends_with_usage = False  # the last chunk was one without choices, with usage
        self._writer: BlockWriter = BlockWriter(
            context, new_id, warn, initial_usage=self._usage, holds_calls=dialect.thought_signatures
        )

    # -- the codec's interface

    @property
    def has_finish_reason(self) -> bool:
        return self._finish.is_known

    @property
    def has_finish(self) -> bool:
        return self._finish.is_known or self._is_done

    def feed(self, frame: SSEFrame) -> list[StreamEvent]:
        """Translate one frame of the upstream's stream.

        Raises:
            ProxyError: the frame is an error of the upstream, or no chunk at all. The stream is over then.
        """
        data = frame.data
        if self._is_done:
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
            return self._on_lines(data, exc)
        if frame.event == b"error" and isinstance(chunk, dict) and not (chunk.keys() & {"error", "choices"}):
            chunk = {"error": chunk}  # marked as an error by its event name alone
        if not isinstance(chunk, dict) and not self.has_finish:
            raise unreadable_error(data, self._context.errors)
        self.on_chunk(chunk)
        self._note_unknown(frame.event, chunk, data)
        events = self._writer.take_events()
        if len(events) == 1:
            self._learn(frame, chunk, events[0])
        return events

    def repeat(self, block: bytes) -> bytes:
        writer, template = self._writer, self._template
        kind, slot = writer.block, writer.slot
        if not kind or kind != template.kind or writer.index != self._template_index:
            return b""
        if (
            self._is_done
            or self._ends_with_usage
            or writer.is_waiting
            or (kind == "tool_use" and slot is None)
        ):
            return b""
        text, literal = template.read(block)
        if not text or (self._tags is not None and not self._passes_tags(self._tags, kind, text)):
            return b""
        if slot is not None and not slot.try_add_sent(text):
            return b""
        if kind == "text" and self._text_calls is not None and not self._text_calls.try_pass(text):
            return b""
        return self._delta(text, literal)

    def _passes_tags(self, tags: ThinkTags, kind: str, text: str) -> bool:
        if self._is_template_of_content:
            return tags.passes(text, is_thinking=kind == "thinking")
        return not tags.is_holding

    def _learn(self, frame: SSEFrame, chunk: dict[str, Any], event: StreamEvent) -> None:
        match event:
            case TextDelta(index, text):
                kind = "text"
            case ThinkingDelta(index, text):
                kind = "thinking"
            case JsonDelta(index, text):
                kind = "tool_use"
            case _:
                return
        self._template.learn(frame, chunk, kind, text)
        if self._template.kind:
            self._template_index = index
            self._is_template_of_content = bool(chunk["choices"][0]["delta"].get("content"))

    def _on_lines(self, data: bytes, exc: jsonio.JSONError) -> list[StreamEvent]:
        """Translate chunks separated by one newline where a blank line is due (docs/spec/streams.md#single-newline)."""
        lines = [line for line in data.split(b"\n") if line.strip()]
        is_done = any(line.startswith(b"[DONE]") for line in lines)
        try:
            chunks = [(jsonio.loads(line), line) for line in lines if not line.startswith(b"[DONE]")]
        except jsonio.JSONError:
            if self.has_finish or data.lstrip().startswith((b"{", b"[")):  # JSON, perhaps cut
                raise BadReply(f"the upstream sent an event that is not JSON: {exc}") from None
            raise unreadable_error(data, self._context.errors) from None
        for chunk, line in chunks:
            self.on_chunk(chunk)
            self._note_unknown(b"", chunk, line)
        if is_done:
            self._is_done = True
            return self.close()
        return self._writer.take_events()

    def _note_unknown(self, event: bytes, chunk: dict[str, Any], data: bytes) -> None:
        if chunk.keys().isdisjoint(("choices", "usage")) and not is_heartbeat(event, chunk):
            self._unreadable.add(data)

    def close(self) -> list[StreamEvent]:
        if self.has_ended:
            return []
        self._flush_text()  # content all the same, even if the stream was cut
        if not self._finish.is_known:
            self._check_end()
        elif self._finish.is_unknown and not self._writer.has_content:
            raise Truncated(
                "the upstream ended its stream without a response, for a reason that is not known"
            )
        stop_sequences = self._context.stop_sequences
        self._writer.flush(is_cut=self._finish.may_cut_call(stop_sequences))
        self._writer.close_blocks()
        self._usage = self.final_usage()
        delta = self._finish.message_delta(
            has_calls=self._writer.has_calls,
            has_cut_call=self._writer.has_cut_call,
            stop_sequences=stop_sequences,
        )
        self.stop_reason = delta["stop_reason"]
        self._writer.finish(delta, self._usage)
        self.has_ended = True
        return self._writer.take_events()

    def _check_end(self) -> None:
        """Raise an error unless the stream has ended in order although it named no finish reason."""
        if self._unreadable:
            raise self._unreadable.error(self._context.errors)
        if self._is_done or self._ends_with_usage:
            if self._writer.is_within_arguments:
                raise Truncated("the upstream ended the stream within the arguments of a tool call")
            if self._writer.has_content:
                self._warn("stream.no_finish_reason")
                return
        raise Truncated(
            "the upstream closed the stream before finishing"
            if self._seen_choices or self.has_started
            else "the upstream ended its stream without a response"
        )

    # -- chunks

    def on_chunk(self, chunk: Any) -> None:
        """Translate one parsed chunk, or a whole completion: a ``message`` is read as the delta."""
        if not isinstance(chunk, dict):
            raise BadReply("the upstream sent an event that is not a JSON object")
        if "choices" not in chunk:
            chunk = unwrapped(chunk)
        if chunk.get("error"):
            raise refusal_from_chunk(error_in(chunk), self._context.errors)
        usage = chunk.get("usage")
        if usage is None:
            usage = _other_usage(chunk)
        if usage is not None:  # before the content: the first chunk may report what message_start needs
            self._on_usage(usage, chunk.get("model"))
        choices = chunk.get("choices")
        if isinstance(choices, list) and choices:
            self._ends_with_usage = False
            for choice in self._own_choices(choices):
                self._on_choice(choice, chunk)
        elif (error := error_in(chunk)) is not None:
            raise refusal_from_chunk(error, self._context.errors)
        elif usage is not None:
            self._ends_with_usage = self._reported_usage is not None
        if not choices and chunk.get("finish_reason"):
            self._on_finish(chunk["finish_reason"], {}, chunk)

    def on_body(self, value: Any) -> bool:
        """Translate a whole completion as one chunk. Nothing follows it, with or without a finish reason."""
        value = unwrapped(value) if isinstance(value, dict) else value
        if not isinstance(value, dict) or not isinstance(value.get("choices"), list):
            return False
        self.on_chunk(completion_to_chunk(value))
        self._is_done = True
        return True

    def _own_choices(self, choices: list[Any]) -> list[dict[str, Any]]:
        """Return the choices of this message. ``n`` is never sent, so other choices are a server's mistake.

        See docs/spec/chat-to-messages.md#chunks.
        """
        if len(choices) == 1 and isinstance(choices[0], dict):  # nearly every chunk
            if self._choice is None and not self._dialect.merge_choices:
                self._choice = _choice_index(choices[0])
                return choices
            if choices[0].get("index") == self._choice:
                return choices
        found = sorted((choice for choice in choices if isinstance(choice, dict)), key=_choice_index)
        if self._dialect.merge_choices or not found:
            return found
        if self._choice is None:
            self._choice = _choice_index(found[0])
        own = [choice for choice in found if _choice_index(choice) <= self._choice][:1]
        if len(own) < len(found) and not self._has_foreign_choices:
            self._has_foreign_choices = True
            self._warn("stream.other_choices")
        return own

    def _on_choice(self, choice: dict[str, Any], chunk: dict[str, Any]) -> None:
        self._seen_choices = True
        if isinstance(choice.get("usage"), dict):  # Kimi
            self._on_usage(choice["usage"])
        delta = choice.get("delta")
        if isinstance(delta, dict):
            self._has_deltas = True
        elif isinstance(message := choice.get("message"), dict):
            # MiniMax repeats the whole message in its last chunk; others send the calls there alone.
            delta = _late_part(message, self._writer) if self._has_deltas else message
        if isinstance(delta, dict):
            self._on_delta(delta)
        elif isinstance(choice.get("text"), str):  # the legacy completions shape, from some local servers
            self._on_content(choice["text"])
        for holder in (choice, delta, choice.get("message")):  # the first is documented by OpenRouter
            if isinstance(holder, dict) and holder.get("error") and not self._finish.is_known:
                raise refusal_from_chunk(error_in(holder), self._context.errors)
        inner = delta if isinstance(delta, dict) else {}
        reason = choice.get("finish_reason") or choice.get("finishReason") or inner.get("finish_reason")
        reason = reason or choice.get("native_finish_reason")
        if reason:
            self._on_finish(reason, choice, chunk)

    def _on_finish(self, reason: Any, choice: dict[str, Any], chunk: dict[str, Any]) -> None:
        self._finish.add(
            str(reason),
            choice,
            chunk,
            stop_sequences=self._context.stop_sequences,
            errors=self._context.errors,
            warn=self._warn,
        )

    def _on_delta(self, delta: dict[str, Any]) -> None:
        content = delta.get("content")
        if type(content) is str and len(delta) == 1 and self._tags is None:
            self._on_text(content)  # nearly every chunk
            return
        field, reasoning = reasoning_of(delta)
        self._writer.signed.add(delta)
        if reasoning:
            self._flush_tags()
            self._writer.write_reasoning(reasoning, field)
        if isinstance(content, str):
            self._on_content(content)
        elif content is not None:
            for part in parts_of(content):
                self._on_part(part)
        refusal = delta.get("refusal")
        if isinstance(refusal, str) and refusal:
            self._finish.has_refusal = True
            self._write_text(refusal)
        for image in _list(delta.get("images")):
            self._write_text(_image_text(image))
        audio = delta.get("audio")
        if isinstance(audio, dict) and isinstance(audio.get("transcript"), str):
            self._on_content(audio["transcript"])
        if calls := delta.get("tool_calls"):
            for fragment in call_fragments(calls):
                self._on_fragment(fragment)
        call = delta.get("function_call")
        if isinstance(call, dict):
            self._on_fragment({"index": 0, "function": call})

    def _on_content(self, text: str) -> None:
        if self._tags is None:
            self._on_text(text)
        else:
            self._on_runs(self._tags.feed(text))

    def _on_runs(self, runs: list[tuple[bool, str]]) -> None:
        for is_thinking, text in runs:
            if is_thinking:
                self._writer.write_reasoning(text, "think")
            else:
                self._on_text(text)

    def _on_text(self, text: str) -> None:
        if self._text_calls is not None:
            self._on_text_runs(self._text_calls.feed(text))
        elif text:
            self._writer.add("text", text)

    def _on_text_runs(self, runs: list[str | TextCall]) -> None:
        for run in runs:
            if isinstance(run, str):
                self._writer.add("text", run)
                continue
            self._text_call_count += 1
            # Below 0, so that no call of the upstream has the same index.
            self._writer.add_fragment(
                {
                    "index": -self._text_call_count,
                    "function": {"name": run.name, "arguments": run.arguments},
                }
            )

    def _write_text(self, text: str) -> None:
        """Write text in which tags and calls are literal."""
        self._flush_text()
        self._writer.add("text", text)

    def _flush_tags(self) -> None:
        """Write the text that was held back as a possible tag, before anything that is no text."""
        if self._tags is not None:
            self._on_runs(self._tags.close())

    def _flush_text(self) -> None:
        """Write the text that was held back as a possible tag or call."""
        self._flush_tags()
        if self._text_calls is not None:
            self._on_text_runs(self._text_calls.close())

    def _on_fragment(self, fragment: Any) -> None:
        if not isinstance(fragment, dict):
            self._warn("stream.tool_call_not_an_object")
            return
        self._flush_text()
        self._writer.add_fragment(fragment)

    def _on_part(self, part: dict[str, Any]) -> None:
        """Translate one element of a content array (Mistral; docs/spec/chat-to-messages.md#content-array)."""
        kind = part.get("type")
        if kind in ("thinking", "reasoning"):
            text = text_of(part.get("thinking")) or text_of(part)
            if text:
                self._flush_tags()
                self._writer.write_reasoning(text, "thinking")
        elif kind in ("image_url", "image"):
            self._write_text(_image_text(part))
        elif text := text_of(part.get("text")):
            self._on_content(text)
        elif kind not in ("reference", "text"):
            self._warn("stream.unknown_content_part")


def _other_usage(chunk: dict[str, Any]) -> Any:
    """Return the usage of a chunk in another member: Groq, Gemini, and llama.cpp without ``stream_options``."""
    groq = chunk.get("x_groq")
    usage = groq.get("usage") if isinstance(groq, dict) else chunk.get("usageMetadata")
    return chunk.get("timings") if usage is None else usage


def _late_part(message: dict[str, Any], writer: BlockWriter) -> dict[str, Any] | None:
    """Return the part of a last, whole message that no delta brought: its tool calls."""
    calls = message.get("tool_calls")
    return {"tool_calls": calls} if calls and not writer.has_any_call else None


def _choice_index(choice: dict[str, Any]) -> int:
    index = choice.get("index")
    return index if isinstance(index, int) else 0


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _image_text(image: Any) -> str:
    """Describe an image in words: Anthropic responses have no image block, and a data URL would fill the context.

    See docs/spec/chat-to-messages.md#images.
    """
    url = image.get("image_url") if isinstance(image, dict) else None
    url = url.get("url") if isinstance(url, dict) else url
    if isinstance(url, str) and url.startswith("data:"):
        head, _, data = url.partition(",")
        return f"[image {head[5:].split(';')[0] or 'data'}, {len(data) * 3 // 4} bytes]"
    return f"[image {url}]" if isinstance(url, str) else "[image]"
