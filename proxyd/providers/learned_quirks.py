"""Quirks learned from refusals of upstreams, per route, while the daemon runs.

`error_rules` reads one refusal. A learned quirk is tried at once and kept when the upstream accepts the request, so
that only the first call on a route is delayed. The log gets the lines for models.yaml that make it permanent. An entry
that is edited in models.yaml starts without learned quirks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from proxyd.codecs.openai.errors import ErrorContext
from proxyd.config.routes import ModelRoute
from proxyd.providers.error_rules import change_for_error, models_yaml_line, output_limit_for

__all__ = ["MAX_FINDINGS_PER_CALL", "LearnedQuirkStore", "LearnedQuirks", "Sizes"]

#: Most retries of one call for learned quirks. A new model behind an old profile has refused up to three parameters:
#: the name of the output limit, sampling, and stop sequences.
MAX_FINDINGS_PER_CALL = 3


@dataclass(frozen=True, slots=True)
class LearnedQuirks:
    """Changes of one route.

    Attributes:
        quirks: as under ``quirks:`` in models.yaml; the entry's own win.
        max_tokens: the model's output limit, where a refusal gave it.
        lines: of a models.yaml entry, one for each change.
    """

    quirks: Mapping[str, Any] = field(default_factory=dict)
    max_tokens: int | None = None
    lines: tuple[str, ...] = ()

    def applied_to(self, route: ModelRoute) -> ModelRoute:
        """Return the entry with these lines."""
        if not self.lines:
            return route
        limits = [limit for limit in (route.max_tokens, self.max_tokens) if limit is not None]
        return replace(
            route, quirks={**self.quirks, **route.quirks}, max_tokens=min(limits) if limits else None
        )

    def after(
        self, status: int, body: bytes, sent: Mapping[str, Any], route: ModelRoute
    ) -> LearnedQuirks | None:
        """Return these with the quirk of a refusal added; None where it names nothing new.

        Args:
            status: the upstream's.
            body: the upstream's response.
            sent: the body of the request that was refused.
            route: the entry of models.yaml, whose own quirks are not overridden.
        """
        limit = output_limit_for(status, body, sent)
        if limit is not None:
            if limit == self.max_tokens:
                return None
            return replace(self, max_tokens=limit, lines=(*self.lines, f"max_tokens: {limit}"))
        change = change_for_error(status, body, sent)
        if change is None or change.quirk in route.quirks:
            return None
        if change.quirk in self.quirks and self.quirks[change.quirk] == change.value:
            return None
        quirks = {**self.quirks, change.quirk: change.value}
        return replace(self, quirks=quirks, lines=(*self.lines, models_yaml_line(change)))


_NOTHING = LearnedQuirks()

#: An accepted prompt whose estimate is this many times the learned window refutes the window: there may be several
#: servers behind one address.
_CONTRADICTION = 1.5


@dataclass(frozen=True, slots=True)
class Sizes:
    """Known sizes of the prompts that fit one route.

    Attributes:
        window: in tokens, from a refusal.
        largest_accepted: the largest estimate of a prompt that was accepted.
    """

    window: int | None = None
    largest_accepted: int | None = None


class LearnedQuirkStore:
    """Learned quirks of all routes, and the sizes of the prompts that fit.

    Sizes are stored separately, because a call reads the quirks at its start and writes them at its end.
    """

    __slots__ = ("_by_route", "_sizes")

    def __init__(self) -> None:
        self._by_route: dict[tuple[str, str, str], LearnedQuirks] = {}
        self._sizes: dict[tuple[str, str, str], Sizes] = {}

    def of(self, route: ModelRoute) -> LearnedQuirks:
        return self._by_route.get(_key(route), _NOTHING)

    def keep(self, route: ModelRoute, quirks: LearnedQuirks) -> tuple[str, ...]:
        """Keep `quirks`, with which the upstream accepted a request; return the new lines."""
        known = self.of(route)
        self._by_route[_key(route)] = quirks
        return tuple(line for line in quirks.lines if line not in known.lines)

    def sizes_of(self, route: ModelRoute) -> Sizes:
        return self._sizes.get(_key(route), Sizes())

    def keep_window(self, route: ModelRoute, window: int) -> tuple[str, ...]:
        """Keep the window that a refusal gave; return the line for models.yaml, if it is new and needed there."""
        known = self.sizes_of(route)
        if known.window == window or route.max_input_tokens == window:
            return ()
        self._sizes[_key(route)] = replace(known, window=window)
        return (f"max_input_tokens: {window}",)

    def keep_accepted(self, route: ModelRoute, estimate: int | None) -> None:
        """Record that a prompt of `estimate` tokens was accepted."""
        known = self.sizes_of(route)
        if estimate is None or estimate <= (known.largest_accepted or 0):
            return
        window = known.window
        if window is not None and estimate > window * _CONTRADICTION:
            window = None
        self._sizes[_key(route)] = Sizes(window, estimate)

    def inform(self, context: ErrorContext, route: ModelRoute) -> None:
        """Add the known sizes of `route` to `context`; a window in models.yaml takes precedence."""
        known = self.sizes_of(route)
        if context.window is None:
            context.window = known.window
        context.largest_accepted = known.largest_accepted


def _key(route: ModelRoute) -> tuple[str, str, str]:
    return route.model_id, route.api_base, route.model_name
