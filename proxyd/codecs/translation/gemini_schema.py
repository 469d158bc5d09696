"""Narrow JSON Schema to the subset that Gemini takes.

The subset: the fields of `Schema` in the Gemini API reference (the OpenAI layer maps ``parameters`` to it, and
responds with 400 ``Unknown name`` for others on older models).
"""

from __future__ import annotations

from typing import Any

from proxyd.codecs.translation.json_schema import (
    Schema,
    implied_type,
    merge_all_of,
    resolve_reference,
    strings_in,
)

__all__ = ["narrow_for_gemini"]

#: Keywords of Gemini's Schema whose values need no care.
_PLAIN = frozenset(
    [
        "title",
        "description",
        "nullable",
        "maxItems",
        "minItems",
        "minProperties",
        "maxProperties",
        "minLength",
        "maxLength",
        "pattern",
        "minimum",
        "maximum",
        "default",
    ]
)
#: The formats it knows; it refuses others for strings.
_FORMATS = frozenset(["enum", "date-time", "int32", "int64", "float", "double"])
_TYPES = frozenset(["string", "number", "integer", "boolean", "array", "object"])

#: Deepest schema that is followed; deeper ones become bare objects.
_MAX_DEPTH = 24
#: Most references that are replaced by their targets: each may hold several more, so depth alone is no bound.
_MAX_REFERENCES = 200


def narrow_for_gemini(schema: Schema) -> Schema:
    """Narrow `schema`, which is not changed, to an object schema in Gemini's subset.

    What has no equivalent is left out: the model may then send arguments that the client refuses, and correct them;
    a refused request it could not correct.
    """
    return _Narrower(schema).narrow(schema, 0)


class _Narrower:
    def __init__(self, root: Schema) -> None:
        self._root = root
        self._references_left = _MAX_REFERENCES
        self._followed: list[str] = []

    def narrow(self, schema: Any, depth: int) -> Schema:
        if not isinstance(schema, dict):
            return {}
        if depth > _MAX_DEPTH:
            return {"type": "object"}
        schema = merge_all_of(schema)
        if "$ref" in schema:
            return self._follow(schema, depth)
        result = {key: value for key, value in schema.items() if key in _PLAIN}
        self._type(schema, result, depth)
        self._values(schema, result)
        alternatives = schema.get("anyOf", schema.get("oneOf"))
        if isinstance(alternatives, list) and alternatives and "anyOf" not in result:
            self._alternatives(alternatives, result, depth)
        if isinstance(schema.get("format"), str) and schema["format"] in _FORMATS:
            result["format"] = schema["format"]
        properties = schema.get("properties")
        if isinstance(properties, dict):
            own = {name: self.narrow(child, depth + 1) for name, child in properties.items()}
            # A single alternative was merged above; its properties count as well.
            known = result["properties"] = {**result.get("properties", {}), **own}
            required = [*result.pop("required", ()), *strings_in(schema.get("required"))]
            if names := [name for name in required if name in known]:
                result["required"] = names
        if result.get("type") == "array":
            result["items"] = self._items(schema, depth)
        return result

    def _items(self, schema: Schema, depth: int) -> Schema:
        """Never empty: Gemini refuses an array without items ("items: missing field")."""
        return self.narrow(schema.get("items"), depth + 1) or {"type": "string"}

    def _follow(self, schema: Schema, depth: int) -> Schema:
        reference = schema["$ref"]
        if (
            not isinstance(reference, str)
            or not reference.startswith("#")
            or reference in self._followed  # a recursive schema, which Gemini cannot express
            or not self._references_left
        ):
            return {"type": "object"}
        self._references_left -= 1
        target = resolve_reference(self._root, reference)
        if target is None:
            return {"type": "object"}
        beside = {key: value for key, value in schema.items() if key != "$ref"}
        self._followed.append(reference)
        narrowed = self.narrow({**target, **beside}, depth + 1)
        self._followed.pop()
        return narrowed

    def _type(self, schema: Schema, result: Schema, depth: int) -> None:
        kind = schema.get("type")
        if isinstance(kind, list):
            kinds = [item for item in strings_in(kind) if item in _TYPES]
            if "null" in kind:
                result["nullable"] = True
            if len(kinds) == 1:
                result["type"] = kinds[0]
            elif kinds:
                result["anyOf"] = [
                    {"type": item, "items": self._items(schema, depth)} if item == "array" else {"type": item}
                    for item in kinds
                ]
        elif isinstance(kind, str) and kind in _TYPES:
            result["type"] = kind
        elif "anyOf" not in schema and "oneOf" not in schema and (implied := implied_type(schema)):
            result["type"] = implied

    def _values(self, schema: Schema, result: Schema) -> None:
        """``enum`` and ``const`` (strings only, none empty), and bounds that exclude their limit."""
        values = [schema["const"]] if "const" in schema else schema.get("enum")
        if isinstance(values, list) and (
            texts := [item for item in values if isinstance(item, str) and item]
        ):
            result["enum"] = texts
            result.setdefault("type", "string")
        step = 1 if schema.get("type") == "integer" else 0
        for keyword, bound, sign in (("exclusiveMinimum", "minimum", 1), ("exclusiveMaximum", "maximum", -1)):
            limit = schema.get(keyword)
            if isinstance(limit, (int, float)) and not isinstance(limit, bool):
                result.setdefault(bound, limit + sign * step)

    def _alternatives(self, alternatives: list[Any], result: Schema, depth: int) -> None:
        narrowed = []
        for item in alternatives:
            if isinstance(item, dict) and item.get("type") == "null":
                result["nullable"] = True
            elif inner := self.narrow(item, depth + 1):
                narrowed.append(inner)
        if len(narrowed) == 1:
            for key, value in narrowed[0].items():
                result.setdefault(key, value)
        elif narrowed:
            result["anyOf"] = narrowed
