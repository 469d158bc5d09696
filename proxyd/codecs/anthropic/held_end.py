"""Hold back the end of a stream while something that must be in it is being worked out.

Everything before the end passes at once. The end begins with the ``message_delta`` that has the stop reason.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from proxyd.codecs.anthropic.events import StreamEvent, data_of, encode_frame
from proxyd.codecs.anthropic.message_collector import MessageCollector
from proxyd.codecs.anthropic.passthrough import split_frames

__all__ = ["HeldEnd"]


class HeldEnd:
    """Collects the message of one stream and holds back its end.

    Attributes:
        is_complete: the last event of the message is held, so the end can be released with an addition.
    """

    __slots__ = ("_collector", "_held", "is_complete")

    def __init__(self) -> None:
        self.is_complete = False
        self._collector = MessageCollector()
        self._held: list[tuple[bytes, StreamEvent | None]] = []

    def feed(self, frames: bytes) -> bytes:
        """Take whole frames; return those that are not held back. An error event releases all."""
        passed = []
        for raw, event in split_frames(frames):
            kind, data = _kind_and_data(event)
            if event is not None:
                self._collector.add(event)
            if kind == "error":
                passed += [self.release(), raw]
            elif self._held or _has_stop_reason(kind, data):
                self._held.append((raw, event))
                self.is_complete = kind == "message_stop"
            else:
                passed.append(raw)
        return b"".join(passed)

    def message(self) -> dict[str, Any]:
        """Return the message; it is whole once `is_complete`."""
        return self._collector.message()

    def release(self, addition: Mapping[str, Any] | None = None) -> bytes:
        """Return what is held, with the members of `addition` in the ``delta`` of its ``message_delta``."""
        held, self._held, self.is_complete = self._held, [], False
        return b"".join(_with(addition, raw, event) if addition else raw for raw, event in held)


def _kind_and_data(event: StreamEvent | None) -> tuple[str, dict[str, Any]]:
    data = {} if event is None else data_of(event)
    return str(data.get("type")), data


def _has_stop_reason(kind: str, data: Mapping[str, Any]) -> bool:
    """Whether an event begins the end. Some servers send a ``message_delta`` with usage after each delta."""
    delta = data.get("delta")
    return kind == "message_delta" and isinstance(delta, dict) and delta.get("stop_reason") is not None


def _with(addition: Mapping[str, Any], raw: bytes, event: StreamEvent | None) -> bytes:
    kind, data = _kind_and_data(event)
    if not _has_stop_reason(kind, data):
        return raw
    return encode_frame(kind, {**data, "delta": {**data["delta"], **addition}})
