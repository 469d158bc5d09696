"""Choose the entry that serves a request: the one that was asked for, or the one that a rule hands it to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from proxyd.config.route_rules import Facts, RouteRule
from proxyd.config.routes import ModelRoute, RouteTable

__all__ = ["Choice", "choose_route", "facts_of", "rules_for"]

_IMAGE = "image"
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
        if other is not route and window is not None and facts.count_tokens() > window:
            passed_over.append(
                (rule, f"the request is larger than the window of {other.model_id!r}, {window} tokens")
            )
            continue
        return Choice(other, rule, tuple(passed_over))
    return Choice(route, None, tuple(passed_over))


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

    thinking = payload.get("thinking")
    tools = payload.get("tools")
    return Facts(
        classes=classes,
        agent_type=agent_type,
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
