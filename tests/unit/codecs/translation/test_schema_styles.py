"""Schemas in the styles of upstreams: taken by the simulators, unchanged where they fit, and never looser than they
must be."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from proxyd.codecs.openai.request import to_openai_request
from proxyd.codecs.translation.dialect import CHOICES, Dialect
from proxyd.codecs.translation.schema_styles import fits_grammar_pattern, in_style
from proxyd.codecs.translation.translated import RequestOptions
from tests.support.effort import examples
from tests.support.vendors import schemas

Schema = dict[str, Any]
#: Style -> what its vendor refuses.
JUDGES: dict[str, Callable[[Mapping[str, Any]], Any]] = {
    "openai": schemas.openai,
    "moonshot": schemas.moonshot,
    "grammar": schemas.grammar,
    "xai": schemas.xai,
    "gemini": schemas.gemini,
    "strict": schemas.openai,
}


def offered(schema: Schema, style: str) -> dict[str, Any]:
    """The function that a tool with `schema` becomes."""
    payload = {
        "messages": [{"role": "user", "content": "u"}],
        "tools": [{"name": "T", "input_schema": schema}],
    }
    body = to_openai_request(payload, Dialect(schema_style=style), RequestOptions("m", True)).body
    (tool,) = body["tools"]
    function: dict[str, Any] = tool["function"]
    return function


def refusal(parameters: Schema, style: str) -> Any:
    return JUDGES[style]({"tools": [{"function": {"name": "T", "parameters": parameters}}]})


NAMES = st.sampled_from(["a", "b", "type", "items"])
TYPES = st.sampled_from(["string", "integer", "number", "boolean", "object", "array", "null"])
#: Anything, sensible or not.
ANY: st.SearchStrategy[Any] = st.recursive(
    st.booleans() | st.just({}) | st.fixed_dictionaries({"type": TYPES}),
    lambda inner: st.fixed_dictionaries(
        {},
        optional={
            "type": TYPES | st.lists(TYPES, max_size=3),
            "description": st.just("d"),
            "default": st.sampled_from(["a", 1, None]),
            "properties": st.dictionaries(NAMES, inner, max_size=3),
            "required": st.lists(NAMES, max_size=3),
            "items": inner | st.lists(inner, max_size=2),
            "prefixItems": st.lists(inner, max_size=2),
            "anyOf": st.lists(inner, max_size=3),
            "oneOf": st.lists(inner, max_size=3),
            "allOf": st.lists(inner, max_size=2),
            "not": inner,
            "if": inner,
            "then": inner,
            "$ref": st.sampled_from(
                ["#", "#/$defs/a", "#/definitions/b", "#/properties/a", "https://example.org"]
            ),
            "$defs": st.dictionaries(st.sampled_from(["a", "b"]), inner, max_size=2),
            "definitions": st.dictionaries(st.sampled_from(["a", "b"]), inner, max_size=2),
            "enum": st.lists(st.sampled_from(["a", "", 1, 1.5, None, True])),
            "const": st.sampled_from(["a", 1, None, False]),
            "additionalProperties": inner,
            "patternProperties": st.dictionaries(st.just("^x"), inner, max_size=1),
            "propertyNames": inner,
            "minLength": st.sampled_from([1, 5000]),
            "maxItems": st.sampled_from([3, 5000]),
            "uniqueItems": st.booleans(),
            "pattern": st.sampled_from(["^a$", "\\S", "^(?=a).$", "^\\d+$"]),
        },
    ),
    max_leaves=10,
)


@pytest.mark.parametrize("style", JUDGES)
@settings(max_examples=examples(200))
@given(schema=ANY.filter(lambda schema: isinstance(schema, dict)))
def test_rewritten_schema_is_valid_for_the_vendor(style: str, schema: Schema) -> None:
    before = copy.deepcopy(schema)
    parameters = offered(schema, style)["parameters"]
    assert refusal(parameters, style) is None
    assert schema == before


@pytest.mark.parametrize("style", ["common", "plain"])
@settings(max_examples=examples(130))
@given(schema=ANY.filter(lambda schema: isinstance(schema, dict)))
def test_simplest_styles_are_taken_by_every_vendor(style: str, schema: Schema) -> None:
    parameters = offered(schema, style)["parameters"]
    assert [judge for judge in JUDGES if refusal(parameters, judge) is not None] == []
    if style == "plain":
        keywords = set(parameters)
        nodes = [parameters]
        while nodes:
            node = nodes.pop()
            keywords |= node.keys()
            nodes += [*node.get("properties", {}).values(), *([node["items"]] if "items" in node else [])]
        assert keywords <= {"type", "properties", "required", "items", "enum", "description"}


#: Schemas whose constraints every style can say, but for those of `loosened`.
SENSIBLE: st.SearchStrategy[Schema] = st.recursive(
    st.sampled_from(
        [
            {},
            {"description": "d"},
            {"type": "string"},
            {"type": "string", "minLength": 1},
            {"type": "string", "maxLength": 5000},
            {"type": "string", "pattern": "^a$"},
            {"type": "string", "pattern": "\\S"},
            {"type": "integer", "minimum": 1},
            {"type": ["string", "null"]},
            {"type": ["string", "integer"], "minLength": 1, "minimum": 1},
            {"enum": ["a", "b"]},
            {"enum": ["a", 1]},
            {"type": "string", "enum": ["a", "zz"]},
            {"const": "a"},
            {"$ref": "#/$defs/word"},
            {"$ref": "#/$defs/word", "description": "d"},
            {"$ref": "#/$defs/word", "minLength": 2},
            {"type": "string", "anyOf": [{"enum": ["a"]}, {"minLength": 2}]},
        ]
    ),
    lambda inner: (
        st.fixed_dictionaries(
            {
                "type": st.just("object"),
                "properties": st.dictionaries(st.sampled_from("ab"), inner, max_size=2),
            },
            optional={
                "required": st.lists(st.sampled_from("ab"), max_size=2, unique=True),
                "additionalProperties": st.booleans(),
            },
        )
        | st.fixed_dictionaries({"type": st.just("array")}, optional={"items": inner, "minItems": st.just(1)})
        | st.fixed_dictionaries({"anyOf": st.lists(inner, min_size=1, max_size=2)})
    ),
    max_leaves=6,
)
ROOTS = st.fixed_dictionaries(
    {
        "type": st.just("object"),
        "properties": st.fixed_dictionaries({"v": SENSIBLE}, optional={"w": SENSIBLE}),
        "$defs": st.just({"word": {"type": "string", "maxLength": 3}}),
    },
    optional={"required": st.lists(st.sampled_from("vw"), max_size=2, unique=True)},
)
_SCALARS: list[Any] = [None, True, 0, 1, 1.5, "", "a", "zz", "aaaa", [], ["a"], [1, None]]
VALUES: list[Any] = [
    *_SCALARS,
    {},
    *({"a": each} for each in _SCALARS),
    {"a": "a", "b": 1},
    {"b": ["a"]},
    [{"a": 1}],
]
INSTANCES: list[dict[str, Any]] = [
    {},
    *({"v": value} for value in VALUES),
    *({"v": one, "w": other} for one, other in itertools.product(VALUES[:8], VALUES[:8])),
]


def loosened(schema: Any, style: str) -> Any:
    """`schema` without the constraints for which `style` has no word; written from the vendors' rules alone."""
    if isinstance(schema, list):
        return [loosened(item, style) for item in schema]
    if not isinstance(schema, dict):
        return schema
    result = {}
    for key, value in schema.items():
        if key in ("properties", "$defs"):
            result[key] = {name: loosened(child, style) for name, child in value.items()}
            continue
        is_count = key in ("minLength", "maxLength", "minItems", "maxItems")
        if style == "xai" and is_count:
            continue
        if style == "grammar" and ((is_count and value > 2000) or (key == "pattern" and value == "\\S")):
            continue
        if style == "moonshot" and key == "required":
            value = [name for name in value if name in schema.get("properties", {})]
        result[key] = loosened(value, style) if key in ("items", "anyOf") else value
    return result


