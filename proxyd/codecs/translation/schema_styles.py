"""Rewrite JSON Schema to what an upstream accepts: one rule per value of `Dialect.schema_style`.

A schema that fits already is returned as the same object. Otherwise whatever the rewritten schema accepts, the
original accepts too, except where the style cannot express a constraint. Such a constraint is dropped: it is a hint to
the model, and the client validates the arguments itself.

Sources:
    openai: OpenAI's function calling guide; "array schema missing items" (ogx-ai/ogx#3602), no combinators at the root
        (chatanywhere/GPT_API_free#403)
    moonshot: MoonshotAI/walle, its pages mfjs-spec and walle; kimi-cli#1595, kimi-code#2661, pi-hindsight#550
    grammar: llama.cpp, common/json-schema-to-grammar.cpp; llama.cpp#19716, #14227, oh-my-pi#5914 (schemas without a
        type), lemonade#2691, openclaw#115598 (bounds, patterns); vLLM, backend_xgrammar.py
    xai: openclaw#32080, openclaw's list of keywords that xAI refuses
    strict: OpenAI's structured outputs guide
"""

from __future__ import annotations

import re
from typing import Any

from proxyd.codecs.translation.gemini_schema import narrow_for_gemini
from proxyd.codecs.translation.json_schema import (
    ANNOTATIONS,
    KEYWORDS_BY_TYPE,
    TYPED_KEYWORDS,
    Schema,
    accept_anything,
    as_list,
    as_mapping,
    fits_strict,
    flatten_root,
    implied_type,
    merge_all_of,
    resolve,
    resolve_reference,
    rewrite,
    strings_in,
)

__all__ = ["MAX_GRAMMAR_BOUND", "fits_grammar_pattern", "in_style"]

#: llama.cpp refuses more repetitions than this.
MAX_GRAMMAR_BOUND = 2000
#: Most references that are replaced by their targets, each of which may hold several more.
_MAX_INLINED = 200


def in_style(schema: Schema, style: str) -> Schema:
    """Return `schema`, that of an object, in `style`: the same object where it fits already, else a changed copy."""
    if "$schema" in schema:
        schema = {key: value for key, value in schema.items() if key != "$schema"}
    if style == "common":
        # The result of each step is legal for the styles before it.
        for each in ("grammar", "xai", "gemini", "moonshot"):
            schema = in_style(schema, each)
        return rewrite(schema, _string_items)
    if style == "plain":
        return in_style(rewrite(in_style(schema, "common"), _plain), "common")
    if style == "gemini":
        return narrow_for_gemini(schema)
    if style == "strict":
        plain = in_style(schema, "openai")
        closed = rewrite(plain, _close_objects)
        return closed if fits_strict(closed) else plain
    if style == "openai":
        return rewrite(flatten_root(schema), _openai)
    if style == "xai":
        return rewrite(flatten_root(schema), _xai)
    if style == "grammar":
        return rewrite(schema, _Grammar(schema), booleans=True)
    if style == "moonshot":
        plain = flatten_root(schema)
        result = rewrite(plain, _Moonshot(plain), before=True, booleans=True)
        definitions = result.get("$defs")
        return (
            result if definitions != {} else {key: value for key, value in result.items() if key != "$defs"}
        )
    return schema


def _type_of(value: Any) -> str:
    if isinstance(value, bool):
        return "boolean"
    if value is None:
        return "null"
    if isinstance(value, int):
        return "integer"
    return {str: "string", float: "number", list: "array"}.get(type(value), "object")


# -- openai, xai, strict


def _openai(schema: Schema, keyword: str) -> Schema:
    """Give arrays ``items``, as one schema and not as a list."""
    items = schema.get("items")
    if isinstance(items, list):
        given = schema.get("additionalItems")
        rest = given if isinstance(given, (dict, bool)) else {}
        schema = {key: value for key, value in schema.items() if key not in ("items", "additionalItems")}
        return {**schema, "prefixItems": items, "items": rest}
    kind = schema.get("type")
    is_array = kind == "array" or (isinstance(kind, list) and "array" in kind)
    return {**schema, "items": {}} if is_array and "items" not in schema else schema


def _string_items(schema: Schema, keyword: str) -> Schema:
    """Give arrays without ``items`` those of strings: the only ones that every vendor takes."""
    has_none = schema.get("type") == "array" and "items" not in schema
    return {**schema, "items": {"type": "string"}} if has_none else schema


