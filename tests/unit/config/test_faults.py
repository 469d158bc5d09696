"""Collection and display of configuration faults."""

from __future__ import annotations

from typing import Any

import pytest

from proxyd.config.faults import MAX_SHOWN, Fault, Faults, hint, shown
from proxyd.errors import ConfigError, UnsafePermissions


def test_faults_are_sorted_by_position_and_reported_once() -> None:
    faults = Faults("f.yaml")
    faults.add(2, 1, "b", "second")
    faults.add(1, 5, "a", "first")
    faults.add(0, 0, "", "whole file")
    faults.add(2, 1, "b", "second")
    with pytest.raises(ConfigError) as caught:
        faults.raise_if_any()
    assert caught.value.message.splitlines() == [
        "f.yaml: whole file",
        "f.yaml:1:5: a: first",
        "f.yaml:2:1: b: second",
    ]


def test_permissions_alone_raise_their_own_error() -> None:
    faults = Faults("f.yaml")
    faults.raise_if_any()
    faults.add(0, 0, "", "open", is_permission=True)
    with pytest.raises(UnsafePermissions):
        faults.raise_if_any()


def test_a_line_break_in_a_subject_is_escaped() -> None:
    assert Fault(1, 1, "a\nb", "c").shown_in("f") == "f:1:1: a\\nb: c"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "nothing"),
        (True, "true"),
        ([1], "a list"),
        ({"a": 1}, "a mapping"),
        ("", "an empty text"),
        (5, "5"),
        ("x", "'x'"),
        ("k" * 99, f"'{'k' * MAX_SHOWN}…'"),
    ],
)
def test_shown(value: Any, text: str) -> None:
    assert shown(value) == text


def test_hint() -> None:
    assert hint("prot", ["host", "port"]) == "did you mean 'port'?"
    assert hint("zzz", ["host", "port"]) == "known are host, port"
    assert hint("zzz", []) == "there is none to name"