@pytest.mark.parametrize("style", ["full", "openai", "xai", "grammar", "moonshot", "strict"])
@settings(max_examples=examples(130))
@given(schema=ROOTS)
def test_rewritten_schema_accepts_no_more(style: str, schema: Schema) -> None:
    rewritten = Draft202012Validator(offered(schema, style)["parameters"])
    original = Draft202012Validator(loosened(schema, style))
    for instance in INSTANCES:
        if rewritten.is_valid(instance):
            assert original.is_valid(instance), instance


@pytest.mark.parametrize("style", ["openai", "xai", "grammar"])
@settings(max_examples=examples(130))
@given(schema=ROOTS)
def test_rewritten_schema_accepts_no_less(style: str, schema: Schema) -> None:
    rewritten = Draft202012Validator(offered(schema, style)["parameters"])
    original = Draft202012Validator(schema)
    for instance in INSTANCES:
        if original.is_valid(instance):
            assert rewritten.is_valid(instance), instance


@pytest.mark.parametrize("style", ["openai", "moonshot", "grammar", "xai"])
@settings(max_examples=examples(130))
@given(schema=ROOTS)
def test_schema_that_fits_is_unchanged(style: str, schema: Schema) -> None:
    # A grammar takes a schema that says nothing, but for an object alone: that one is spelled out.
    if refusal(schema, style) is None and not (style == "grammar" and "{}" in repr(schema)):
        assert in_style(schema, style) is schema


