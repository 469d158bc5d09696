"""Public API for hook files: the context of a call and the events of a stream (docs/spec/design.md#hooks,
docs/hooks.md).

A hook file may define any of these, plain or ``async def``::

    def request_hook(payload): ...               the body that will be sent upstream; return it
    def response_hook(payload): ...              a whole response, or the data of one stream event; return it
    def stream_event_hook(event, ctx): ...       one event; return an event, several, or None to drop it

All three may take the context as a second parameter.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from proxyd.codecs.anthropic.events import (
    BlockStart,
    BlockStop,
    ErrorEvent,
    JsonDelta,
    MessageDelta,
    MessageStart,
    MessageStop,
    Ping,
    SignatureDelta,
    StreamEvent,
    TextDelta,
    ThinkingDelta,
    Unknown,
)

__all__ = [
    "BlockStart",
    "BlockStop",
    "ErrorEvent",
    "HookContext",
    "JsonDelta",
    "MessageDelta",
    "MessageStart",
    "MessageStop",
    "Ping",
    "SignatureDelta",
    "StreamEvent",
    "TextDelta",
    "ThinkingDelta",
    "Unknown",
]


@dataclass(frozen=True, slots=True)
class HookContext:
    """The call that a hook works on. It contains no keys.

    Attributes:
        request_id: as in the log and in the response's ``request-id``.
        route: the ``model_id`` of the entry that serves the call.
        mode: ``translated``: request bodies have the OpenAI shape; ``direct``: the Anthropic shape. Responses
            have the Anthropic shape in both.
        direction: whether the payload belongs to the request or the response.
        options: the value of ``hook_options`` in models.yaml under this hook's name.
        state: yours; empty when the call begins, the same mapping for all of its events, dropped when it ends.
    """

    request_id: str
    route: str
    mode: Literal["direct", "translated"]
    direction: Literal["request", "response"]
    options: Mapping[str, Any] = field(default_factory=dict)
    state: dict[str, Any] = field(default_factory=dict)
