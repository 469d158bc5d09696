"""Names and schemas of offered tools, and repairs that fit them."""

from __future__ import annotations

from typing import Any

import pytest

from proxyd.codecs.translation.offered_tools import OfferedTools, tools_in
from tests.support.text_calls import offered


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("Bash", "Bash"),
        ("functions.Bash", "Bash"),
        ("Bash<|channel|>commentary", "Bash"),
        ("functions.Bash <|constrain|>json", "Bash"),
        ("bash", ""),
        ("Bash2", ""),
        ("", ""),
        (None, ""),
        (5, ""),
    ],
)
def test_known_name(name: Any, known: str) -> None:
    assert offered().known_name(name) == known


@pytest.mark.parametrize(
    ("arguments", "fits"),
    [
        ({"command": "ls"}, True),
        ({"command": "ls", "timeout": 5}, True),
        ({"command": "ls", "timeout": 5.0}, True),
        ({"command": "ls", "timeout": 5.5}, False),
        ({"command": "ls", "timeout": True}, False),
        ({"command": 1}, False),
        ({}, False),
        ({"command": "ls", "other": 1}, False),
        ([], False),
        ("ls", False),
    ],
)
def test_fits(arguments: Any, fits: bool) -> None:
    assert offered().fits("Bash", arguments) is fits


def test_fits_inside() -> None:
    schema = {
        "type": "object",
        "properties": {
            "items": {"type": "array", "items": {"type": "object", "required": ["a"]}},
            "kind": {"enum": ["x", "y"]},
            "either": {"anyOf": [{"type": "string"}, {"type": "null"}]},
            "any": True,
        },
    }
    tools = OfferedTools({"T": schema, "free": None})
    assert tools.fits("T", {"items": [{"a": 1}], "kind": "x", "either": None, "any": 1, "more": 1})
    assert not tools.fits("T", {"items": [{}]})
    assert not tools.fits("T", {"kind": "z"})
    assert not tools.fits("T", {"either": 5})
    assert tools.fits("free", {"a": 1})
    assert tools.property_types("T", "either") == {"string", "null"}
    assert tools.property_types("T", "kind") == tools.property_types("free", "a") == frozenset()


@pytest.mark.parametrize(
    ("text", "arguments"),
    [
        ('{"command": "ls"}', {"command": "ls"}),
        ('{"cmd": 1}', {"cmd": 1}),  # a whole object stays as it is; the client reports what is wrong
        ('"{\\"command\\": \\"ls\\"}"', {"command": "ls"}),
        ('"{\\"cmd\\": 1}"', None),
        ('"command": "ls"}', {"command": "ls"}),
        ('"cmd": "ls"}', None),
        ('command": "ls"}', None),
        ('"ls"', None),
        ("[]", None),
        ("", None),
    ],
)
def test_read_arguments(text: str, arguments: Any) -> None:
    assert offered().read_arguments("Bash", text) == arguments


def test_tools_of_a_request() -> None:
    function = {"name": "a", "parameters": {"type": "object"}}
    listed = [{"type": "function", "function": function}, {"type": "custom"}, 5, {"function": {"name": ""}}]
    assert tools_in(listed) == {"a": {"type": "object"}}
    assert not OfferedTools(tools_in([]))
