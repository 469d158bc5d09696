"""Positions, types and limits of the YAML parser. Its fault texts are tested in test_models.py."""

from __future__ import annotations

from typing import Any

import pytest

from proxyd.config.faults import Faults
from proxyd.config.yaml import read_tree
from proxyd.errors import ConfigError


def parse(text: str) -> Any:
    faults = Faults("f")
    tree = read_tree(text, faults)
    faults.raise_if_any()
    return None if tree is None else tree.plain()


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a: 1_000", {"a": 1000}),
        ("a: 0o17", {"a": 15}),
        ("a: 010", {"a": 10}),
        ("a: 1.5", {"a": 1.5}),
        ("a: 2020-01-01", {"a": "2020-01-01"}),
        ("a: [true, null, x]", {"a": [True, None, "x"]}),
        ("x: &b {p: 1}\ny: {<<: *b, q: 2}", {"x": {"p": 1}, "y": {"p": 1, "q": 2}}),
        ("", None),
    ],
)
def test_values_have_the_types_of_json(text: str, value: Any) -> None:
    assert parse(text) == value


def test_positions_of_values_and_keys() -> None:
    tree = read_tree("a:\n  - b: 1\n", Faults("f"))
    assert tree is not None
    assert tree.place(("a", 0, "b")) == (2, 8)
    assert tree.place(("a", 0, "b"), on_key=True) == (2, 5)
    assert tree.place(("a", 7, "z")) == (2, 3)


@pytest.mark.parametrize("text", ["a: !!python/object:os.system x", "a: 1\na: 2", "? [a]\n: b", "a: .inf"])
def test_faults(text: str) -> None:
    with pytest.raises(ConfigError):
        parse(text)
