"""Request bodies for tests of the prompt cache, and parsing with and without it."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Callable
from typing import Any
from unittest import mock

import pytest

from proxyd import jsonio
from proxyd.codecs.cache import tools as tool_lists
from proxyd.errors import ClientError
from proxyd.prompt_cache import prefix as prefixes
from proxyd.prompt_cache.parser import parse_object

__all__ = ["forget", "nothing_known", "outcome_of", "parsed", "plainly", "written"]


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give the test empty caches of its own."""
    monkeypatch.setattr(prefixes, "_known", [])
    monkeypatch.setattr(tool_lists, "_known", OrderedDict())


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
    """Empty the caches, for each example of a property."""
    prefixes._known.clear()
    tool_lists._known.clear()


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
    """Parse with empty caches."""
    with mock.patch.object(prefixes, "_known", []), mock.patch.object(tool_lists, "_known", OrderedDict()):
        return parse_object(body)
