"""The one object that the daemon owns: on, off, and turned off."""

from __future__ import annotations

import json
from typing import Any

from proxyd.codecs.cache.tools import ToolList
from proxyd.prompt_cache.cache import PromptCache
from proxyd.prompt_cache.parser import parse_request
from tests.support.parsing import written

PAYLOAD = {
    "model": "m",
    "messages": [{"role": "user", "content": "x" * 400}] * 12,
    "system": "s",
    "tools": [{"name": "Read", "description": "y" * 400, "input_schema": {"type": "object"}}],
}
BODY = written(PAYLOAD)


def kept(cache: PromptCache, times: int = 3) -> dict[str, Any]:
    payload: dict[str, Any] = {}
    for _ in range(times):
        payload = parse_request(BODY, cache)[0]
        assert payload == json.loads(BODY)
        cache.keep(payload, BODY)
    return payload


def test_two_caches_know_nothing_of_each_other() -> None:
    one, other = PromptCache(), PromptCache()
    assert kept(one)["tools"] is kept(one)["tools"]
    assert kept(one)["tools"] is not kept(other)["tools"]
    assert one.prefixes.find(BODY) is not None
    assert PromptCache().prefixes.find(BODY) is None


def test_off_keeps_nothing() -> None:
    cache = PromptCache(is_on=False)
    payload = kept(cache)
    assert isinstance(payload["tools"], ToolList), "what is derived of it serves this request"
    assert kept(cache)["tools"] is not payload["tools"]
    assert (cache.prefixes.find(BODY), cache.tool_lists.find(BODY)) == (None, None)


def test_turned_off_it_forgets_at_once() -> None:
    cache = PromptCache()
    kept(cache)
    cache.switch(is_on=False)
    assert (cache.prefixes.find(BODY), cache.tool_lists.find(BODY)) == (None, None)
