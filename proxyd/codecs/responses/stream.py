"""Translate the events of a Responses stream to Anthropic stream events (docs/spec/responses.md#stream).

::

    response.created …     nothing: an overload may still follow, and then a retry or a fallback is possible
    response.output_item.added ─▶ Item ◀── deltas, .done events: each gives what was missing before it
                                   │
                                   ▼
                              OutputItems ─▶ MessageWriter, one open block at a time
    response.completed …   what the stream lacked, usage, message_delta, message_stop

Items are known by their ``output_index``, since compatible servers repeat or omit ids. A stream that ends without
``response.completed`` or its like is an error, never a made-up ``end_turn``. A whole response is read as the event that
ends a stream, so that a response that is not streamed equals the streamed one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from proxyd import jsonio
from proxyd.codecs.anthropic.events import StreamEvent
from proxyd.codecs.codec import NewId, ResponseContext, Warn
from proxyd.codecs.responses.delta_template import DeltaTemplate
from proxyd.codecs.responses.output_items import Item, OutputItems, Received, text_of
from proxyd.codecs.stream_codec import StreamCodec
from proxyd.codecs.translation.dialect import Dialect
from proxyd.codecs.translation.message_writer import MessageWriter
from proxyd.codecs.upstream_errors.errors import error_in, refusal_from_chunk
from proxyd.codecs.upstream_errors.unreadable import unreadable_error
from proxyd.codecs.wire.sse import SSEFrame
from proxyd.errors import BadReply, ProxyError, Truncated

__all__ = ["ResponsesStream"]

#: ``incomplete_details.reason`` -> stop reason; others are limits of some kind.
_INCOMPLETE = {"content_filter": "refusal"}
_REFUSAL_DETAILS = {"type": "refusal", "category": None, "explanation": None}

#: Names of events that the servers of other protocols, or proxies, send to keep a stream open.
_HEARTBEATS = frozenset({"ping", "heartbeat", "keepalive", "keep-alive", "keep_alive"})


class ResponsesStream(StreamCodec):
    """The codec of one Responses stream; see the module's text."""

    __slots__ = (
        "_by_index",
        "_is_done",
        "_items",
        "_template",
        "_template_item",
        "_template_received",
    )

    def __init__(self, context: ResponseContext, dialect: Dialect, new_id: NewId, warn: Warn) -> None:
        super().__init__(context, warn)
        self._writer = MessageWriter(context, new_id, self._usage)
        self._items = OutputItems(context, self._writer, warn, phases=dialect.message_phases)
        self._by_index: dict[int, Item] = {}
        self._template = DeltaTemplate()
        self._template_item = Item("")
        self._template_received = Received()  # of the part that the template's texts belong to
        self._is_done = False  # [DONE] was received

    # -- the codec's interface

    @property
    def has_finish_reason(self) -> bool:
        return self.has_ended

    @property
    def has_finish(self) -> bool:
        return self.has_ended or self._is_done

    def feed(self, frame: SSEFrame) -> list[StreamEvent]:
        """Translate one frame of the upstream's stream.

        Raises:
            ProxyError: the frame is an error of the upstream, or no event at all. The stream is over then.
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
            event = jsonio.loads(data)
        except jsonio.JSONError as exc:
            raise self._not_json(data, exc) from None
        if not isinstance(event, dict):
            raise unreadable_error(data, self._context.errors)
        self._on_event(event, frame)
        return self._writer.take_events()

    def on_body(self, value: Any) -> bool:
        """Translate a whole response."""
        if not isinstance(value, dict) or not isinstance(value.get("output"), list):
            return False
        self._on_end({"response": value}, None)
        return True

    def close(self) -> list[StreamEvent]:
        if self.has_ended:
            return self._writer.take_events()
        if self._unreadable:
            raise self._unreadable.error(self._context.errors)
        if self._items.is_within_arguments:
            raise Truncated("the upstream ended the stream within the arguments of a tool call")
        if self._is_done and self._items.has_content:
            self._warn("stream.no_finish_reason")
            self._finish("end_turn")
            return self._writer.take_events()
        raise Truncated(
            "the upstream closed the stream before finishing"
            if self._items.items or self.has_started
            else "the upstream ended its stream without a response"
        )

    # -- the fast path

    def repeat(self, block: bytes) -> bytes:
        item = self._template_item
        if self._is_done or not self._template.kind or not self._items.is_open(item):
            return b""
        text, literal = self._template.read(block)
        if not text or (item.kind == "function_call" and not item.call.try_add_sent(text)):
            return b""
        self._template_received.add(text)
        return self._delta(text, literal)

    def _learn(self, frame: SSEFrame, event: dict[str, Any], item: Item, part: tuple[str, int]) -> None:
        if self._items.is_open(item) and item.last_part == part:
            self._template.learn(frame, event)
            self._template_item, self._template_received = item, item.received(part)

    # -- events

    def _on_event(self, event: dict[str, Any], frame: SSEFrame) -> None:
        kind = event.get("type")
        if not isinstance(kind, str) or not kind:
            kind = frame.event.decode("utf-8", "replace")
        read = _READERS.get(kind)
        if read is not None:
            read(self, event, frame)
            if self._items.matched is not None and not self.has_ended:
                self._finish("stop_sequence")
        elif kind == "error" or (not kind and event.get("error")):
            raise self._error_in(event)
        elif kind.startswith("response.") or kind in _HEARTBEATS:
            return  # an event of a tool that we do not offer, or a new one
        elif "choices" in event:
            raise BadReply(
                "the upstream answered in the form of Chat Completions; write 'format: openai-chat' for this model"
            )
        elif (error := error_in(event)) is not None:
            raise refusal_from_chunk(error, self._context.errors)
        else:
            self._unreadable.add(frame.data)

    def _error_in(self, event: dict[str, Any]) -> ProxyError:
        """Return the error of an ``error`` event; its fields stand in it, or in an object of it."""
        error = event.get("error")
        return refusal_from_chunk(error if error else event, self._context.errors)

    def _item_of(self, event: dict[str, Any], kind: str) -> Item:
        """Return the item that an event belongs to: by its index, or else the last one of its kind."""
        index = event.get("output_index")
        item = self._by_index.get(index) if isinstance(index, int) else None
        if item is None and not isinstance(index, int):
            item = next((each for each in reversed(self._items.items) if each.kind == kind), None)
        if item is None or item.kind != kind:
            item = self._new_item({"type": kind}, index)
        return item

    def _new_item(self, value: dict[str, Any], index: Any) -> Item:
        item = Item(str(value.get("type")))
        if isinstance(value.get("phase"), str):
            item.phase = value["phase"]
        self._name_call(item, value)
        if isinstance(index, int):
            self._by_index[index] = item
        self._items.add(item)
        return item

    @staticmethod
    def _name_call(item: Item, value: dict[str, Any]) -> None:
        """Take name and id of a call, unless they are known."""
        for attribute, keys in (("name", ("name",)), ("call_id", ("call_id", "id"))):
            found = next((value[key] for key in keys if isinstance(value.get(key), str) and value[key]), "")
            if item.kind == "function_call" and found and not getattr(item.call, attribute):
                setattr(item.call, attribute, found)

    def _on_item_added(self, event: dict[str, Any], frame: SSEFrame) -> None:
        value = event.get("item")
        if isinstance(value, dict):
            item = self._new_item(value, event.get("output_index"))
            if item.kind == "function_call":  # some servers begin the arguments here, or send them whole
                self._items.add_text(item, ("arguments", 0), text_of(value.get("arguments")))

    def _on_item_done(self, event: dict[str, Any], frame: SSEFrame) -> None:
        value = event.get("item")
        if not isinstance(value, dict):
            return
        kind, index = str(value.get("type")), event.get("output_index")
        item = self._by_index.get(index) if isinstance(index, int) else None
        if item is None and not isinstance(index, int):
            item = next((each for each in self._items.items if each.kind == kind and not each.is_done), None)
        if item is None or item.kind != kind:
            item = self._new_item(value, index)
        self._complete(item, value)

    def _complete(self, item: Item, value: dict[str, Any]) -> None:
        """Take the whole of an item."""
        self._name_call(item, value)
        if item.kind == "message":
            for number, part in enumerate(_objects(value.get("content"))):
                self._add_whole_part(item, number, part)
        elif item.kind == "reasoning":
            for source in ("summary", "content"):
                for number, part in enumerate(_objects(value.get(source))):
                    self._items.add_whole(item, (source, number), part.get("text"))
            encrypted = value.get("encrypted_content")
            item.encrypted = encrypted if isinstance(encrypted, str) and encrypted else None
        elif item.kind == "function_call":
            self._items.add_whole(item, ("arguments", 0), text_of(value.get("arguments")))
        self._items.end(item)

    def _add_whole_part(self, item: Item, number: int, part: dict[str, Any]) -> None:
        if part.get("type") == "refusal":
            self._items.has_refusal = self._items.has_refusal or bool(part.get("refusal"))
            self._items.add_whole(item, ("refusal", number), part.get("refusal"))
        else:
            self._items.add_whole(item, ("text", number), part.get("text"))

    def _on_delta(self, event: dict[str, Any], frame: SSEFrame | None, kind: str, source: str) -> None:
        """Take a delta; one with its `frame` may be repeated."""
        text = text_of(event.get("delta"))
        if not text:
            return
        item, part = self._item_of(event, kind), (source, _part_number(event))
        self._items.add_text(item, part, text)
        if frame is not None:
            self._learn(frame, event, item, part)

    def _on_text_done(self, event: dict[str, Any], kind: str, source: str, key: str) -> None:
        whole = text_of(event.get(key))
        if whole:
            item = self._item_of(event, kind)
            self._items.add_whole(item, (source, _part_number(event)), whole)

    def _on_text_delta(self, event: dict[str, Any], frame: SSEFrame) -> None:
        self._on_delta(event, frame, "message", "text")

    def _on_refusal_delta(self, event: dict[str, Any], frame: SSEFrame) -> None:
        self._items.has_refusal = True
        self._on_delta(event, None, "message", "refusal")

    def _on_summary_delta(self, event: dict[str, Any], frame: SSEFrame) -> None:
        self._on_delta(event, frame, "reasoning", "summary")

    def _on_reasoning_delta(self, event: dict[str, Any], frame: SSEFrame) -> None:
        self._on_delta(event, frame, "reasoning", "content")

    def _on_arguments_delta(self, event: dict[str, Any], frame: SSEFrame) -> None:
        self._on_delta(event, frame, "function_call", "arguments")

    def _on_output_text_done(self, event: dict[str, Any], frame: SSEFrame) -> None:
        self._on_text_done(event, "message", "text", "text")

    def _on_refusal_done(self, event: dict[str, Any], frame: SSEFrame) -> None:
        self._items.has_refusal = True
        self._on_text_done(event, "message", "refusal", "refusal")

    def _on_summary_done(self, event: dict[str, Any], frame: SSEFrame) -> None:
        self._on_text_done(event, "reasoning", "summary", "text")

    def _on_reasoning_done(self, event: dict[str, Any], frame: SSEFrame) -> None:
        self._on_text_done(event, "reasoning", "content", "text")

    def _on_arguments_done(self, event: dict[str, Any], frame: SSEFrame) -> None:
        item = self._item_of(event, "function_call")
        self._name_call(item, {"name": event.get("name"), "call_id": event.get("call_id")})
        self._on_text_done(event, "function_call", "arguments", "arguments")

    def _on_part_done(self, event: dict[str, Any], frame: SSEFrame) -> None:
        part = event.get("part")
        if not isinstance(part, dict):
            return
        kind, number = part.get("type"), _part_number(event)
        if kind in ("output_text", "refusal"):
            self._add_whole_part(self._item_of(event, "message"), number, part)
        elif kind in ("summary_text", "reasoning_text"):
            source = "summary" if kind == "summary_text" else "content"
            self._items.add_whole(self._item_of(event, "reasoning"), (source, number), part.get("text"))

    # -- the end

    def _on_failed(self, event: dict[str, Any], frame: SSEFrame | None) -> None:
        response = event.get("response")
        error = response.get("error") if isinstance(response, dict) else None
        raise refusal_from_chunk(error or event.get("error"), self._context.errors)

    def _on_end(self, event: dict[str, Any], frame: SSEFrame | None) -> None:
        """Take a whole response: the last event of a stream, or all there is."""
        response = event.get("response")
        response = response if isinstance(response, dict) else {}
        status = response.get("status")
        if response.get("error") or status in ("failed", "cancelled"):
            self._on_failed(event, frame)
        if frame is None and status in ("in_progress", "queued"):
            raise Truncated("the upstream sent a response that is not finished")
        self._on_usage(response.get("usage"), response.get("model"))
        output, was_streamed = response.get("output"), self._items.has_content
        for item, value in self._items.matching(output if isinstance(output, list) else []):
            if item is None and value.get("type") == "reasoning" and was_streamed:
                self._warn("stream.reasoning_after_text")  # clients show the last block as the result
                continue
            if item is None:
                item = self._new_item(value, None)
            if not item.is_done:
                self._complete(item, value)
        details = response.get("incomplete_details")
        reason = details.get("reason") if isinstance(details, dict) else None
        if status == "incomplete" or event.get("type") == "response.incomplete" or reason:
            self._finish(_INCOMPLETE.get(str(reason), "max_tokens"))
        else:
            self._finish("end_turn")

    def _finish(self, reason: str) -> None:
        """End the message.

        Args:
            reason: its stop reason, unless it has calls, or a refusal.
        """
        items = self._items
        items.end_all(is_cut=reason != "end_turn")
        if items.matched is not None:
            reason = "stop_sequence"
        elif items.has_refusal:
            reason = "refusal"
        elif reason == "end_turn" and items.has_calls:
            reason = "tool_use"
        delta: dict[str, Any] = {"stop_reason": reason, "stop_sequence": items.matched}
        if reason == "refusal":
            delta["stop_details"] = dict(_REFUSAL_DETAILS)
        self._usage = self.final_usage()
        self.stop_reason = reason
        self._writer.finish(delta, self._usage)
        self.has_ended = True


_READERS: Mapping[str, Callable[[ResponsesStream, dict[str, Any], SSEFrame], None]] = {
    "response.output_item.added": ResponsesStream._on_item_added,
    "response.output_item.done": ResponsesStream._on_item_done,
    "response.output_text.delta": ResponsesStream._on_text_delta,
    "response.output_text.done": ResponsesStream._on_output_text_done,
    "response.refusal.delta": ResponsesStream._on_refusal_delta,
    "response.refusal.done": ResponsesStream._on_refusal_done,
    "response.reasoning_summary_text.delta": ResponsesStream._on_summary_delta,
    "response.reasoning_summary_text.done": ResponsesStream._on_summary_done,
    "response.reasoning_text.delta": ResponsesStream._on_reasoning_delta,
    "response.reasoning_text.done": ResponsesStream._on_reasoning_done,
    "response.function_call_arguments.delta": ResponsesStream._on_arguments_delta,
    "response.function_call_arguments.done": ResponsesStream._on_arguments_done,
    "response.content_part.done": ResponsesStream._on_part_done,
    "response.reasoning_summary_part.done": ResponsesStream._on_part_done,
    "response.reasoning_part.done": ResponsesStream._on_part_done,  # vLLM
    "response.completed": ResponsesStream._on_end,
    "response.incomplete": ResponsesStream._on_end,
    "response.done": ResponsesStream._on_end,  # of gateways
    "response.failed": ResponsesStream._on_failed,
    "response.cancelled": ResponsesStream._on_failed,
}


def _part_number(event: dict[str, Any]) -> int:
    for key in ("summary_index", "content_index"):
        if type(number := event.get(key)) is int:
            return number
    return 0


def _objects(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
