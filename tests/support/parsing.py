"""Bodies, and what becomes of them where something of them is known and where nothing is."""

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
    """What other tests have taught is put aside, and what this one teaches is forgotten."""
    monkeypatch.setattr(prefixes, "_known", [])
    monkeypatch.setattr(tool_lists, "_known", OrderedDict())


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """What is given to the parser from here on."""
    seen: list[bytes] = []
    loads = jsonio.loads

    def watched(data: bytes) -> Any:
        seen.append(data)
        return loads(data)

    monkeypatch.setattr(jsonio, "loads", watched)
    return seen


def forget() -> None:
    """Begin anew: each example of a property does."""
    prefixes._known.clear()
    tool_lists._known.clear()


def written(payload: Any, **more: Any) -> bytes:
    """JSON as Claude Code writes it, unless `more` says otherwise."""
    return json.dumps(payload, **{"ensure_ascii": False, "separators": (",", ":"), **more}).encode()


def outcome_of(parse: Callable[[bytes], Any], body: bytes) -> str:
    """What `parse` gives, or why it refuses."""
    try:
        return repr(parse(body))
    except ClientError as exc:
        return f"refused: {exc.message}"


def plainly(body: bytes) -> Any:
    """As it would be, were nothing known."""
    with mock.patch.object(prefixes, "_known", []), mock.patch.object(tool_lists, "_known", OrderedDict()):
        return parse_object(body)
