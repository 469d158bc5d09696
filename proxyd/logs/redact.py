"""Redaction of log events: the last structlog processor but the renderer (docs/spec/operations.md#e7).

Whatever looks like a credential is masked, by field name and by value. Tracebacks are written without the data that
an exception's message may quote.
"""

from __future__ import annotations

import functools
import traceback
from collections.abc import Iterable, Mapping
from typing import Any

from structlog.typing import EventDict, WrappedLogger

from proxyd.errors import ProxyError
from proxyd.redaction import is_credential_name, looks_clean, masked, redacted
from proxyd.secret import MASK

__all__ = ["redact", "redact_event", "safe_traceback"]

#: Types that cannot contain text.
_PLAIN = frozenset({str, int, float, bool, type(None)})
#: Exceptions whose messages are about code or the system, or are ours. Any other may quote the data it failed on.
_SAFE_MESSAGES = (TypeError, AttributeError, NameError, ImportError, AssertionError, OSError, ProxyError)


def redact(value: Any, name: str = "") -> Any:
    """`value` with everything masked that looks like a credential, or stands under a credential's name."""
    if isinstance(value, str):
        return MASK if is_credential_name(name) else redacted(value)
    if isinstance(value, bytes) and is_credential_name(name):
        return MASK
    if isinstance(value, Mapping):
        return {key: redact(item, str(key)) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [redact(item) for item in value]
    return value


def redact_event(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    """Mask credentials in all fields of an event."""
    if (
        _is_clean({value for value in event.values() if type(value) is str})
        and not _any_credential_name(tuple(event))
        and _PLAIN.issuperset(map(type, event.values()))
    ):
        return event
    return {key: redact(value, key) for key, value in event.items()}


def _is_clean(texts: Iterable[str]) -> bool:
    # One search through all texts together: nearly always there is nothing to mask in any of them.
    text = "\n".join(texts)
    return masked(text) is text and looks_clean(text)


@functools.lru_cache(maxsize=512)  # each kind of event has the same fields every time
def _any_credential_name(names: tuple[str, ...]) -> bool:
    return any(map(is_credential_name, names))


def safe_traceback(exc_info: tuple[Any, Any, Any]) -> str:
    """Format a traceback with places, types and causes, and with the messages of `_SAFE_MESSAGES` only.

    Any other exception's message may quote a prompt, which does not belong in the log.
    """
    parts: list[str] = []
    exc: BaseException | None = exc_info[1]
    seen: set[int] = set()
    while exc is not None and id(exc) not in seen:
        seen.add(id(exc))
        frames = "".join(traceback.format_tb(exc.__traceback__)).rstrip("\n")
        message = f": {exc}" if isinstance(exc, _SAFE_MESSAGES) else " (message left out: it may quote data)"
        head = f"Traceback (most recent call last):\n{frames}\n" if frames else ""
        parts.append(f"{head}{type(exc).__qualname__}{message}")
        if exc.__cause__ is not None:
            exc = exc.__cause__
        else:
            exc = None if exc.__suppress_context__ else exc.__context__
    return "\n\nThe exception above led to this one:\n\n".join(reversed(parts))
