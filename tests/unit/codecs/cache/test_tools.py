"""Cache entries of tool lists; hits by raw bytes are tested with the parser (`tests/unit/prompt_cache`)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from proxyd.codecs.cache.tools import find_tool_list, share_tools, tool_list_for
from tests.support.parsing import nothing_known

__all__ = ["nothing_known"]  # a fixture


def tools(name: str = "Read") -> list[Any]:
    return [{"name": name, "input_schema": {"type": "object"}}]


def test_equal_lists_have_one_entry() -> None:
    entry = tool_list_for(tools())
    assert tool_list_for(tools()) is entry
    assert tool_list_for(tools("Write")) is not entry


def test_derived_values_are_built_once_per_key() -> None:
    built: list[str] = []

    def build(key: str) -> str:
        built.append(key)
        return key.upper()

    for _ in range(2):
        for key in ("a", "b"):
            assert tool_list_for(tools()).cached(key, lambda key=key: build(key)) == key.upper()  # type: ignore[misc]
    assert built == ["a", "b"]


@pytest.mark.parametrize("listed", [None, [], "tools", {}])
def test_payload_without_tools_is_unchanged(listed: Any) -> None:
    payload = {"tools": listed, "system": "s"}
    share_tools(payload, json.dumps(payload).encode())
    assert payload == {"tools": listed, "system": "s"}


def test_requests_share_equal_tools_and_system_prompts() -> None:
    payloads = [{"system": "s", "tools": tools()} for _ in range(2)]
    body = json.dumps(payloads[0], separators=(",", ":")).encode()
    for payload in payloads:
        share_tools(payload, body)
    assert payloads[0]["tools"] is payloads[1]["tools"]
    assert payloads[0]["system"] is payloads[1]["system"]
    found = find_tool_list(body)
    assert found is not None
    assert found[0] is tool_list_for(tools())
    assert body[found[1] :].startswith(b'[{"name":"Read"')
