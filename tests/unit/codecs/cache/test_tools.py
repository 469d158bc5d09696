"""Tool lists with derived values; sharing between requests is tested in `tests/unit/prompt_cache`."""

from __future__ import annotations

import json
from typing import Any

from proxyd import jsonio
from proxyd.codecs.cache.tools import ToolList, shared_system, tool_list_for


def tools(name: str = "Read") -> list[Any]:
    return [{"name": name, "input_schema": {"type": "object"}}]


def test_derived_values_are_built_once_per_list_and_key() -> None:
    built: list[str] = []

    def build(key: str) -> str:
        built.append(key)
        return key.upper()

    shared = ToolList(tools())
    for _ in range(2):
        for key in ("a", "b"):
            assert tool_list_for(shared).cached(key, lambda key=key: build(key)) == key.upper()  # type: ignore[misc]
    assert built == ["a", "b"]
    assert tool_list_for(tools()).cached("a", lambda: build("a")) == "A"
    assert built == ["a", "b", "a"], "another request's list has values of its own"


def test_it_is_the_list_that_it_stands_for() -> None:
    assert ToolList(tools()) == tools()
    assert jsonio.dumps(ToolList(tools())) == json.dumps(tools(), separators=(",", ":")).encode()


def test_system_prompt_of_an_unshared_request_is_unknown() -> None:
    assert shared_system({"system": "s", "tools": tools()}) is None
    assert shared_system({"system": "s", "tools": ToolList(tools())}) is None
