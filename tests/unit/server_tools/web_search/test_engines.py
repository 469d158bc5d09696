"""The engines: what each is asked, and what is read from its response; the responses are cut from their documents."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxyd.config.web_search import ENGINES as ADDRESSES
from proxyd.config.web_search import WebSearch
from proxyd.secret import Secret
from proxyd.server_tools.web_search.engines import ENGINES, Result
from proxyd.server_tools.web_search.kimi import MEMBERSHIP
from proxyd.server_tools.web_search.side_call import SearchCall
from tests.support.search_engines import RESPONSES

KEY = "search-engine-key-1"
CALL = SearchCall("rust news", allowed=("a.example", "b.example"), blocked=("c.example",))


def config(engine: str, **more: Any) -> WebSearch:
    return WebSearch(engine, ADDRESSES.get(engine) or "http://127.0.0.1:1", Secret(KEY), **more)


def test_every_engine_of_the_configuration_is_there() -> None:
    assert list(ENGINES) == [*ADDRESSES, MEMBERSHIP]


@pytest.mark.parametrize("name", ENGINES)
def test_the_results_of_a_recorded_response_are_read(name: str) -> None:
    found = ENGINES[name].read(RESPONSES[name])
    assert found is not None
    assert [result.url for result in found] == ["https://a.example/1", "https://b.example/2"]
    assert found[0].title == "First"
    assert "first text" in found[0].text


@pytest.mark.parametrize("name", ENGINES)
def test_the_key_goes_into_a_header_only(name: str) -> None:
    asked = ENGINES[name].request(CALL, config(name))
    assert KEY in str(asked.headers)
    assert KEY not in f"{asked.query}{asked.body}"


@pytest.mark.parametrize("name", ["searxng", "brave", "serper"])
def test_domains_are_part_of_the_query(name: str) -> None:
    asked = ENGINES[name].request(CALL, config(name))
    assert (asked.query or asked.body or {})["q"] == (
        "rust news (site:a.example OR site:b.example) -site:c.example"
    )


@pytest.mark.parametrize(
    ("name", "include", "exclude"),
    [("tavily", "include_domains", "exclude_domains"), ("exa", "includeDomains", "excludeDomains")],
)
def test_domains_are_parameters_where_the_engine_has_them(name: str, include: str, exclude: str) -> None:
    body = ENGINES[name].request(CALL, config(name)).body
    assert body is not None
    assert (body["query"], body[include], body[exclude]) == (
        "rust news",
        ["a.example", "b.example"],
        ["c.example"],
    )


def test_a_long_query_is_cut_to_what_brave_takes() -> None:
    asked = ENGINES["brave"].request(SearchCall("word " * 400), config("brave"))
    assert asked.query is not None
    assert len(asked.query["q"].split()) <= 50
    assert len(asked.query["q"]) <= 400


@pytest.mark.parametrize(("safe", "level"), [("off", "0"), ("moderate", "1"), ("strict", "2")])
def test_the_filter_of_searxng_is_a_number(safe: str, level: str) -> None:
    asked = ENGINES["searxng"].request(CALL, config("searxng", safe=safe))
    assert asked.query is not None
    assert asked.query["safesearch"] == level


def test_brave_leaves_its_list_out_where_nothing_was_found() -> None:
    assert ENGINES["brave"].read({"type": "search", "query": {"original": "x"}}) == []


@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize("response", [None, [], "text", {}, {"error": "no credit"}, {"message": "x"}])
def test_something_else_is_no_list_of_results(name: str, response: Any) -> None:
    assert ENGINES[name].read(response) is None


def test_results_without_a_web_address_are_left_out() -> None:
    results = [
        {"title": "a", "url": url} for url in ("file:///etc/passwd", "javascript:x", None, "https://a/")
    ]
    assert ENGINES["searxng"].read({"results": results}) == [Result("a", "https://a/")]


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(st.sampled_from(["results", "web", "type", "organic", "url", "title"]), inner)
        ),
        max_leaves=12,
    )
)
def test_any_response_gives_results_or_none(response: Any) -> None:
    for engine in ENGINES.values():
        found = engine.read(response)
        assert found is None or all(isinstance(result, Result) for result in found)
