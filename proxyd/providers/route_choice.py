"""Choose the entry that serves a request: the one that was asked for, or the one that a rule hands it to."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from proxyd.config.route_rules import Facts, RouteRule
from proxyd.config.routes import ModelRoute, RouteTable

__all__ = ["Choice", "can_choose_unparsed", "choose_route", "facts_of", "rules_for"]

_IMAGE = "image"
#: The part of a window that is kept for the output.
_OUTPUT_PART = 8
_THINKING = frozenset({"enabled", "adaptive"})


@dataclass(frozen=True, slots=True)
class Choice:
    """The entry that serves a request.

    Attributes:
        rule: the rule that chose it; None where it was asked for.
        passed_over: rules that match, each with the reason why it was not applied.
    """

    route: ModelRoute
    rule: RouteRule | None = None
    passed_over: tuple[tuple[RouteRule, str], ...] = ()


def rules_for(table: RouteTable, route: ModelRoute) -> tuple[RouteRule, ...]:
    """Return the rules for requests for `route`, in order."""
    return (*route.routes, *table.rules)


def choose_route(table: RouteTable, route: ModelRoute, facts: Facts) -> Choice:
    """Apply the rules for `route`. A request that is too large for the entry of a rule stays."""
    passed_over = []
    for rule in rules_for(table, route):
        if not rule.matches(facts):
            continue
        other = table.by_id(rule.use)
        window = other.max_input_tokens
        if other is not route and window is not None and _needed(facts, window) > window:
            passed_over.append(
                (rule, f"the request is larger than the window of {other.model_id!r}, {window} tokens")
            )
            continue
        return Choice(other, rule, tuple(passed_over))
    return Choice(route, None, tuple(passed_over))


def _needed(facts: Facts, window: int) -> int:
    """Return the tokens of input and some output."""
    return facts.count_tokens() + min(facts.max_tokens, window // _OUTPUT_PART)


def can_choose_unparsed(table: RouteTable, rules: Iterable[RouteRule]) -> bool:
    """Whether the rules need nothing of the body of a request."""
    return not any(rule.needs_body or table.by_id(rule.use).max_input_tokens is not None for rule in rules)


def facts_of(
    payload: Mapping[str, Any],
    classes: frozenset[str],
    agent_type: str,
    count_tokens: Callable[[], int],
) -> Facts:
    """Return the facts about a request.

    Args:
        payload: the parsed request; {} where no rule asks about the body.
        count_tokens: estimates its input; it is called once at most.
    """
    counted: list[int] = []

    def count_once() -> int:
        if not counted:
            counted.append(count_tokens())
        return counted[0]

    thinking, max_tokens = payload.get("thinking"), payload.get("max_tokens")
    tools = payload.get("tools")
    return Facts(
        classes=classes,
        agent_type=agent_type,
        max_tokens=max_tokens if isinstance(max_tokens, int) else 0,
        count_tokens=count_once,
        has_image=lambda: _has_image(payload.get("messages")),
        thinks=isinstance(thinking, Mapping) and thinking.get("type") in _THINKING,
        searches=isinstance(tools, list) and any(_is_search(tool) for tool in tools),
    )


def _is_search(tool: Any) -> bool:
    return isinstance(tool, Mapping) and str(tool.get("type", "")).startswith("web_search_")


def _has_image(content: Any) -> bool:
    """Whether messages, or the content of one, of a tool's result included, have an image."""
    return isinstance(content, list) and any(
        isinstance(part, Mapping) and (part.get("type") == _IMAGE or _has_image(part.get("content")))
        for part in content
    )
