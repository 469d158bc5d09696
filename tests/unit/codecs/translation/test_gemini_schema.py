"""Schemas are narrowed to Gemini's subset, and property names are never taken for keywords."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxyd.codecs.translation.gemini_schema import narrow_for_gemini

KEYWORDS = [
    "format",
    "title",
    "default",
    "const",
    "enum",
    "type",
    "properties",
    "items",
    "$ref",
    "required",
    "anyOf",
]
TYPES = st.sampled_from(["string", "integer", "object", "array", "null", "odd"])
SCHEMAS: st.SearchStrategy[Any] = st.recursive(
    st.booleans() | st.fixed_dictionaries({"type": TYPES}),
    lambda inner: st.fixed_dictionaries(
        {},
        optional={
            "type": TYPES | st.lists(TYPES, max_size=3),
            "properties": st.dictionaries(st.sampled_from(KEYWORDS), inner, max_size=4),
            "required": st.lists(st.sampled_from(KEYWORDS), max_size=3),
            "items": inner,
            "anyOf": st.lists(inner, max_size=3),
            "oneOf": st.lists(inner, max_size=3),
            "allOf": st.lists(inner, max_size=3),
            "$ref": st.sampled_from(["#", "#/$defs/a", "#/nowhere", "https://example.org"]),
            "$defs": st.dictionaries(st.sampled_from(["a", "b"]), inner, max_size=2),
            "enum": st.lists(st.sampled_from(["a", "", 1, None])),
            "format": st.sampled_from(["uri", "date-time"]),
            "additionalProperties": inner,
            "exclusiveMinimum": st.integers(),
        },
    ),
    max_leaves=12,
)
GEMINI = {
    "title", "description", "nullable", "maxItems", "minItems", "minProperties", "maxProperties", "minLength",
    "maxLength", "pattern", "minimum", "maximum", "default", "type", "enum", "anyOf", "format", "properties",
    "required", "items",
}  # fmt: skip


def assert_known_to_gemini(schema: Any) -> None:
    assert schema.keys() <= GEMINI
    assert schema.get("type") in (None, "string", "number", "integer", "boolean", "array", "object")
    assert set(schema.get("required", [])) <= set(schema.get("properties", {}))
    assert all(isinstance(value, str) and value for value in schema.get("enum", []))
    assert schema.get("type") != "array" or schema["items"]
    children = [*schema.get("properties", {}).values(), *schema.get("anyOf", [])]
    for child in (*children, schema["items"]) if "items" in schema else children:
        assert_known_to_gemini(child)


@given(SCHEMAS.filter(lambda schema: isinstance(schema, dict)))
def test_any_schema_becomes_valid_for_gemini(schema: dict[str, Any]) -> None:
    before = copy.deepcopy(schema)
    assert_known_to_gemini(narrow_for_gemini(schema))
    assert schema == before


@pytest.mark.parametrize("name", KEYWORDS)
def test_a_property_named_like_a_keyword_is_kept(name: str) -> None:
    schema = {
        "type": "object",
        "properties": {name: {"type": "string", "description": "d"}},
        "required": [name],
    }
    assert narrow_for_gemini(schema) == schema


@pytest.mark.parametrize(
    ("schema", "narrowed"),
    [
        ({"type": ["string", "null"]}, {"type": "string", "nullable": True}),
        ({"type": ["string", "integer"]}, {"anyOf": [{"type": "string"}, {"type": "integer"}]}),
        ({"const": "a"}, {"type": "string", "enum": ["a"]}),
        ({"const": 1}, {}),
        ({"enum": ["a", "", 2]}, {"type": "string", "enum": ["a"]}),
        ({"type": "string", "format": "uri"}, {"type": "string"}),
        ({"type": "string", "format": "date-time"}, {"type": "string", "format": "date-time"}),
        (
            {"type": "integer", "exclusiveMinimum": 0, "exclusiveMaximum": 9},
            {"type": "integer", "minimum": 1, "maximum": 8},
        ),
        ({"type": "number", "exclusiveMinimum": 0}, {"type": "number", "minimum": 0}),
        ({"type": "array"}, {"type": "array", "items": {"type": "string"}}),
        ({"oneOf": [{"type": "string"}, {"type": "null"}]}, {"type": "string", "nullable": True}),
        (
            {"anyOf": [{"type": "string"}, {"const": "a"}]},
            {"anyOf": [{"type": "string"}, {"type": "string", "enum": ["a"]}]},
        ),
        ({"anyOf": [{"type": "null"}]}, {"nullable": True}),
        ({"anyOf": [{}, {"type": "string"}], "description": "d"}, {"type": "string", "description": "d"}),
        ({"allOf": [{"$ref": "#/$defs/a"}], "$defs": {"a": {"type": "boolean"}}}, {"type": "boolean"}),
        ({"$ref": "#/$defs/a~1b", "$defs": {"a/b": {"type": "boolean"}}}, {"type": "boolean"}),
        (
            {"properties": {"n": {"$ref": "#"}}},
            {
                "type": "object",
                "properties": {"n": {"type": "object", "properties": {"n": {"type": "object"}}}},
            },
        ),
        ({"type": "object", "additionalProperties": False, "x-odd": 1}, {"type": "object"}),
        (
            {
                "properties": {"a": {"type": "string"}},
                "required": ["a"],
                "anyOf": [{"properties": {"b": {"type": "string"}, "c": False}, "required": ["b", "d"]}],
            },
            {
                "type": "object",
                "properties": {"b": {"type": "string"}, "c": {}, "a": {"type": "string"}},
                "required": ["b", "a"],
            },
        ),
    ],
)
def test_narrowing(schema: dict[str, Any], narrowed: dict[str, Any]) -> None:
    assert narrow_for_gemini(schema) == narrowed


def test_nested_references_stay_bounded() -> None:
    doubling = {f"d{n}": {"anyOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(30)}
    assert len(str(narrow_for_gemini({"$ref": "#/$defs/d0", "$defs": doubling}))) < 100_000
