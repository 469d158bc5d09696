"""Request bodies for tests of the prompt cache, and parsing with and without it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from proxyd import jsonio
from proxyd.daemon import server
from proxyd.errors import ClientError
from proxyd.prompt_cache.cache import PromptCache
from proxyd.prompt_cache.parser import parse_object, parse_request

__all__ = ["cache", "forget", "nothing_known", "outcome_of", "parse", "parsed", "plainly", "written"]


#: The cache of the test that runs.
cache = PromptCache()


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the test begin with an empty cache, which its daemon has, too."""
    forget()
    monkeypatch.setattr(server, "PromptCache", lambda: cache)


def parse(body: bytes) -> dict[str, Any]:
    """Parse with the cache."""
    return parse_request(body, cache)[0]


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Record the texts that are parsed from now on."""
    seen: list[bytes] = []
    loads = jsonio.loads

    def recording_loads(data: bytes, **limits: Any) -> Any:
        seen.append(data)
        return loads(data, **limits)

    monkeypatch.setattr(jsonio, "loads", recording_loads)
    return seen


def forget() -> None:
    """Empty the cache, for each example of a property."""
    cache.switch(is_on=False)
    cache.switch(is_on=True)


def written(payload: Any, **more: Any) -> bytes:
    """JSON as Claude Code writes it, unless `more` says otherwise."""
    return json.dumps(payload, **{"ensure_ascii": False, "separators": (",", ":"), **more}).encode()


def outcome_of(parse: Callable[[bytes], Any], body: bytes) -> str:
    """Return the result of `parse`, or its error."""
    try:
        return repr(parse(body))
    except ClientError as exc:
        return f"refused: {exc.message}"


def plainly(body: bytes) -> Any:
    """Parse without the cache."""
    return parse_object(body)
