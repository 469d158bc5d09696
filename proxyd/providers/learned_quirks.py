"""Quirks learned from refusals of upstreams, per route.

`error_rules` reads one refusal. A learned quirk is tried at once and kept when the upstream accepts the request, so
that only the first call on a route is delayed. The log gets the lines for models.yaml that make it permanent. An entry
that is edited in models.yaml starts without learned quirks.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from proxyd.codecs.formats import GEMINI, RESPONSES
from proxyd.codecs.upstream_errors.error_envelopes import parse_error_body
from proxyd.config.routes import ModelRoute
from proxyd.errors import ConfigError
from proxyd.providers.error_rules import change_for_error, output_limit_for
from proxyd.providers.gemini_rules import change_for_gemini
from proxyd.providers.learned_sizes import CLOCK_SKEW_S, MAX_AGE_S, MAX_KEPT, LearnedSizes, entry_digest
from proxyd.providers.quirk_kinds import read_quirk
from proxyd.providers.refusals import QuirkChange, models_yaml_line
from proxyd.providers.refused_data import RefusedData
from proxyd.providers.registry import format_for
from proxyd.providers.responses_rules import change_for_responses
from proxyd.providers.simplifications import simplification

__all__ = [
    "MAX_CHANGES_PER_CALL",
    "CallKind",
    "Kept",
    "LearnedQuirkStore",
    "LearnedQuirks",
]

#: Most changes of one call, so that it tries four times. A new model behind an old profile has refused up to three
#: parameters: the name of the output limit, sampling, and stop sequences.
MAX_CHANGES_PER_CALL = 3


@dataclass(frozen=True, slots=True)
class _Step:
    """One change within a call.

    Attributes:
        quirks: overrides by name.
        max_tokens: the output limit, for a change of it.
        line: of models.yaml.
        is_lasting: it is kept where it helps; else it is for this call alone.
        has_helped: the next refusal was another one.
    """

    quirks: Mapping[str, Any]
    max_tokens: int | None
    line: str
    is_lasting: bool = True
    has_helped: bool = False


@dataclass(frozen=True, slots=True)
class LearnedQuirks:
    """Changes of one route: those that were kept, and the steps of a call that tries more.

    Attributes:
        quirks: as under ``quirks:`` in models.yaml; the entry's own win.
        max_tokens: the model's output limit, where a refusal gave it.
        lines: of a models.yaml entry, one for each change.
        steps: changes that this call has tried, in order; they are in `quirks` already.
    """

    quirks: Mapping[str, Any] = field(default_factory=dict)
    max_tokens: int | None = None
    lines: tuple[str, ...] = ()
    steps: tuple[_Step, ...] = ()
    #: Those at the start of the call.
    _kept: LearnedQuirks | None = field(default=None, repr=False, compare=False)
    #: Text of the last refusal, without the numbers that differ between requests.
    _refusal: str = field(default="", repr=False, compare=False)

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
        """Return these with one change more: the one that a refusal names, else the next simplification.

        Args:
            status: the upstream's.
            body: the upstream's response.
            sent: the body of the request that was refused.
            route: the entry of models.yaml, whose own quirks are not overridden.

        Returns:
            None where there is nothing left to change, or the call has had its retries.
        """
        if len(self.steps) >= MAX_CHANGES_PER_CALL:
            return None
        step = self._next_step(status, body, sent, route)
        if step is None:
            return None
        current = self._judged(body)
        return replace(
            current,
            quirks={**self.quirks, **step.quirks},
            max_tokens=self.max_tokens if step.max_tokens is None else step.max_tokens,
            lines=(*self.lines, step.line),
            steps=(*current.steps, step),
            _kept=self._kept or self,
            _refusal=_fingerprint(body),
        )

    def to_keep(self, refusal: bytes | None = None) -> LearnedQuirks:
        """Return what a call has shown to help.

        Args:
            refusal: the last one, where the call failed; None where the upstream accepted the request.
        """
        if self._kept is None:
            return self
        steps = self._judged(refusal).steps if refusal is not None else self.steps
        kept = self._kept
        for index, step in enumerate(steps):
            is_last = index == len(steps) - 1
            if step.is_lasting and (step.has_helped or (is_last and refusal is None)):
                kept = LearnedQuirks(
                    {**kept.quirks, **step.quirks},
                    kept.max_tokens if step.max_tokens is None else step.max_tokens,
                    (*kept.lines, step.line),
                )
        return kept

    def _judged(self, refusal: bytes) -> LearnedQuirks:
        """Return these with the last step marked as one that helped, where the refusal is another one than before."""
        if not self.steps or _fingerprint(refusal) == self._refusal:
            return self
        return replace(self, steps=(*self.steps[:-1], replace(self.steps[-1], has_helped=True)))

    def _next_step(
        self, status: int, body: bytes, sent: Mapping[str, Any], route: ModelRoute
    ) -> _Step | None:
        chosen, _ = format_for(route)
        sent = chosen.chat_terms(sent)
        limit = output_limit_for(status, body, sent)
        if limit is not None:
            return None if limit == self.max_tokens else _Step({}, limit, f"max_tokens: {limit}")
        own_rules = _RULES_OF_FORMAT.get(chosen.name)
        change = None if own_rules is None else own_rules(status, body, sent, self.quirks)
        if change is None:
            change = change_for_error(status, body, sent, self.quirks)
        if change is not None and change.quirk in route.quirks:
            return None  # the entry settles it
        if change is None or all(
            self.quirks.get(name, _UNSET) == value for name, value in change.quirks.items()
        ):
            tries_left = MAX_CHANGES_PER_CALL - len(self.steps)
            change = simplification(status, body, sent, self.quirks, route.quirks, tries_left)
        if change is None:
            return None
        change = _of_family(change, body, sent, self.quirks)
        own = {name: value for name, value in change.quirks.items() if name not in route.quirks}
        return _Step(own, None, models_yaml_line(change), change.is_lasting)


#: Rules for the refusals that one format alone has.
_RULES_OF_FORMAT = {RESPONSES.name: change_for_responses, GEMINI.name: change_for_gemini}
_UNSET = object()
_NOTHING = LearnedQuirks()
_DIGITS = re.compile(r"\d+")


def _fingerprint(body: bytes) -> str:
    return _DIGITS.sub("0", parse_error_body(body).message[:500])


#: How OpenAI refuses ``max_tokens`` for its reasoning models.
_OPENAI_REASONING = re.compile(
    r"not supported with this model\W{1,3}use '?max_completion_tokens'? instead", re.IGNORECASE
)
_SAMPLING = ("temperature", "top_p", "top_k")


def _of_family(
    change: QuirkChange, body: bytes, sent: Mapping[str, Any], known: Mapping[str, Any]
) -> QuirkChange:
    """Add what the same family of models refuses too: OpenAI's reasoning models, which take no ``max_tokens``, take no
    sampling parameters and no stop sequences either.
    """
    is_first = change.quirk == "max_tokens_field" and _OPENAI_REASONING.search(
        parse_error_body(body).message[:500]
    )
    is_later = known.get("max_tokens_field") == "max_completion_tokens" and change.quirk in (
        "sampling",
        "stop_limit",
    )
    if not (is_first or is_later):
        return change
    also: dict[str, Any] = {}
    if is_later or any(name in sent for name in _SAMPLING):
        also["sampling"] = []
    if "stop" in sent:
        also["stop_limit"] = 0
    others = tuple(QuirkChange(name, value) for name, value in also.items() if name != change.quirk)
    return QuirkChange(change.quirk, also.get(change.quirk, change.value), others)


@dataclass(frozen=True, slots=True)
class CallKind:
    """What kinds of calls learn apart: an upstream may refuse with tools, or while it thinks, what it takes without."""

    has_tools: bool = False
    thinks: bool = False

    @classmethod
    def of(cls, payload: Mapping[str, Any]) -> CallKind:
        """Return the kind of a client's request."""
        thinking = payload.get("thinking")
        thinks = isinstance(thinking, Mapping) and thinking.get("type") != "disabled"
        return cls(bool(payload.get("tools")), thinks)


