"""Rules of models.yaml: what they match, and where their faults are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from proxyd.config.models import Config, load_text
from proxyd.config.route_rules import Facts, RouteRule
from proxyd.daemon.configuration import checks
from proxyd.errors import ConfigError

ENTRIES = (
    "models:\n"
    "  - model_id: big\n"
    "    api_base: builtin:demo\n"
    "    routes:\n"
    "      - when: {FIRST}\n"
    "        use: small\n"
    "  - model_id: small\n"
    "    api_base: builtin:demo\n"
)


def read(text: str) -> Config:
    return load_text(text, Path("m.yaml"), {}, checks=checks())


def faults(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        read(text)
    return caught.value.message.splitlines()


def rule(**conditions: Any) -> RouteRule:
    return RouteRule("routes[0]", "small", **conditions)


def facts(*classes: str, **more: Any) -> Facts:
    return Facts(frozenset(classes or ("main",)), **more)


@pytest.mark.parametrize(
    ("conditions", "seen", "expected"),
    [
        ({}, facts(), True),
        ({"classes": ("subagent", "compaction")}, facts("compaction"), True),
        ({"classes": ("subagent",)}, facts("main"), False),
        ({"classes": ("auxiliary",)}, facts("auxiliary", "title"), True),
        ({"classes": ("title",)}, facts("auxiliary", "title"), True),
        ({"classes": ("title",)}, facts("auxiliary", "search"), False),
        ({"agent_type": ("Explore",)}, facts("subagent", agent_type="Explore"), True),
        ({"agent_type": ("Expl*", "Plan")}, facts("subagent", agent_type="Explore"), True),
        ({"agent_type": ("explore",)}, facts("subagent", agent_type="Explore"), False),
        ({"agent_type": ("*",)}, facts(), True),
        ({"over_tokens": 100}, facts(count_tokens=lambda: 101), True),
        ({"over_tokens": 100}, facts(count_tokens=lambda: 100), False),
        ({"has_image": True}, facts(has_image=lambda: True), True),
        ({"has_image": False}, facts(has_image=lambda: True), False),
        ({"thinking": True}, facts(thinks=True), True),
        ({"thinking": False}, facts(), True),
        ({"web_search": True}, facts(), False),
        ({"web_search": True, "classes": ("main",)}, facts(searches=True), True),
        ({"web_search": True, "classes": ("subagent",)}, facts(searches=True), False),
    ],
)
def test_all_conditions_of_a_rule_must_hold(conditions: dict[str, Any], seen: Facts, expected: bool) -> None:
    assert rule(**conditions).matches(seen) is expected


def test_nothing_is_counted_where_another_condition_fails() -> None:
    def count() -> int:
        raise AssertionError("an estimate of a large request takes milliseconds")

    assert not rule(classes=("subagent",), over_tokens=1, has_image=None).matches(facts(count_tokens=count))


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        ({}, False),
        ({"classes": ("main",), "agent_type": ("x",)}, False),
        ({"over_tokens": 1}, True),
        ({"has_image": False}, True),
        ({"thinking": True}, True),
        ({"web_search": True}, True),
    ],
)
def test_rules_say_whether_they_need_the_body(conditions: dict[str, Any], expected: bool) -> None:
    assert rule(**conditions).needs_body is expected


def test_rules_of_entries_and_of_the_file_are_read() -> None:
    text = ENTRIES.replace(
        "{FIRST}", "{class: [subagent, title], agent_type: Explore, over_tokens: 100k}"
    ) + (
        "routes:\n  - {when: {has_image: true, thinking: false, web_search: true}, use: small}\n  - {use: big}\n"
    )
    table = read(text).table
    assert table.routes[0].routes == (
        RouteRule(
            "models[0].routes[0]",
            "small",
            classes=("subagent", "title"),
            agent_type=("Explore",),
            over_tokens=100_000,
        ),
    )
    assert table.rules == (
        RouteRule("routes[0]", "small", has_image=True, thinking=False, web_search=True),
        RouteRule("routes[1]", "big"),
    )
    described = [each.describe() for each in (*table.routes[0].routes, *table.rules)]
    assert described == [
        "class subagent or title, agent Explore, over 100000 tokens",
        "with images, without thinking, with web search",
        "everything",
    ]


@pytest.mark.parametrize(
    ("when", "expected"),
    [
        (
            "{class: titles}",
            "m.yaml:5:23: models[0].routes[0].when.class: 'titles' is no class; did you mean 'title'?",
        ),
        (
            "{class: [main, titles]}",
            "m.yaml:5:30: models[0].routes[0].when.class[1]: 'titles' is no class; did you mean 'title'?",
        ),
        (
            "{over_tokens: many}",
            "m.yaml:5:29: models[0].routes[0].when.over_tokens: expected a token count above 0 such as 8192, 8_192, "
            "8k or 1.5m; got 'many'",
        ),
        (
            "{has_image: 1}",
            "m.yaml:5:27: models[0].routes[0].when.has_image: expected true or false; got 1",
        ),
        (
            "{image: true}",
            "m.yaml:5:16: models[0].routes[0].when.image: unknown key; did you mean 'has_image'?",
        ),
        (
            "[main]",
            "m.yaml:5:15: models[0].routes[0].when: expected a mapping of conditions; got a list",
        ),
    ],
)
def test_a_faulty_condition_has_its_line_and_column(when: str, expected: str) -> None:
    assert faults(ENTRIES.replace("{FIRST}", when))[0] == expected


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (
            "routes:\n  - {when: {class: main}, use: smallest}\n",
            "m.yaml:10:32: routes[0].use: no entry has the model_id 'smallest'; did you mean 'small'?",
        ),
        (
            "    routes: [{use: huge}]\n",
            "m.yaml:9:20: models[1].routes[0].use: no entry has the model_id 'huge'; known are big, small",
        ),
        (
            "routes:\n  - {when: {class: main}}\n",
            "m.yaml:10:5: routes[0]: use is missing; name the entry that serves",
        ),
        ("routes: {use: big}\n", "m.yaml:9:9: routes: expected a list of rules such as"),
        ("routes: [big]\n", "m.yaml:9:10: routes[0]: expected a rule such as"),
        (
            "    routes: [{when: {class: [auxiliary, title]}, use: big}]\n",
            "m.yaml:6:14: models[0].routes[0].use: leads back to 'big' by models[1].routes[0]; a request is "
            "handed over once, so give one of the two another condition",
        ),
    ],
)
def test_a_rule_that_leads_nowhere_or_back_is_a_fault(more: str, expected: str) -> None:
    first = "{class: search, web_search: true}" if "title]" not in more else "{class: title}"
    assert faults(ENTRIES.replace("{FIRST}", first) + more)[0].startswith(expected)


def test_a_loop_over_three_entries_is_found_and_one_that_cannot_be_walked_is_none() -> None:
    def text(first: str, second: str, third: str) -> str:
        entries = [("a", first, "b"), ("b", second, "c"), ("c", third, "a")]
        return "".join(
            f"- {{model_id: {name}, api_base: 'builtin:demo', routes: [{{when: {when}, use: {use}}}]}}\n"
            for name, when, use in entries
        )

    assert len(faults(text("{class: main}", "{has_image: true}", "{thinking: true}"))) == 3
    read(text("{class: main}", "{has_image: true}", "{class: subagent}"))
    read(text("{thinking: true}", "{has_image: true}", "{thinking: false}"))


def test_a_rule_may_name_its_own_entry_to_stay() -> None:
    text = "- {model_id: a, api_base: 'builtin:demo', routes: [{when: {class: main}, use: a}]}\n"
    assert read(text).table.routes[0].routes[0].use == "a"