_XAI_REFUSES = frozenset(["minLength", "maxLength", "minItems", "maxItems", "minContains", "maxContains"])


def _xai(schema: Schema, keyword: str) -> Schema:
    schema = _openai(schema, keyword)
    if _XAI_REFUSES.isdisjoint(schema):
        return schema
    return {key: value for key, value in schema.items() if key not in _XAI_REFUSES}


_PLAIN = frozenset(["type", "properties", "required", "items", "enum", "description"])


def _plain(schema: Schema, keyword: str) -> Schema:
    """Keep types, names and descriptions; of alternatives, the first that is not null."""
    alternatives = [each for each in as_list(schema.get("anyOf")) if isinstance(each, dict)]
    chosen = next((each for each in alternatives if each.get("type") != "null"), None)
    if chosen is not None:
        schema = {**chosen, **{key: value for key, value in schema.items() if key != "anyOf"}}
    if schema.keys() <= _PLAIN:
        return schema
    return {key: value for key, value in schema.items() if key in _PLAIN}


def _close_objects(schema: Schema, keyword: str) -> Schema:
    """Close objects that say nothing about additional properties."""
    properties = schema.get("properties")
    is_closable = isinstance(properties, dict) and "additionalProperties" not in schema
    return {**schema, "additionalProperties": False} if is_closable else schema


# -- grammar

_BOUND_KEYWORDS = ("minLength", "maxLength", "minItems", "maxItems")
#: Ignored by some of these servers and refused by the others.
_NO_GRAMMAR = frozenset(
    [
        "uniqueItems",
        "contains",
        "minContains",
        "maxContains",
        "multipleOf",
        "patternProperties",
        "propertyNames",
    ]
)
#: Keywords from which the converter infers the type.
_CONVERTED_WITHOUT_TYPE = (
    "$ref", "anyOf", "oneOf", "allOf", "enum", "const", "properties", "items", "prefixItems", "pattern",
)  # fmt: skip

_LITERAL = r"[^\\\[\](){}*+?|.^$]|\\[\^$.\[\](){}*+?|nrt\\]"
_CLASS = r"\[\^?(?:[^\\\[\]]|\\[\[\]\\nrt])+\]"
_PATTERN = re.compile(
    rf"\^(?:(?:{_LITERAL}|{_CLASS}|\.|\((?!\?)|\))(?:[*+?](?![+?])|\{{(\d+)?(?:,(\d+)?)?\}}(?!\?))?|\|)*\$"
)
_REPEATED = re.compile(r"(?<!\\)\{(\d{0,9}),?(\d{0,9})\}")


def fits_grammar_pattern(pattern: Any) -> bool:
    """Whether a converter to a grammar takes `pattern`: anchored, no lookaround, no classes such as ``\\S``."""
    if not isinstance(pattern, str) or not _PATTERN.fullmatch(pattern):
        return False
    counts = [int(count) for found in _REPEATED.findall(pattern) for count in found if count]
    if any(count > MAX_GRAMMAR_BOUND for count in counts):
        return False
    try:
        re.compile(pattern)
    except re.error:
        return False
    return True


class _Grammar:
    """Rule for servers that compile schemas to a grammar: llama.cpp, LM Studio, Ollama, and others' guided modes."""

    def __init__(self, root: Schema) -> None:
        self._root = root

    def __call__(self, schema: Schema, keyword: str) -> Schema:
        dropped = [key for key in schema if key in _NO_GRAMMAR]
        dropped += [key for key in _BOUND_KEYWORDS if _is_above(schema.get(key), MAX_GRAMMAR_BOUND)]
        if "pattern" in schema and not fits_grammar_pattern(schema["pattern"]):
            dropped.append("pattern")
        reference = schema.get("$ref")
        if reference is not None and not self._is_known(reference):
            dropped.append("$ref")
        implied = implied_type(schema)  # before the keywords that imply it are dropped
        if dropped:
            schema = {key: value for key, value in schema.items() if key not in dropped}
        if keyword == "" or "type" in schema or any(key in schema for key in _CONVERTED_WITHOUT_TYPE):
            return schema
        if keyword in ("not", "if", "then", "else", "propertyNames"):
            return schema  # not part of the grammar
        return {**schema, "type": implied} if implied else accept_anything(schema)

    def _is_known(self, reference: Any) -> bool:
        return (
            isinstance(reference, str)
            and reference.startswith("#/")
            and resolve_reference(self._root, reference) is not None
        )


def _is_above(value: Any, bound: int) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value > bound