@dataclass(frozen=True, slots=True)
class Kept:
    """What was learned of one kind of call of an entry.

    Attributes:
        at: when, in seconds since the epoch.
    """

    kind: CallKind
    quirks: LearnedQuirks
    at: float


class LearnedQuirkStore:
    """Learned quirks of all routes, by kind of call.

    Attributes:
        sizes: of the prompts that fit. They are apart from the quirks, because a call reads the quirks at its start
            and writes them at its end.
        refused_data: signed data of earlier turns that an upstream could not read.
    """

    __slots__ = ("_quirks", "refused_data", "sizes")

    def __init__(self) -> None:
        self._quirks: dict[tuple[str, CallKind], Kept] = {}
        self.refused_data = RefusedData()
        self.sizes = LearnedSizes()

    def of(self, route: ModelRoute, kind: CallKind, now: float) -> LearnedQuirks:
        """Return what was learned of calls of this kind; `now` in seconds since the epoch."""
        if not self._quirks:
            return _NOTHING
        kept = self._quirks.get((entry_digest(route), kind))
        return kept.quirks if kept is not None and now - kept.at < MAX_AGE_S else _NOTHING

    def kept(self, route: ModelRoute, now: float) -> list[Kept]:
        """Return all that was learned of `route`, for the user."""
        entry = entry_digest(route)
        found = [each for (other, _), each in self._quirks.items() if other == entry]
        return [each for each in found if now - each.at < MAX_AGE_S]

    def keep(self, route: ModelRoute, kind: CallKind, quirks: LearnedQuirks, now: float) -> tuple[str, ...]:
        """Keep what helped a call of this kind; return the lines that are new for the route."""
        known = {line for each in self.kept(route, now) for line in each.quirks.lines}
        entry = entry_digest(route)
        self._quirks.pop((entry, kind), None)
        if quirks.lines:
            self._quirks[entry, kind] = Kept(kind, quirks, now)
        self._trim()
        return tuple(line for line in quirks.lines if line not in known)

    def _trim(self) -> None:
        if len(self._quirks) > MAX_KEPT:
            del self._quirks[next(iter(self._quirks))]

    def to_document(self) -> dict[str, Any]:
        """Return what was learned as JSON, for a file."""
        rows = [
            {
                "entry": entry,
                "tools": kind.has_tools,
                "thinking": kind.thinks,
                "at": int(kept.at),
                "quirks": dict(kept.quirks.quirks),
                "max_tokens": kept.quirks.max_tokens,
                "lines": list(kept.quirks.lines),
            }
            for (entry, kind), kept in self._quirks.items()
        ]
        return {"learned": rows, "windows": self.sizes.to_rows()}

    def load(self, document: Any, now: float) -> None:
        """Add what `to_document` returned, if it is not too old; rows that are invalid are skipped."""
        rows = document if isinstance(document, dict) else {}
        for row in _first_rows(rows.get("learned")):
            kept = _kept_of(row)
            if kept is not None and -CLOCK_SKEW_S <= now - kept.at < MAX_AGE_S:
                self._quirks[row["entry"], kept.kind] = kept
                self._trim()
        self.sizes.load(_first_rows(rows.get("windows")), now)


def _first_rows(rows: Any) -> list[Any]:
    return rows[:MAX_KEPT] if isinstance(rows, list) else []


def _kept_of(row: Any) -> Kept | None:
    """Return a row of a file, or None where a hand or another version wrote something else."""
    types = {"entry": str, "tools": bool, "thinking": bool, "at": int, "quirks": dict, "lines": list}
    if not isinstance(row, dict) or not all(isinstance(row.get(name), kind) for name, kind in types.items()):
        return None
    limit = row.get("max_tokens")
    if not all(isinstance(line, str) for line in row["lines"]) or not (limit is None or type(limit) is int):
        return None
    try:
        for name, value in row["quirks"].items():
            read_quirk(name, value)
    except ConfigError:
        return None
    quirks = LearnedQuirks(row["quirks"], limit, tuple(row["lines"]))
    return Kept(CallKind(row["tools"], row["thinking"]), quirks, float(row["at"]))
