"""Sizes of the prompts that fit an entry: the window that a refusal gave, and the largest prompt that was accepted.

A window is kept as a learned quirk is: in the file, for 30 days, until the entry is edited.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from proxyd.codecs.upstream_errors.errors import ErrorContext
from proxyd.config.routes import ModelRoute

__all__ = ["CLOCK_SKEW_S", "MAX_AGE_S", "MAX_KEPT", "LearnedSizes", "Sizes", "entry_digest"]

#: After this time what was learned is forgotten: upstreams change too.
MAX_AGE_S = 30 * 86_400.0
#: A date this far in the future is read, as after a correction of the clock.
CLOCK_SKEW_S = 86_400.0
#: Most rows of one kind that are kept.
MAX_KEPT = 500

#: An accepted prompt whose estimate is this many times the learned window refutes the window: there may be several
#: servers behind one address.
_CONTRADICTION = 1.5


@dataclass(frozen=True, slots=True)
class Sizes:
    """Known sizes of the prompts that fit one route.

    Attributes:
        window: in tokens, from a refusal.
        largest_accepted: the largest estimate of a prompt that was accepted.
        at: when the window was last learned or refuted, in seconds since the epoch.
    """

    window: int | None = None
    largest_accepted: int | None = None
    at: float = 0.0


class LearnedSizes:
    """The sizes of all entries."""

    __slots__ = ("_sizes",)

    def __init__(self) -> None:
        self._sizes: dict[str, Sizes] = {}

    def of(self, route: ModelRoute, now: float) -> Sizes:
        """Return what is known of `route`; `now` in seconds since the epoch."""
        known = self._sizes.get(entry_digest(route), Sizes())
        if known.window is not None and now - known.at >= MAX_AGE_S:
            known = replace(known, window=None)
        return known

    def keep_window(self, route: ModelRoute, window: int, now: float) -> tuple[str, ...]:
        """Keep the window that a refusal gave; return the line for models.yaml, if it is new and needed there."""
        known = self.of(route, now)
        if route.max_input_tokens == window:
            return ()
        self._put(entry_digest(route), replace(known, window=window, at=now))
        return () if known.window == window else (f"max_input_tokens: {window}",)

    def keep_accepted(self, route: ModelRoute, estimate: int | None, now: float) -> bool:
        """Record that a prompt of `estimate` tokens was accepted; return whether that refutes the window."""
        known = self.of(route, now)
        if estimate is None or estimate <= (known.largest_accepted or 0):
            return False
        is_refuted = known.window is not None and estimate > known.window * _CONTRADICTION
        sizes = Sizes(None, estimate, now) if is_refuted else replace(known, largest_accepted=estimate)
        self._put(entry_digest(route), sizes)
        return is_refuted

    def inform(self, context: ErrorContext, route: ModelRoute, now: float) -> None:
        """Add the known sizes of `route` to `context`; a window in models.yaml takes precedence."""
        known = self.of(route, now)
        if context.window is None:
            context.window = known.window
        context.largest_accepted = known.largest_accepted

    def to_rows(self) -> list[dict[str, Any]]:
        """Return the windows as JSON, for a file."""
        return [
            {"entry": entry, "window": sizes.window, "at": int(sizes.at)}
            for entry, sizes in self._sizes.items()
            if sizes.window is not None
        ]

    def load(self, rows: Iterable[Any], now: float) -> None:
        """Add the windows of `to_rows` that are not too old; rows that are invalid are skipped.

        A row without a window says that it was refuted.
        """
        types: dict[str, tuple[type, ...]] = {"entry": (str,), "window": (int, type(None)), "at": (int,)}
        for row in rows:
            if not isinstance(row, dict) or any(
                type(row.get(name)) not in kinds for name, kinds in types.items()
            ):
                continue
            window, at = row["window"], row["at"]
            if (window is None or window > 0) and -CLOCK_SKEW_S <= now - at < MAX_AGE_S:
                known = self._sizes.get(row["entry"], Sizes())
                self._put(row["entry"], replace(known, window=window, at=float(at)))

    def at(self, entry: str) -> float:
        """Return when the window of an entry, by its digest, was learned or refuted; 0 where it never was."""
        return self._sizes.get(entry, Sizes()).at

    def is_refuted(self, entry: str) -> bool:
        """Return whether the window of an entry, by its digest, was learned and refuted."""
        known = self._sizes.get(entry)
        return known is not None and known.window is None and known.at > 0

    def _put(self, entry: str, sizes: Sizes) -> None:
        self._sizes.pop(entry, None)
        self._sizes[entry] = sizes
        if len(self._sizes) > MAX_KEPT:
            del self._sizes[next(iter(self._sizes))]


def entry_digest(route: ModelRoute) -> str:
    """Return a digest that differs once the entry is edited in what its requests depend on."""
    place = route.model_id, route.api_base, route.model_name
    settled = (
        route.provider,
        route.format,
        route.can_stream,
        route.reasoning_effort,
        route.max_tokens,
        route.vision,
    )
    body = route.extra_body, route.quirks, route.temperature, route.top_p
    text = repr((*place, *settled, *body))  # may hold a key
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]