# -- moonshot

#: Keywords that Moonshot's flavour does not have; schemas in them would all need types.
_NOT_MOONSHOT = frozenset(
    [
        "oneOf", "allOf", "not", "if", "then", "else", "prefixItems", "additionalItems", "contains", "minContains",
        "maxContains", "patternProperties", "propertyNames", "dependentSchemas", "dependentRequired", "const",
        "unevaluatedItems", "unevaluatedProperties", "definitions", "$anchor", "$comment", "$dynamicRef",
        "$dynamicAnchor",
    ]
)  # fmt: skip
_MOONSHOT_TYPES = frozenset(["string", "number", "integer", "boolean", "object", "array", "null"])
#: Keywords allowed beside ``anyOf``.
_BESIDE_ALTERNATIVES = frozenset(["anyOf", "description", "title"])


class _Moonshot:
    """Rule for Moonshot: a schema has a type, or only ``anyOf``, or only ``$ref``.

    Applied before the subschemas, since keywords beside ``anyOf`` move into its items.
    """

    def __init__(self, root: Schema) -> None:
        self._root = root
        self._inlined = 0
        self._holding_references: dict[str, bool] = {}

    def __call__(self, schema: Schema, keyword: str) -> Schema:
        given = schema
        if "allOf" in schema:
            schema = merge_all_of(schema)
        if "definitions" in schema and keyword == "":
            schema = {
                **schema,
                "$defs": {**as_mapping(schema["definitions"]), **as_mapping(schema.get("$defs"))},
            }
        if "$ref" in schema:
            schema = self._reference(schema)
            if "$ref" in schema:
                return schema
        if "const" in schema:
            schema = {**schema, "enum": [schema["const"]]}
        if "oneOf" in schema and "anyOf" not in schema:
            schema = {**schema, "anyOf": schema["oneOf"]}
        if not _NOT_MOONSHOT.isdisjoint(schema):
            schema = {key: value for key, value in schema.items() if key not in _NOT_MOONSHOT}
        if "$defs" in schema and keyword != "":
            schema = {key: value for key, value in schema.items() if key != "$defs"}
        schema = self._alternatives(schema, keyword)
        if "anyOf" in schema:
            return schema
        schema = _with_valid_members(schema)
        return given if schema == given else schema

    def _reference(self, schema: Schema) -> Schema:
        """Keep a lone reference to ``#/$defs/…``; replace others by their targets."""
        reference = schema["$ref"]
        if isinstance(reference, str):
            reference = reference.replace("#/definitions/", "#/$defs/", 1)
        target = resolve_reference(self._root, schema["$ref"]) if isinstance(reference, str) else None
        is_definition = isinstance(reference, str) and re.fullmatch(r"#/\$defs/[^/]+", reference) is not None
        beside = {key: value for key, value in schema.items() if key != "$ref" and key not in ANNOTATIONS}
        if target is None:
            return {key: value for key, value in schema.items() if key != "$ref"}
        if is_definition and not beside:
            return schema if schema == {"$ref": reference} else {"$ref": reference}
        self._inlined += 1
        if self._inlined > _MAX_INLINED or "$ref" in target or self._holds_references(schema["$ref"], target):
            return {"$ref": reference} if is_definition else {"type": "object"}
        own = {key: value for key, value in schema.items() if key != "$ref"}
        inlined = merge_all_of({**own, "allOf": [target]})
        return {key: value for key, value in inlined.items() if key != "$defs"}

    def _holds_references(self, reference: str, target: Schema) -> bool:
        """Whether a target holds references itself. Then it is not inlined, so that the schema stays bounded."""
        known = self._holding_references.get(reference)
        if known is None:
            known = self._holding_references[reference] = "'$ref':" in repr(target)
        return known

    def _alternatives(self, schema: Schema, keyword: str) -> Schema:
        """Move keywords beside ``anyOf`` into its items; turn lists of types and mixed enum values into ``anyOf``."""
        branches = [item for item in as_list(schema.get("anyOf")) if isinstance(item, dict)]
        texts = {key: value for key, value in schema.items() if key in ("description", "title")}
        if branches:
            if schema.keys() <= _BESIDE_ALTERNATIVES and branches == schema["anyOf"]:
                return schema
            beside = {key: value for key, value in schema.items() if key not in ("anyOf", *ANNOTATIONS)}
            items = [self._branch(branch, beside) for branch in branches] if beside else branches
            return {**texts, "anyOf": items}
        schema = (
            {key: value for key, value in schema.items() if key != "anyOf"} if "anyOf" in schema else schema
        )
        if keyword == "":
            return schema if schema.get("type") == "object" else {**schema, "type": "object"}
        values = schema.get("enum")
        if isinstance(values, list):
            return _typed_values(schema, values)
        kinds = schema.get("type")
        if isinstance(kinds, list):
            known = [kind for kind in strings_in(kinds) if kind in _MOONSHOT_TYPES]
            if known == kinds and len(set(known)) > 1 and schema.keys() <= {"type", "description", "title"}:
                return schema
            if len(known) == 1:
                return {**schema, "type": known[0]}
            if known:
                return {**texts, "anyOf": [_of_type(schema, kind) for kind in known]}
        elif isinstance(kinds, str) and kinds in _MOONSHOT_TYPES:
            return schema
        implied = implied_type(schema)
        if implied is None and keyword == "additionalProperties" and not schema:
            return schema
        return {**schema, "type": implied} if implied else accept_anything(schema)

    def _branch(self, branch: Schema, beside: Schema) -> Schema:
        if "$ref" in branch:
            target = (
                resolve_reference(self._root, branch["$ref"]) if isinstance(branch["$ref"], str) else None
            )
            if set(beside) == {"type"} and target is not None:
                return branch  # the target has a type of its own
            branch = resolve(branch, self._root)
        kind = branch.get("type")
        if kind is not None and kind != beside.get("type"):
            # A type beside the alternatives that contradicts theirs is a mistake that other servers tolerate.
            beside = {key: value for key, value in beside.items() if key != "type"}
        return merge_all_of({**branch, "allOf": [beside]})


