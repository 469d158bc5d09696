"""Readers of the kinds of values, and their parsing of texts."""

from __future__ import annotations

from typing import Any

import pytest

from proxyd.config import kinds
from proxyd.config.kinds import Kind

BOOLEAN, COUNT = kinds.boolean(), kinds.token_count()
SIZE, WHOLE = kinds.size_bytes(1, 1 << 30), kinds.whole_number(0, 9)
NAMES, HEADERS = kinds.names("a name", refused={"model": "not this one"}), kinds.headers()
TABLE = kinds.table("a mapping", {"a": (WHOLE, "help")})


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        (BOOLEAN, True, True),
        (COUNT, "1.5k", 1500),
        (COUNT, "1_000", 1000),
        (COUNT, 8192, 8192),
        (SIZE, "2 KiB", 2048),
        (NAMES, "one", ("one",)),
        (NAMES, ["a", "b"], ("a", "b")),
        (HEADERS, {"X-A": "b"}, {"X-A": "b"}),
        (TABLE, {"a": 3}, {"a": 3}),
    ],
)
def test_valid_values(kind: Kind, value: Any, expected: Any) -> None:
    reports: list[Any] = []
    assert kind.read(value, lambda *report: reports.append(report)) == expected
    assert reports == []


@pytest.mark.parametrize(
    ("kind", "value", "path"),
    [
        (BOOLEAN, "yes", ()),
        (COUNT, "1.0005k", ()),
        (COUNT, True, ()),
        (COUNT, 0, ()),
        (SIZE, "2 MB", ()),
        (WHOLE, 10, ()),
        (kinds.number(0, 1), float("nan"), ()),
        (NAMES, ["a", "a"], (1,)),
        (NAMES, ["model"], (0,)),
        (HEADERS, {"Host": "x"}, ("Host",)),
        (HEADERS, {"X-A": "a\r\nb: c"}, ("X-A",)),
        (TABLE, {"b": 3}, ("b",)),
        (TABLE, {"a": "x"}, ("a",)),
    ],
)
def test_invalid_values_are_reported_with_their_path(kind: Kind, value: Any, path: tuple[Any, ...]) -> None:
    reports: list[Any] = []
    kind.read(value, lambda *report: reports.append(report))
    assert [report[0] for report in reports] == [path]


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (BOOLEAN, "Yes", True),
        (BOOLEAN, "maybe", "maybe"),
        (WHOLE, "5", 5),
        (WHOLE, "five", "five"),
        (NAMES, "a, b,", ["a", "b"]),
        (kinds.json_mapping("x"), '{"a": 1}', {"a": 1}),
        (kinds.json_mapping("x"), "{", "{"),
    ],
)
def test_texts_of_flags_and_variables(kind: Kind, text: str, value: Any) -> None:
    assert kind.from_text(text) == value
