"""What the codecs of all upstream protocols share: the message, its usage, and content that is unreadable."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace
from typing import Any

from proxyd import jsonio
from proxyd.codecs.anthropic.events import StreamEvent, around_text
from proxyd.codecs.anthropic.usage import Usage, usage_from_openai
from proxyd.codecs.codec import ResponseContext, Warn
from proxyd.codecs.model_name import model_name
from proxyd.codecs.translation.message_writer import MessageWriter
from proxyd.codecs.upstream_errors.errors import error_in, refusal
from proxyd.codecs.upstream_errors.unreadable import UnreadableContent, error_in_lines, unreadable_error
from proxyd.errors import BadReply, ProxyError

__all__ = ["StreamCodec"]


class StreamCodec(ABC):
    """Base of the codecs (`proxyd.codecs.codec`). A subclass sets `_writer`."""

    __slots__ = (
        "_around",
        "_around_index",
        "_context",
        "_reported_usage",
        "_unreadable",
        "_usage",
        "_warn",
        "_writer",
        "has_ended",
        "response_model",
        "stop_reason",
    )

    _writer: MessageWriter

    def __init__(self, context: ResponseContext, warn: Warn) -> None:
        self._context = context
        self._warn = warn
        self._around_index = -1  # of the block that `_around` was built for
        self._around = b"", b""  # what the frame of a delta has before and after its text
        self._unreadable = UnreadableContent()
        self._reported_usage: Usage | None = None
        self._usage = Usage(input_tokens=context.estimated_input_tokens, is_estimated=True)
        self.stop_reason: str | None = None
        self.response_model: str | None = None
        self.has_ended = False

    @property
    def has_started(self) -> bool:
        return self._writer.has_started

    @property
    @abstractmethod
    def has_finish(self) -> bool:
        """As `Codec.has_finish`."""

    @property
    def usage(self) -> Usage:
        """Tokens until now: reported by the upstream, or estimated from the text, for a stream that breaks off."""
        return self._usage if self.has_ended else self.final_usage()

    def _delta(self, text: str, literal: bytes) -> bytes:
        """Return the frame that appends `text`, as JSON without its quotes in `literal`, to the open block."""
        writer = self._writer
        writer.emitted_chars += len(text)
        if writer.index != self._around_index:
            self._around_index, self._around = writer.index, around_text(writer.index, writer.block)
        before, after = self._around
        return before + literal + after

    def start(self) -> list[StreamEvent]:
        self._writer.start()
        return self._writer.take_events()

    def take_events(self) -> list[StreamEvent]:
        """Return the events not yet returned: after `feed` or `close` raised, those that precede the failure."""
        return self._writer.take_events()

    def on_unreadable(self, text: bytes) -> None:
        """Take content of the stream that is no event. It fails the stream unless the message completes.

        Raises:
            ProxyError: it is an error in a form that can be read, and the message is not complete.
        """
        if self.has_finish:
            return
        if error_in_lines(text) is not None:
            raise unreadable_error(text, self._context.errors)
        self._unreadable.add(text)

    def unreadable_error(self) -> ProxyError | None:
        if not self._unreadable or self.has_finish:
            return None
        return self._unreadable.error(self._context.errors)

    def error_in_body(self, body: bytes) -> ProxyError | None:
        try:
            error = error_in(jsonio.loads(body))
        except jsonio.JSONError:
            return None
        return None if error is None else refusal(200, {}, body, self._context.errors)

    def _not_json(self, data: bytes, exc: jsonio.JSONError) -> ProxyError:
        """Return the error for an event that is not JSON."""
        if data.lstrip().startswith((b"{", b"[")):  # JSON, perhaps cut
            return BadReply(f"the upstream sent an event that is not JSON: {exc}")
        return unreadable_error(data, self._context.errors)

    def _on_usage(self, usage: Any, model: Any = None) -> None:
        """Take the upstream's usage, in any of the forms that are known, and the name of its model beside it."""
        self.response_model = self.response_model or model_name(model)
        reported = usage_from_openai(usage)
        if reported is not None:
            self._reported_usage = reported
            if reported.total_input_tokens:
                self._writer.initial_usage = reported

    def final_usage(self) -> Usage:
        """Return the usage to report at the end, estimated where the upstream has reported none."""
        reported = self._reported_usage
        # About four characters a token; never 0 for a message with content (docs/spec/chat-to-messages.md#usage).
        estimate = -(-self._writer.emitted_chars // 4)
        if reported is None:
            return Usage(input_tokens=self._usage.input_tokens, output_tokens=estimate, is_estimated=True)
        if reported.output_tokens == 0 and estimate:
            reported = replace(reported, output_tokens=estimate, is_estimated=True)
        if reported.total_input_tokens == 0:  # only the output was counted
            reported = replace(reported, input_tokens=self._usage.input_tokens, is_estimated=True)
        return reported