WORKFLOW = {
    "type": "object",
    "properties": {
        "script": {"type": "string", "maxLength": 524288},
        "args": {"description": "d"},
        "run": {"type": "string", "pattern": "^wf_[a-z0-9-]{6,}$"},
    },
    "additionalProperties": False,
}
ANYTHING = [{"type": kind} for kind in ("string", "number", "boolean", "object", "array", "null")]


def changed(**properties: Any) -> Schema:
    return {**WORKFLOW, "properties": {**WORKFLOW["properties"], **properties}}  # type: ignore[dict-item]


@pytest.mark.parametrize(
    ("style", "schema", "rewritten"),
    [
        ("full", WORKFLOW, WORKFLOW),
        ("openai", WORKFLOW, WORKFLOW),
        ("moonshot", WORKFLOW, changed(args={"description": "d", "anyOf": ANYTHING})),
        (
            "grammar",
            WORKFLOW,
            changed(script={"type": "string"}, args={"description": "d", "anyOf": ANYTHING}),
        ),
        ("xai", WORKFLOW, changed(script={"type": "string"})),
        (
            "openai",
            {"type": "object", "properties": {"a": {"type": ["array", "null"]}}},
            {"type": "object", "properties": {"a": {"type": ["array", "null"], "items": {}}}},
        ),
        (
            "openai",
            {"type": "object", "properties": {"a": {"type": "array", "items": [{"type": "string"}]}}},
            {
                "type": "object",
                "properties": {"a": {"type": "array", "prefixItems": [{"type": "string"}], "items": {}}},
            },
        ),
        (
            "openai",
            {
                "type": "object",
                "properties": {"a": {"type": "string"}},
                "anyOf": [
                    {"required": ["a", "b"], "properties": {"a": {}, "b": {"type": "integer"}}},
                    {"required": ["a"], "properties": {"b": {"type": "null"}}},
                ],
            },
            {
                "type": "object",
                "properties": {
                    "b": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
                    "a": {"type": "string"},
                },
                "required": ["a"],
            },
        ),
        (
            "openai",
            {
                "$ref": "#/$defs/r",
                "$defs": {"r": {"type": "object", "properties": {"a": {"type": "string"}}}},
            },
            {
                "$defs": {"r": {"type": "object", "properties": {"a": {"type": "string"}}}},
                "type": "object",
                "properties": {"a": {"type": "string"}},
            },
        ),
        (
            "moonshot",
            {
                "type": "object",
                "properties": {
                    "level": {"enum": ["a", "b"]},
                    "mixed": {"enum": ["a", 1, None]},
                    "word": {"$ref": "#/definitions/w", "description": "d"},
                    "name": {"type": "string", "anyOf": [{"type": "string"}, {"type": "null"}]},
                },
                "required": ["level", "gone"],
                "definitions": {"w": {"type": "string"}},
            },
            {
                "type": "object",
                "properties": {
                    "level": {"enum": ["a", "b"], "type": "string"},
                    "mixed": {
                        "anyOf": [
                            {"type": "string", "enum": ["a"]},
                            {"type": "integer", "enum": [1]},
                            {"type": "null"},
                        ]
                    },
                    "word": {"$ref": "#/$defs/w"},
                    "name": {"anyOf": [{"type": "string"}, {"type": "null"}]},
                },
                "required": ["level"],
                "$defs": {"w": {"type": "string"}},
            },
        ),
        (
            "strict",
            {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]},
            {
                "type": "object",
                "properties": {"a": {"type": "string"}},
                "required": ["a"],
                "additionalProperties": False,
            },
        ),
    ],
)
def test_rewriting(style: str, schema: Schema, rewritten: Schema) -> None:
    assert in_style(schema, style) == rewritten


