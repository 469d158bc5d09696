"""Differences of JSON values, and fresh ids."""

from __future__ import annotations

from typing import Any

import pytest

from proxyd.replay.diff import FreshIds, differences, shown


def test_fresh_ids() -> None:
    ids = FreshIds()
    one, other = ids.new_id("msg_"), ids.new_id("msg_")
    assert not ids.stands_for(one, "msg_short")
    assert not ids.stands_for(one, "toolu_" + "a" * 24)
    assert not ids.stands_for("msg_" + "b" * 24, "msg_" + "a" * 24)
    assert ids.stands_for(one, "msg_" + "a" * 24)
    assert ids.stands_for(one, "msg_" + "a" * 24)
    assert not ids.stands_for(one, "msg_" + "c" * 24)
    assert not ids.stands_for(other, "msg_" + "a" * 24)


@pytest.mark.parametrize(
    ("recorded", "now", "places"),
    [
        ({"a": 1, "b": [1, {"c": 2}]}, {"a": 1, "b": [1, {"c": 3}]}, ["b[1].c"]),
        ({"a": 1}, {"b": 1}, ["a", "b"]),
        ([1, 2], [1], ["[1]"]),
        ({"a": 1}, {"a": True}, ["a"]),
        ({"a": 1}, {"a": 1.0}, ["a"]),
        ({"a": None}, {}, ["a"]),
        ("x", "x", []),
    ],
)
def test_differences_have_their_paths(recorded: Any, now: Any, places: list[str]) -> None:
    assert [each.place for each in differences(recorded, now)] == places


def test_long_texts_are_shown_around_the_difference() -> None:
    recorded, now = "a" * 500 + "X" + "b" * 500, "a" * 500 + "Y" + "b" * 500
    (difference,) = differences(recorded, now)
    assert "X" in difference.recorded
    assert "Y" in difference.now
    assert len(difference.recorded) < 120
    assert len(shown({"a": "b" * 1000})) < 150
    assert "\x1b" not in shown("\x1b[31m")


def test_deeply_nested_values() -> None:
    deep: Any = 1
    for _ in range(5000):
        deep = [deep]
    other: Any = 2
    for _ in range(5000):
        other = [other]
    assert len(list(differences(deep, other))) == 1
