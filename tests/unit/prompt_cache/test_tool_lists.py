"""Sharing of tool lists and system prompts; hits by raw bytes are tested with the parser (`test_parser`)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from proxyd.codecs.cache.tools import shared_system
from proxyd.prompt_cache.tool_lists import ToolLists


def tools(name: str = "Read") -> list[Any]:
    return [{"name": name, "input_schema": {"type": "object"}}]


@pytest.mark.parametrize("listed", [None, [], "tools", {}])
def test_payload_without_tools_is_unchanged(listed: Any) -> None:
    payload = {"tools": listed, "system": "s"}
    ToolLists().share(payload, json.dumps(payload).encode())
    assert payload == {"tools": listed, "system": "s"}


def test_requests_share_equal_tools_and_system_prompts() -> None:
    lists = ToolLists()
    payloads = [{"system": "s", "tools": tools()} for _ in range(2)]
    body = json.dumps(payloads[0], separators=(",", ":")).encode()
    for payload in payloads:
        lists.share(payload, body)
    assert payloads[0]["tools"] is payloads[1]["tools"]
    assert payloads[0]["system"] is payloads[1]["system"]
    system = shared_system(payloads[1])
    assert system is not None
    assert system.value == "s"
    found = lists.find(body)
    assert found is not None
    assert found[0] is payloads[0]["tools"]
    assert body[found[1] :].startswith(b'[{"name":"Read"')
    lists.clear()
    assert lists.find(body) is None