def test_only_closed_schemas_are_strict() -> None:
    assert offered({"type": "object", "properties": {"a": {}}, "required": ["a"]}, "strict")["strict"] is True
    assert "strict" not in offered({"type": "object", "properties": {"a": {}}}, "strict")
    assert "strict" not in offered({"type": "object", "properties": {}}, "openai")


@pytest.mark.parametrize(
    ("pattern", "fits"),
    [
        ("^wf_[a-z0-9-]{6,}$", True),
        ("^(a|b)+$", True),
        ("^a\\.b$", True),
        ("^[^/]{1,2000}$", True),
        ("^[a]{1,2001}$", False),
        ("\\S", False),
        ("^\\d+$", False),
        ("^[\\w]$", False),
        ("^(?!no).*$", False),
        ("^(?:a)$", False),
        ("^a+?$", False),
        ("^(a$", False),
        ("^a", False),
        (7, False),
    ],
)
def test_grammar_patterns(pattern: Any, fits: bool) -> None:
    assert fits_grammar_pattern(pattern) is fits


def test_long_pattern_takes_linear_time() -> None:
    assert not fits_grammar_pattern("^" + "a" * 20000 + "\\d$")
    assert not fits_grammar_pattern("^" + "(a*" * 200 + "\\d")


def test_nested_references_stay_bounded() -> None:
    doubling = {f"d{n}": {"anyOf": [{"$ref": f"#/$defs/d{n + 1}", "title": "t"}] * 2} for n in range(30)}
    root = {"type": "object", "properties": {"a": {"$ref": "#/$defs/d0", "maxLength": 3}}, "$defs": doubling}
    for style in CHOICES["schema_style"]:
        assert len(str(in_style(root, style))) < 100_000


def test_deep_schema_is_truncated() -> None:
    schema: Schema = {"type": "string"}
    for _ in range(300):
        schema = {"type": "object", "properties": {"a": schema}}
    for style in CHOICES["schema_style"]:
        assert in_style(schema, style)["type"] == "object"


KEYWORDS = [
    "type", "properties", "items", "anyOf", "oneOf", "allOf", "$ref", "$defs", "definitions", "enum", "const",
    "required", "pattern", "minLength", "additionalProperties", "additionalItems", "prefixItems", "not", "default",
]  # fmt: skip
JUNK: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from(["object", "#", "#/$defs/a", "^[$", "^($", ""]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(KEYWORDS), inner, max_size=4),
    max_leaves=12,
)


@pytest.mark.parametrize("style", CHOICES["schema_style"])
@settings(max_examples=examples(500))
@given(schema=st.dictionaries(st.sampled_from(KEYWORDS), JUNK, max_size=4))
def test_malformed_schemas(style: str, schema: Schema) -> None:
    before = copy.deepcopy(schema)
    assert offered(schema, style)["parameters"]["type"] == "object"
    assert schema == before


@pytest.mark.parametrize("style", ["gemini", "moonshot", "openai", "strict"])
@pytest.mark.parametrize(
    "schema",
    [
        {"type": [{}, "object"]},
        {"type": {"a": 1}},
        {"required": [{}, []]},
        {"properties": None},
        {"properties": {"a": {"type": [[]]}, "b": {"type": {}}}, "required": [["a"]]},
        {"anyOf": [{"required": [[]]}], "required": [[]]},
    ],
)
def test_invalid_values_are_dropped(style: str, schema: Schema) -> None:
    assert offered(schema, style)["parameters"]["type"] == "object"
