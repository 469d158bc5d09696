"""References, ``allOf``, root combinators and the strict subset of JSON Schema."""

from __future__ import annotations

from typing import Any

import pytest

from proxyd.codecs.translation.json_schema import (
    fits_strict,
    flatten_root,
    implied_type,
    merge_all_of,
    resolve_reference,
    rewrite,
)

TEXT = {"type": "string"}


@pytest.mark.parametrize(
    ("reference", "target"),
    [
        ("#/$defs/a", TEXT),
        ("#/$defs/with~1slash", TEXT),
        ("#/$defs/none", None),
        ("#/$defs/a/type", None),
        ("https://example.org", None),
    ],
)
def test_references(reference: str, target: Any) -> None:
    assert resolve_reference({"$defs": {"a": TEXT, "with/slash": TEXT}}, reference) == target


def test_own_keywords_precede_all_of() -> None:
    schema = {
        "description": "own",
        "required": ["a"],
        "properties": {"a": TEXT},
        "allOf": [{"description": "other", "required": ["b"], "properties": {"b": TEXT}}, "no schema"],
    }
    assert merge_all_of(schema) == {
        "description": "own",
        "required": ["a", "b"],
        "properties": {"a": TEXT, "b": TEXT},
    }


@pytest.mark.parametrize(
    ("schema", "flat"),
    [
        ({"type": "object"}, {"type": "object"}),
        ({"$ref": "#"}, {}),
        (
            {
                "type": "object",
                "anyOf": [
                    {"properties": {"a": TEXT, "b": TEXT}, "required": ["a", "b"]},
                    {"properties": {"a": {"type": "number"}}, "required": ["a"]},
                ],
            },
            {
                "type": "object",
                "properties": {"a": {"anyOf": [TEXT, {"type": "number"}]}, "b": TEXT},
                "required": ["a"],
            },
        ),
    ],
)
def test_root_is_flattened(schema: dict[str, Any], flat: dict[str, Any]) -> None:
    assert flatten_root(schema) == flat


@pytest.mark.parametrize(
    ("schema", "kind"),
    [({"pattern": "a"}, "string"), ({"minItems": 1}, "array"), ({"required": []}, "object"), ({}, None)],
)
def test_implied_type(schema: dict[str, Any], kind: str | None) -> None:
    assert implied_type(schema) == kind


def test_rewrite_copies_only_what_changes() -> None:
    schema = {"properties": {"title": TEXT, "b": {"items": {"title": "gone"}}}}
    unchanged = rewrite(schema, lambda node, _: node)
    assert unchanged is schema
    untitled = rewrite(schema, lambda node, _: {k: v for k, v in node.items() if k != "title"})
    assert untitled == {"properties": {"title": TEXT, "b": {"items": {}}}}
    assert schema["properties"]["b"] == {"items": {"title": "gone"}}


CLOSED = {
    "type": "object",
    "properties": {"a": {"type": "string"}},
    "required": ["a"],
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    ("schema", "fits"),
    [
        (CLOSED, True),
        ({"type": "string"}, True),
        ({**CLOSED, "required": []}, False),
        ({**CLOSED, "additionalProperties": True}, False),
        ({key: value for key, value in CLOSED.items() if key != "additionalProperties"}, False),
        ({"type": "array", "items": CLOSED}, True),
        ({"type": "array", "items": {"type": "object"}}, False),
        ({"anyOf": [CLOSED, {"type": "object"}]}, False),
        ({**CLOSED, "$defs": {"x": {"type": "object"}}}, False),
        ({**CLOSED, "allOf": []}, False),
        ({**CLOSED, "properties": {"a": {"type": "object"}}}, False),
    ],
)
def test_strict_subset(schema: dict[str, Any], fits: bool) -> None:
    assert fits_strict(schema) is fits
