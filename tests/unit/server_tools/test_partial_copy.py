"""Only the containers on the way to a change are copied, each once."""

from __future__ import annotations

import copy
from typing import Any

from proxyd.server_tools.partial_copy import PartialCopy


def test_the_original_stays_and_the_rest_is_shared() -> None:
    original: dict[str, Any] = {"a": [{"b": 1}, {"c": [2]}], "d": {"e": 3}}
    before = copy.deepcopy(original)
    partial = PartialCopy(original)
    partial.at(("a", 1))["c"] = "new"
    assert partial.value == {"a": [{"b": 1}, {"c": "new"}], "d": {"e": 3}}
    assert original == before
    assert partial.value["d"] is original["d"]
    assert partial.value["a"][0] is original["a"][0]


def test_a_second_change_beside_the_first_keeps_it() -> None:
    original: dict[str, Any] = {"a": [{"b": 1}, {"c": 2}]}
    partial = PartialCopy(original)
    partial.at(("a", 0))["b"] = 5
    node = partial.at(("a",))
    assert partial.at(("a",)) is node
    partial.at(("a", 1))["c"] = 6
    assert partial.value == {"a": [{"b": 5}, {"c": 6}]}
    assert original == {"a": [{"b": 1}, {"c": 2}]}


def test_the_root_is_a_copy() -> None:
    original = {"a": 1}
    partial = PartialCopy(original)
    partial.at(())["a"] = 2
    assert (original, partial.value) == ({"a": 1}, {"a": 2})
