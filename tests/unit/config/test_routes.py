"""Resolution of model ids to routes, and prices."""

from __future__ import annotations

from typing import Any

import pytest

from proxyd.codecs.anthropic.usage import Usage
from proxyd.config.routes import ModelRoute, Pricing, RouteTable


def route(model_id: str, **more: Any) -> ModelRoute:
    return ModelRoute(model_id=model_id, model_name=model_id, api_base="https://api.example.com", **more)


TABLE = RouteTable(
    (
        route("glob", aliases=("claude-haiku-*", "x?", "*-any")),
        route("exact", aliases=("claude-haiku-5", "lit[1m]", "[ab]c")),
        route("later", aliases=("claude-haiku-4*", "claude-haiku-5")),
        route("Big[1m]"),
    ),
    discovery_prefix="claude-proxy/",
)


@pytest.mark.parametrize(
    ("model", "found"),
    [
        ("exact", "exact"),
        ("exact[1m]", "exact"),
        ("exact[1M]", "exact"),
        ("Big[1m]", "Big[1m]"),
        ("Big", None),
        ("claude-haiku-5", "exact"),
        ("claude-haiku-5[1m]", "exact"),
        ("claude-haiku-4-5", "glob"),
        ("Claude-haiku-4-5", None),
        ("lit[1m]", "exact"),
        ("litm", "exact"),
        ("bc", "exact"),
        ("xy", "glob"),
        ("xyz", None),
        ("later-any", "glob"),
        ("later-any[1m]", "glob"),
        ("claude-proxy/later", "later"),
        ("claude-proxy/later[1m]", "later"),
        ("claude-proxy/Big[1m]", "Big[1m]"),
        ("claude-proxy/nothing", None),
        ("claude-proxy/", None),
        ("", None),
        ("[1m]", None),
    ],
)
def test_resolve(model: str, found: str | None) -> None:
    result = TABLE.resolve(model)
    assert (result.model_id if result else None) == found


def test_a_prefixed_id_wins_over_a_glob_and_loses_to_an_id() -> None:
    table = RouteTable((route("c/a", aliases=("c/*",)), route("a"), route("b")), discovery_prefix="c/")
    assert [table.resolve(name) for name in ("c/a", "c/b", "c/x")] == [table.routes[n] for n in (0, 2, 0)]


def test_listed_ids_resolve_back() -> None:
    table = RouteTable((route("gpt"), route("claude-x"), route("My-Anthropic")))
    assert [name for name, _ in table.listed()] == ["gpt", "claude-x", "My-Anthropic"]
    table = table.with_discovery_prefix("claude/")
    assert [name for name, _ in table.listed()] == ["gpt", "claude/gpt", "claude-x", "My-Anthropic"]
    assert all(table.resolve(name) is found for name, found in table.listed())
    assert table.with_discovery_prefix("claude/") is table


def test_fallbacks_go_on_through_cycles_and_name_each_entry_once() -> None:
    table = RouteTable(
        (
            route("a", fallback=("b", "d")),
            route("b", fallback=("c", "a")),
            route("c", fallback=("b",)),
            route("d"),
        )
    )
    assert [found.model_id for found in table.fallbacks(table.routes[0])] == ["b", "d", "c"]
    assert [found.model_id for found in table.fallbacks(table.routes[2])] == ["b", "a", "d"]
    assert table.fallbacks(table.routes[3]) == ()


@pytest.mark.parametrize(
    ("pricing", "cost"),
    [
        (Pricing(input=2, output=10), (100 + 20 + 40) * 2 + 30 * 10),
        (Pricing(input=2, output=10, cache_read=1, cache_write=3), 100 * 2 + 20 * 1 + 40 * 3 + 30 * 10),
        (Pricing(input=2), None),
        (Pricing(output=10), None),
    ],
)
def test_cost_of_usage(pricing: Pricing, cost: float | None) -> None:
    usage = Usage(input_tokens=100, output_tokens=30, cache_read_tokens=20, cache_write_tokens=40)
    assert pricing.cost_of(usage) == (None if cost is None else pytest.approx(cost / 1_000_000))


def test_repr_of_a_route_shows_no_header_values() -> None:
    assert "abc" not in repr(route("m", extra_headers={"authorization": "Bearer abc"}))
