"""What the refusals of upstreams have taught, per route, for as long as the daemon lives.

`mending` says what one refusal means. Here it is kept: a finding is tried at once and remembered when the upstream took
the request for it, so that only the first call on a route pays. The lines that make findings permanent are for the log.

A route is known by where its calls go, so an entry that is edited in models.yaml starts afresh.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from proxyd.codecs.openai.errors import ErrorContext
from proxyd.config.routes import ModelRoute
from proxyd.providers.error_rules import change_for_error, models_yaml_line, output_limit_for

__all__ = ["MAX_FINDINGS_PER_CALL", "LearnedQuirkStore", "LearnedQuirks", "Sizes"]

#: A request is sent again this often within one call, each time for another finding. A new model behind an old profile
#: has refused up to three things: the name of the output limit, sampling, and stop sequences.
MAX_FINDINGS_PER_CALL = 3


@dataclass(frozen=True, slots=True)
class LearnedQuirks:
    """What is to be done otherwise on one route.

    Attributes:
        quirks: as under ``quirks:`` in models.yaml; the entry's own win.
        max_tokens: the most output tokens that the model takes, if it has said so.
        lines: of a models.yaml entry, one for each finding.
    """

    quirks: Mapping[str, Any] = field(default_factory=dict)
    max_tokens: int | None = None
    lines: tuple[str, ...] = ()

    def applied_to(self, route: ModelRoute) -> ModelRoute:
        """The entry as it would be with these lines in it."""
        if not self.lines:
            return route
        limits = [limit for limit in (route.max_tokens, self.max_tokens) if limit is not None]
        return replace(
            route, quirks={**self.quirks, **route.quirks}, max_tokens=min(limits) if limits else None
        )

    def after(
        self, status: int, body: bytes, sent: Mapping[str, Any], route: ModelRoute
    ) -> LearnedQuirks | None:
        """These and the one that a refusal teaches; None where it teaches nothing new.

        Args:
            status: the upstream's.
            body: the upstream's answer.
            sent: the body of the request that was refused.
            route: as models.yaml has it; what its entry settles is not learned.
        """
        limit = output_limit_for(status, body, sent)
        if limit is not None:
            if limit == self.max_tokens:
                return None
            return replace(self, max_tokens=limit, lines=(*self.lines, f"max_tokens: {limit}"))
        mend = change_for_error(status, body, sent)
        if mend is None or mend.quirk in route.quirks:
            return None
        if mend.quirk in self.quirks and self.quirks[mend.quirk] == mend.value:
            return None
        quirks = {**self.quirks, mend.quirk: mend.value}
        return replace(self, quirks=quirks, lines=(*self.lines, models_yaml_line(mend)))


_NOTHING = LearnedQuirks()

#: An accepted prompt whose estimate is this many times the learned window shows that the window is another one. Behind
#: one address there may be several servers.
_CONTRADICTION = 1.5


@dataclass(frozen=True, slots=True)
class Sizes:
    """What is known of the prompts that fit one route.

    Attributes:
        window: in tokens, as a refusal gave it.
        largest_accepted: the largest estimate of a prompt that was accepted.
    """

    window: int | None = None
    largest_accepted: int | None = None


class LearnedQuirkStore:
    """The lessons of all routes, and the sizes of the prompts that fit.

    Sizes are kept apart from the lessons, which a call takes at its beginning and gives back at its end.
    """

    __slots__ = ("_by_route", "_sizes")

    def __init__(self) -> None:
        self._by_route: dict[tuple[str, str, str], LearnedQuirks] = {}
        self._sizes: dict[tuple[str, str, str], Sizes] = {}

    def of(self, route: ModelRoute) -> LearnedQuirks:
        return self._by_route.get(_key(route), _NOTHING)

    def keep(self, route: ModelRoute, lessons: LearnedQuirks) -> tuple[str, ...]:
        """Remember `lessons`, which the upstream has borne out; returns the lines that are new."""
        known = self.of(route)
        self._by_route[_key(route)] = lessons
        return tuple(line for line in lessons.lines if line not in known.lines)

    def sizes_of(self, route: ModelRoute) -> Sizes:
        return self._sizes.get(_key(route), Sizes())

    def keep_window(self, route: ModelRoute, window: int) -> tuple[str, ...]:
        """Remember the window that a refusal gave; returns the line for models.yaml, if it is new and needed there."""
        known = self.sizes_of(route)
        if known.window == window or route.max_input_tokens == window:
            return ()
        self._sizes[_key(route)] = replace(known, window=window)
        return (f"max_input_tokens: {window}",)

    def keep_accepted(self, route: ModelRoute, estimate: int | None) -> None:
        """Remember that a prompt of `estimate` tokens was accepted."""
        known = self.sizes_of(route)
        if estimate is None or estimate <= (known.largest_accepted or 0):
            return
        window = known.window
        if window is not None and estimate > window * _CONTRADICTION:
            window = None
        self._sizes[_key(route)] = Sizes(window, estimate)

    def inform(self, context: ErrorContext, route: ModelRoute) -> None:
        """Add what is known of `route` to `context`; a window in models.yaml comes first."""
        known = self.sizes_of(route)
        if context.window is None:
            context.window = known.window
        context.largest_accepted = known.largest_accepted


def _key(route: ModelRoute) -> tuple[str, str, str]:
    return route.model_id, route.api_base, route.model_name
