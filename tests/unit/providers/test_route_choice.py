"""Which entry serves a request: the rules of its entry first, then those of the file, the first match."""

from __future__ import annotations

from typing import Any

import pytest

from proxyd.config.route_rules import RouteRule
from proxyd.config.routes import ModelRoute, RouteTable
from proxyd.providers.route_choice import Choice, choose_route, facts_of

IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "x"}}


def entry(name: str, *rules: RouteRule, window: int | None = None) -> ModelRoute:
    return ModelRoute(name, "builtin:demo", name, max_input_tokens=window, routes=rules)


SUBAGENTS = RouteRule("models[0].routes[0]", "small", classes=("subagent",))
STAY = RouteRule("models[1].routes[0]", "quiet", classes=("main",))
IMAGES = RouteRule("routes[0]", "eyes", has_image=True)
COMPACTION = RouteRule("routes[1]", "small", classes=("compaction",))
TABLE = RouteTable(
    (entry("big", SUBAGENTS), entry("quiet", STAY), entry("small", window=1000), entry("eyes")),
    rules=(IMAGES, COMPACTION),
)


def chosen(
    name: str, *classes: str, payload: dict[str, Any] | None = None, tokens: int = 10, agent: str = ""
) -> Choice:
    facts = facts_of(payload or {}, frozenset(classes), agent, lambda: tokens)
    return choose_route(TABLE, TABLE.by_id(name), facts)


def with_image(content: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": content}]}


@pytest.mark.parametrize(
    ("name", "classes", "payload", "expected", "rule"),
    [
        ("big", ("main",), {}, "big", None),
        ("big", ("subagent",), {}, "small", SUBAGENTS),
        ("quiet", ("subagent",), {}, "quiet", None),
        ("quiet", ("main",), with_image([IMAGE]), "quiet", STAY),
        ("quiet", ("subagent",), with_image([IMAGE]), "eyes", IMAGES),
        ("big", ("subagent",), with_image([IMAGE]), "small", SUBAGENTS),
        ("big", ("compaction",), {}, "small", COMPACTION),
        ("small", ("subagent",), {}, "small", None),
    ],
)
def test_the_first_match_decides(
    name: str, classes: tuple[str, ...], payload: dict[str, Any], expected: str, rule: RouteRule | None
) -> None:
    choice = chosen(name, *classes, payload=payload)
    assert (choice.route.model_id, choice.rule) == (expected, rule)


def test_a_request_above_the_window_of_a_rule_stays() -> None:
    choice = chosen("big", "compaction", tokens=1001)
    assert choice.route.model_id == "big"
    assert choice.rule is None
    ((rule, reason),) = choice.passed_over
    assert rule is COMPACTION
    assert reason == "the request is larger than the window of 'small', 1000 tokens"
    assert chosen("big", "compaction", tokens=1000).route.model_id == "small"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ([IMAGE], True),
        (
            [{"type": "tool_result", "tool_use_id": "t", "content": [{"type": "text", "text": "x"}, IMAGE]}],
            True,
        ),
        ([{"type": "text", "text": "image"}], False),
        ("image", False),
        (None, False),
    ],
)
def test_images_are_found_in_results_of_tools_too(content: Any, expected: bool) -> None:
    assert facts_of(with_image(content), frozenset(), "", int).has_image() is expected


@pytest.mark.parametrize(
    ("payload", "thinks", "searches"),
    [
        ({"thinking": {"type": "adaptive"}}, True, False),
        ({"thinking": {"type": "enabled", "budget_tokens": 1024}}, True, False),
        ({"thinking": {"type": "disabled"}}, False, False),
        ({"tools": [{"type": "web_search_20250305"}]}, False, True),
        ({"tools": [{"name": "web_search"}]}, False, False),
        ({"tools": "x", "thinking": 1}, False, False),
    ],
)
def test_thinking_and_search_are_read_from_the_request(
    payload: dict[str, Any], thinks: bool, searches: bool
) -> None:
    facts = facts_of(payload, frozenset(), "", int)
    assert (facts.thinks, facts.searches) == (thinks, searches)


def test_tokens_are_counted_once() -> None:
    counts: list[int] = []

    def count() -> int:
        counts.append(1)
        return 500

    facts = facts_of({}, frozenset({"compaction"}), "", count)
    assert facts.count_tokens() == facts.count_tokens() == 500
    assert len(counts) == 1
