"""Chat Completions chunks -> Anthropic stream events: the central state machine.

::

                 first usable delta                       finish_reason, then [DONE], EOF or a grace time
    not started ───────────────────▶ started ───────────────────────────────────────────────────────▶ ended
                  message_start        │  ▲                    message_delta, message_stop
                                       ▼  │
                    open block: none ─▶ thinking ─▶ text ─▶ tool slot     one at a time, any order, 0, 1, 2, …

One block is open at a time. What belongs elsewhere while a tool call's arguments are unfinished waits in `_waiting`, in
order of arrival, and follows when they are whole; nothing is lost and nothing is interleaved
(docs/spec/chat-to-messages.md#tool-calls).

A stream that ends without a finish reason is an error, never a made-up ``end_turn``
(docs/spec/chat-to-messages.md#end). Reasoning text is taken from the first of several fields that has any, since
servers repeat it (docs/spec/chat-to-messages.md#chunks). Sources: docs/spec/chat-completions.md#chunks,
docs/spec/chat-to-messages.md.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from typing import Any

from proxyd import jsonio
from proxyd.codecs.anthropic.events import (
    BlockStart,
    BlockStop,
    DeltaRun,
    JsonDelta,
    MessageDelta,
    MessageStart,
    MessageStop,
    SignatureDelta,
    StreamEvent,
    TextDelta,
    ThinkingDelta,
    delta_of,
    delta_template,
)
from proxyd.codecs.anthropic.thinking_signature import encode_signature
from proxyd.codecs.anthropic.usage import Usage, usage_from_openai
from proxyd.codecs.openai.codec import NewId, Warn
from proxyd.codecs.openai.delta_template import DeltaTemplates
from proxyd.codecs.openai.dialect import Dialect
from proxyd.codecs.openai.errors import ErrorContext, error_in, refusal_from_chunk
from proxyd.codecs.openai.finish_reason import Stop
from proxyd.codecs.openai.reasoning_fields import ReasoningDetails, reasoning_of
from proxyd.codecs.openai.think_tags import ThinkTags
from proxyd.codecs.openai.tool_calls import ToolCalls, ToolSlot
from proxyd.codecs.openai.tool_ids import to_client_id
from proxyd.codecs.wire.sse import SSEFrame
from proxyd.errors import BadReply, Truncated

__all__ = ["OpenAIStream", "ResponseContext"]


@dataclass(slots=True)
class ResponseContext:
    """What the codec must know of the request whose answer it rewrites.

    Args:
        model: the name the client asked for, shown in ``message_start``.
        upstream_model: the upstream's name, kept in signatures.
        route: for error messages.
        tool_names: upstream name -> the client's name, where they differ.
        used_ids: tool ids of the conversation so far; an id that comes again is replaced, since Claude Code takes
            the pair out of the history otherwise (docs/spec/claude-code.md#unique-ids).
        stop_sequences: what the client asked to stop at.
        estimated_input_tokens: for ``message_start``, before the upstream counts.
    """

    model: str
    upstream_model: str = ""
    tool_names: dict[str, str] = field(default_factory=dict)
    used_ids: Collection[str] = ()
    stop_sequences: tuple[str, ...] = ()
    estimated_input_tokens: int = 0
    errors: ErrorContext = field(default_factory=ErrorContext)


class OpenAIStream:
    """One Chat Completions stream; see the module's text."""

    __slots__ = (
        "_answer",
        "_block",
        "_calls",
        "_choice",
        "_details",
        "_dialect",
        "_emitted_chars",
        "_events",
        "_has_calls",
        "_has_deltas",
        "_has_foreign_choices",
        "_is_done",
        "_new_id",
        "_next_index",
        "_reasoning_field",
        "_repeats",
        "_reported",
        "_seen_choices",
        "_signatures",
        "_slot",
        "_stop",
        "_tags",
        "_used_ids",
        "_waiting",
        "_warn",
        "has_ended",
        "has_started",
        "stop_reason",
        "usage",
    )

    def __init__(self, answer: ResponseContext, dialect: Dialect, new_id: NewId, warn: Warn) -> None:
        self._answer = answer
        self._dialect = dialect
        self._new_id = new_id
        self._warn = warn
        self._events: list[StreamEvent] = []
        self._next_index = 0
        self._block = ""  # type of the open block: "", "thinking", "text" or "tool_use"
        self._slot: ToolSlot | None = None  # the open tool call
        self._calls = ToolCalls()
        self._has_calls = False  # a tool_use block was begun
        self._waiting: deque[tuple[str, str] | ToolSlot] = deque()
        self._used_ids: set[str] = set()  # by this answer
        self._tags = (
            ThinkTags(
                dialect.think_tags or ("think",),
                is_implied=dialect.think_tag_is_implied,
                repeats=dialect.think_tags_repeat,
            )
            if dialect.think_tags or dialect.think_tag_is_implied
            else None
        )
        self._reasoning_field: str | None = None
        self._details = ReasoningDetails()
        self._repeats = DeltaTemplates()
        self._signatures: dict[str, str] = {}
        self._stop = Stop()
        self._is_done = False
        self._seen_choices = False
        self._choice: int | None = None  # index of the choice that is this answer
        self._has_foreign_choices = False
        self._has_deltas = False
        self._emitted_chars = 0
        self._reported: Usage | None = None
        self.usage = Usage(input_tokens=answer.estimated_input_tokens, is_estimated=True)
        self.stop_reason: str | None = None
        self.has_started = False
        self.has_ended = False

    # -- the codec's interface

    @property
    def usage_so_far(self) -> Usage:
        """Reported by the upstream, or estimated from what was said: for an answer that breaks off."""
        return self.usage if self.has_ended else self._final_usage()

    @property
    def has_finish(self) -> bool:
        return self._stop.is_known or self._is_done

    def start(self) -> list[StreamEvent]:
        self._start()
        return self.take()

    def feed(self, frame: SSEFrame) -> list[StreamEvent]:
        """Take one frame of the upstream's stream.

        Raises:
            ProxyError: the frame is an error of the upstream's, or no chunk at all. The stream is over then.
        """
        data = frame.data
        if self._is_done or not data.strip():
            return []
        if data.startswith(b"[DONE]"):
            self._is_done = True
            return self.close()
        try:
            chunk = jsonio.loads(data)
        except jsonio.JSONError as exc:
            return self._on_lines(data, exc)
        if frame.event == b"error" and isinstance(chunk, dict) and not (chunk.keys() & {"error", "choices"}):
            chunk = {"error": chunk}  # named an error by its event alone
        self.on_chunk(chunk)
        events = self.take()
        if len(events) == 1 and self._tags is None:
            self._learn(data, chunk, events[0])
        return events

    def run(self, blocks: list[bytes], at: int, *, is_joined: bool) -> list[StreamEvent]:
        if not self._may_repeat:
            return []
        kind, slot = self._block, self._slot
        found = self._repeats.texts_of(blocks, at)
        if not found:
            return []
        if slot is not None:
            if not slot.goes_on_with(found[0][1]):
                return []
            for _, text in found:
                slot.add_sent_arguments(text)
        self._emitted_chars += sum([len(text) for _, text in found])
        index = self._next_index - 1
        if is_joined:
            head, tail = delta_template(index, kind)
            frames = head + (tail + head).join([literal for literal, _ in found]) + tail
            return [DeltaRun(frames, len(found))]
        return [delta_of(index, kind, text) for _, text in found]

    def rewriter(self) -> Callable[[bytes], bytes] | None:
        if not self._may_repeat:
            return None
        head, tail = delta_template(self._next_index - 1, self._block)
        return self._repeats.rewriter(head, tail, None if self._slot is None else self._slot.takes_sent)

    @property
    def _may_repeat(self) -> bool:
        """What repeats the template goes on with the open block."""
        kind = self._block
        return (
            bool(kind)
            and kind == self._repeats.kind
            and not self._is_done
            and not self._waiting
            and (kind != "tool_use" or self._slot is not None)
        )

    def _learn(self, data: bytes, chunk: dict[str, Any], event: StreamEvent) -> None:
        if isinstance(event, TextDelta):
            self._repeats.learn(data, chunk, "text", event.text)
        elif isinstance(event, ThinkingDelta):
            self._repeats.learn(data, chunk, "thinking", event.thinking)
        elif isinstance(event, JsonDelta):
            self._repeats.learn(data, chunk, "tool_use", event.partial_json)

    def _on_lines(self, data: bytes, exc: jsonio.JSONError) -> list[StreamEvent]:
        """Chunks parted by one newline only, where a blank line is due (docs/spec/streams.md#single-newline)."""
        lines = [line for line in data.split(b"\n") if line.strip()]
        is_done = any(line.startswith(b"[DONE]") for line in lines)
        try:
            chunks = [jsonio.loads(line) for line in lines if not line.startswith(b"[DONE]")]
        except jsonio.JSONError:
            raise BadReply(f"the upstream sent an event that is not JSON: {exc}") from None
        for chunk in chunks:
            self.on_chunk(chunk)
        if is_done:
            self._is_done = True
            return self.close()
        return self.take()

    def close(self) -> list[StreamEvent]:
        if self.has_ended:
            return []
        self._flush_tags()  # content all the same, even if the stream was cut
        if not self._stop.is_known and not (self._is_done and (self._next_index or self._waiting)):
            raise Truncated(
                "the upstream closed the stream before finishing"
                if self._seen_choices or self.has_started
                else "the upstream ended its stream without an answer"
            )
        if not self._stop.is_known:
            self._warn("stream.no_finish_reason")
        self._flush_waiting()
        self._finalise()
        return self.take()

    def take(self) -> list[StreamEvent]:
        """The events made so far and not yet given out: after `feed` or `close` raised, what came before the fault."""
        events, self._events = self._events, []
        return events

    # -- chunks

    def on_chunk(self, chunk: Any) -> None:
        """Take one parsed chunk, or a whole completion: a ``message`` is read as the delta."""
        if not isinstance(chunk, dict):
            raise BadReply("the upstream sent an event that is not a JSON object")
        if chunk.get("error"):
            raise refusal_from_chunk(error_in(chunk), self._answer.errors)
        choices = chunk.get("choices")
        if isinstance(choices, list) and choices:
            for choice in self._own(choices):
                self._on_choice(choice, chunk)
        elif (error := error_in(chunk)) is not None:
            raise refusal_from_chunk(error, self._answer.errors)
        usage = chunk.get("usage")
        if usage is None and isinstance(chunk.get("x_groq"), dict):
            usage = chunk["x_groq"].get("usage")
        if usage is not None:
            self._reported = usage_from_openai(usage) or self._reported

    def on_completion(self, completion: Any) -> None:
        """Take a whole completion as one chunk: it is all there is, whether it names a finish reason or not."""
        self.on_chunk(completion)
        self._is_done = True

    def _own(self, choices: list[Any]) -> list[dict[str, Any]]:
        """The choices that are this answer. ``n`` is never asked for, so others are somebody's mistake.

        See docs/spec/chat-to-messages.md#chunks.
        """
        if len(choices) == 1 and isinstance(choices[0], dict):  # nearly every chunk there is
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
        delta = choice.get("delta")
        if isinstance(delta, dict):
            self._has_deltas = True
        elif not self._has_deltas:  # else MiniMax says the whole answer again in its last chunk
            delta = choice.get("message")
        if isinstance(delta, dict):
            self._on_delta(delta)
        elif isinstance(choice.get("text"), str):  # the legacy completions shape, from some local servers
            self._on_content(choice["text"])
        reason = choice.get("finish_reason")
        if reason is not None and reason != "":
            known = self._answer
            self._stop.add(
                str(reason),
                choice,
                chunk,
                stop_sequences=known.stop_sequences,
                errors=known.errors,
                warn=self._warn,
            )
        if isinstance(choice.get("usage"), dict):  # Kimi
            self._reported = usage_from_openai(choice["usage"]) or self._reported

    def _on_delta(self, delta: dict[str, Any]) -> None:
        content = delta.get("content")
        if type(content) is str and len(delta) == 1 and self._tags is None:
            if content:  # nearly every chunk there is
                self._on_piece("text", content)
            return
        source, reasoning = reasoning_of(delta)
        details = delta.get("reasoning_details")
        if isinstance(details, list):
            self._details.add(details)
        if reasoning:
            self._flush_tags()
            self._reasoning_field = self._reasoning_field or source
            self._on_piece("thinking", reasoning)
        if isinstance(content, str):
            self._on_content(content)
        elif isinstance(content, list):
            for part in content:
                self._on_part(part)
        refusal = delta.get("refusal")
        if isinstance(refusal, str) and refusal:
            self._stop.has_refusal = True
            self._flush_tags()
            self._on_piece("text", refusal)
        for image in _list(delta.get("images")):
            self._flush_tags()
            self._on_piece("text", _image_text(image))
        audio = delta.get("audio")
        if isinstance(audio, dict) and isinstance(audio.get("transcript"), str):
            self._on_content(audio["transcript"])
        for fragment in _list(delta.get("tool_calls")):
            self._on_fragment(fragment)
        call = delta.get("function_call")
        if isinstance(call, dict):
            self._on_fragment({"index": 0, "function": call})

    def _on_content(self, text: str) -> None:
        if self._tags is None:
            if text:
                self._on_piece("text", text)
        else:
            self._on_runs(self._tags.feed(text))

    def _on_runs(self, runs: list[tuple[bool, str]]) -> None:
        for is_thinking, text in runs:
            if is_thinking:
                self._reasoning_field = self._reasoning_field or "think"
            self._on_piece("thinking" if is_thinking else "text", text)

    def _flush_tags(self) -> None:
        """What was held back as the beginning of a tag comes ahead of what is no content."""
        if self._tags is not None:
            self._on_runs(self._tags.close())

    def _on_part(self, part: Any) -> None:
        """One element of a content array (Mistral; docs/spec/chat-to-messages.md#content-array)."""
        kind = part.get("type") if isinstance(part, dict) else None
        if kind == "text" and isinstance(part.get("text"), str):
            self._on_content(part["text"])
        elif kind == "thinking":
            thoughts = part.get("thinking")
            texts = (
                [thoughts]
                if isinstance(thoughts, str)
                else [piece.get("text") for piece in _list(thoughts) if isinstance(piece, dict)]
            )
            text = "".join(text for text in texts if isinstance(text, str))
            if text:
                self._flush_tags()
                self._reasoning_field = self._reasoning_field or "thinking"
                self._on_piece("thinking", text)
        elif kind in ("image_url", "image"):
            self._flush_tags()
            self._on_piece("text", _image_text(part))
        elif kind != "reference":
            self._warn("stream.unknown_content_part")

    # -- blocks

    def _on_piece(self, kind: str, text: str) -> None:
        """Text or thinking: into its block, or behind the unfinished tool call that is in the way."""
        if self._waiting or (self._slot is not None and not self._slot.is_complete):
            self._waiting.append((kind, text))
            return
        self._say(kind, text)

    def _say(self, kind: str, text: str) -> None:
        """A delta of text or thinking, in a block of its kind."""
        if self._block != kind:
            self._open(kind)
        self._emitted_chars += len(text)
        self._events.append(delta_of(self._next_index - 1, kind, text))

    def _on_fragment(self, fragment: Any) -> None:
        if not isinstance(fragment, dict):
            self._warn("stream.tool_call_not_an_object")
            return
        self._flush_tags()
        slot, is_new = self._calls.add(fragment)
        if slot is self._slot:
            self._send_arguments(slot)
        elif slot.has_begun:
            if slot.unsent:
                slot.unsent.clear()
                self._warn("stream.arguments_after_the_call")
        elif is_new:
            self._waiting.append(slot)
        # A thought signature may follow its call in a delta of its own, and must be sent ahead of it: they wait.
        if self._waiting and not self._dialect.thought_signatures:
            self._drain()

    def _drain(self) -> None:
        """Give out what waited, up to the next tool call that is itself unfinished."""
        while self._waiting and (self._slot is None or self._slot.is_complete):
            item = self._waiting[0]
            if isinstance(item, ToolSlot):
                if not item.name:
                    return
                self._waiting.popleft()
                self._open_tool(item)
            else:
                self._waiting.popleft()
                self._say(*item)

    def _flush_waiting(self) -> None:
        """The answer is over: what waited follows, whole or not."""
        dropped = 0
        while self._waiting:
            item = self._waiting.popleft()
            if not isinstance(item, ToolSlot):
                self._say(*item)
            elif item.name:
                self._open_tool(item)
            else:
                dropped += 1
        if dropped:
            self._warn("stream.tool_call_without_name")
            if not self._next_index:
                raise BadReply("the upstream sent a tool call without a name and nothing else")

    def _open(self, kind: str) -> None:
        self._close_block()
        self._start()
        block: dict[str, Any] = {"type": kind, kind: ""}
        if kind == "thinking":
            block["signature"] = ""
        self._begin(kind, block)

    def _open_tool(self, slot: ToolSlot) -> None:
        for each in (slot, *self._waiting):
            if isinstance(each, ToolSlot) and each.signature:
                self._signatures[self._client_id(each)] = each.signature
                each.signature = None
        if self._block != "thinking" and (self._signatures or self._details.has_unsent_data):
            self._open("thinking")  # an empty one, to carry what must come back with the call
        self._close_block()
        self._start()
        name = self._answer.tool_names.get(slot.name, slot.name)
        self._emitted_chars += len(name)
        self._begin("tool_use", {"type": "tool_use", "id": self._client_id(slot), "name": name, "input": {}})
        self._slot = slot
        self._has_calls = slot.has_begun = True
        self._send_arguments(slot)

    def _begin(self, kind: str, block: dict[str, Any]) -> None:
        self._block = kind
        self._repeats.kind = ""  # it was of another block
        self._events.append(BlockStart(self._next_index, block))
        self._next_index += 1

    def _send_arguments(self, slot: ToolSlot) -> None:
        index = self._next_index - 1
        for text in slot.unsent:
            self._emitted_chars += len(text)
            self._events.append(JsonDelta(index, text))
        slot.unsent.clear()

    def _close_block(self) -> None:
        if not self._block:
            return
        index = self._next_index - 1
        if self._block == "thinking":
            self._events.append(SignatureDelta(index, self._signature()))
        elif self._slot is not None:
            if not self._slot.has_arguments:
                self._events.append(JsonDelta(index, "{}"))
            elif not self._slot.is_complete:
                self._warn("stream.arguments_incomplete")
            self._slot = None
        self._block = ""
        self._events.append(BlockStop(index))

    def _signature(self) -> str:
        model, source = self._answer.upstream_model, self._reasoning_field
        details, signatures = self._details.take(), self._signatures or None
        self._signatures = {}
        try:
            return encode_signature(model, source, details, signatures)
        except (
            jsonio.JSONError
        ):  # a number in the details that JSON cannot hold: they could not go back either
            self._warn("stream.reasoning_details_not_json")
            return encode_signature(model, source, None, signatures)

    def _client_id(self, slot: ToolSlot) -> str:
        if not slot.client_id:
            call_id = to_client_id(slot.call_id) if slot.call_id else ""
            if not call_id or call_id in self._used_ids or call_id in self._answer.used_ids:
                call_id = self._new_id("toolu_")
            self._used_ids.add(call_id)
            slot.client_id = call_id
        return slot.client_id

    # -- beginning and end

    def _start(self) -> None:
        if self.has_started:
            return
        self.has_started = True
        usage = self.usage.to_anthropic() if self._reported is None else self._reported.to_anthropic()
        usage["output_tokens"] = 0
        usage.pop("output_tokens_details", None)
        message: dict[str, Any] = {
            "id": self._new_id("msg_"),
            "type": "message",
            "role": "assistant",
            "model": self._answer.model,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": usage,
        }
        # Ahead of anything that was said in the same turn.
        self._events.append(MessageStart(message))

    def _finalise(self) -> None:
        self._close_block()
        if self._details.has_unsent_data:
            self._open("thinking")
            self._close_block()
        self._start()
        self.usage = self._final_usage()
        delta = self._stop.delta(has_calls=self._has_calls)
        self.stop_reason = delta["stop_reason"]
        self._events.append(MessageDelta(delta, self.usage.to_anthropic()))
        self._events.append(MessageStop())
        self.has_ended = True

    def _final_usage(self) -> Usage:
        reported = self._reported
        # A rough four characters a token; never 0 for an answer that said something
        # (docs/spec/chat-to-messages.md#usage).
        estimate = -(-(self._emitted_chars + self._repeats.chars) // 4)
        if reported is None:
            return Usage(input_tokens=self.usage.input_tokens, output_tokens=estimate, is_estimated=True)
        if reported.output_tokens == 0 and estimate:
            reported = replace(reported, output_tokens=estimate, is_estimated=True)
        if reported.total_input_tokens == 0:  # only the output was counted
            reported = replace(reported, input_tokens=self.usage.input_tokens, is_estimated=True)
        return reported


def _choice_index(choice: dict[str, Any]) -> int:
    index = choice.get("index")
    return index if isinstance(index, int) else 0


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _image_text(image: Any) -> str:
    """Anthropic answers have no image block; a data URL in the text would flood the context.

    See docs/spec/chat-to-messages.md#images.
    """
    url = image.get("image_url") if isinstance(image, dict) else None
    url = url.get("url") if isinstance(url, dict) else url
    if isinstance(url, str) and url.startswith("data:"):
        head, _, data = url.partition(",")
        return f"[image {head[5:].split(';')[0] or 'data'}, {len(data) * 3 // 4} bytes]"
    return f"[image {url}]" if isinstance(url, str) else "[image]"