def _with_valid_members(schema: Schema) -> Schema:
    """Limit ``required`` to ``properties``; drop items and defaults where they are not allowed."""
    changes: Schema = {}
    dropped: set[str] = set()
    properties = schema.get("properties")
    if "required" in schema:
        names = [name for name in strings_in(schema["required"]) if name in as_mapping(properties)]
        if names != schema["required"]:
            changes["required"] = names
    if isinstance(properties, dict) and any(isinstance(child, bool) for child in properties.values()):
        changes["properties"] = {
            name: {} if child is True else child for name, child in properties.items() if child is not False
        }
        known = changes["properties"]
        if "required" in schema:
            changes["required"] = [name for name in strings_in(schema["required"]) if name in known]
    items = schema.get("items")
    if "items" in schema and (not isinstance(items, dict) or not items):
        dropped.add("items")
    if "default" in schema and schema.get("type") in ("object", "array"):
        dropped.add("default")
    if not changes and not dropped:
        return schema
    return {key: changes.get(key, value) for key, value in schema.items() if key not in dropped}


def _of_type(schema: Schema, kind: str) -> Schema:
    """Narrow `schema` to values of one type, with only the keywords about it."""
    own = KEYWORDS_BY_TYPE.get(kind, frozenset())
    kept = {key: value for key, value in schema.items() if key in own or key not in TYPED_KEYWORDS}
    return {
        "type": kind,
        **{key: value for key, value in kept.items() if key != "type" and key not in ANNOTATIONS},
    }


def _typed_values(schema: Schema, values: list[Any]) -> Schema:
    """Give ``enum`` a type; values of several types become alternatives."""
    groups: dict[str, list[Any]] = {}
    for value in values:
        groups.setdefault(_type_of(value), []).append(value)
    if "integer" in groups and "number" in groups:
        groups["number"] += groups.pop("integer")
    texts = {key: value for key, value in schema.items() if key in ("description", "title")}
    declared = schema.get("type")
    allowed = {declared} if isinstance(declared, str) else set(strings_in(declared)) or None
    if allowed and "number" in allowed and "integer" in groups:
        groups["number"] = [*groups.get("number", []), *groups.pop("integer")]
    groups = {kind: group for kind, group in groups.items() if not allowed or kind in allowed} or groups
    if len(groups) == 1:
        kind, group = next(iter(groups.items()))
        if kind in ("boolean", "null", "object", "array"):
            return {**texts, "type": kind}
        if schema.get("type") == kind and group == values:
            return schema
        return {**schema, "type": kind, "enum": group}
    branches: list[Schema] = [
        {"type": kind} if kind in ("boolean", "null", "object", "array") else {"type": kind, "enum": group}
        for kind, group in groups.items()
    ]
    return {**texts, "anyOf": branches} if branches else accept_anything(texts)
