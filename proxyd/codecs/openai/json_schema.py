"""JSON Schema for Gemini, which takes only part of it, and what `schema_styles` needs besides.

Keywords are told from property names by their place: under ``properties`` every key is a name, and its value
a schema. So a property called ``format``, ``title`` or ``default`` is never mistaken for the keyword.

Gemini's subset: the fields of `Schema` in the Gemini API reference (the OpenAI layer maps ``parameters`` to
it, and answers 400 ``Unknown name`` for others on older models).
"""

from __future__ import annotations

from typing import Any

__all__ = ["fits_strict", "merge_all_of", "narrow_for_gemini", "schema_at", "words_in"]

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

#: Deepest schema that is followed; what lies deeper becomes a bare object.
_MAX_DEPTH = 24
#: Most places that references are put in: each may hold several more, so that depth alone bounds nothing.
_MAX_REFERENCES = 200


def narrow_for_gemini(schema: dict[str, Any]) -> dict[str, Any]:
    """`schema` in the words Gemini knows, as an object schema; `schema` itself is not touched.

    What has no equivalent is left out: the model may then send arguments that the client refuses, which it
    can mend; a refused request it could not.
    """
    return _Narrower(schema).narrow(schema, 0)


class _Narrower:
    def __init__(self, root: dict[str, Any]) -> None:
        self._root = root
        self._references_left = _MAX_REFERENCES
        self._followed: list[str] = []

    def narrow(self, schema: Any, depth: int) -> dict[str, Any]:
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
            # An alternative that stands alone has been drawn in: what it knows is known beside them.
            known = result["properties"] = {**result.get("properties", {}), **own}
            required = [*result.pop("required", ()), *words_in(schema.get("required"))]
            if names := [name for name in required if name in known]:
                result["required"] = names
        if result.get("type") == "array":
            result["items"] = self._items(schema, depth)
        return result

    def _items(self, schema: dict[str, Any], depth: int) -> dict[str, Any]:
        """Never empty: Gemini refuses an array without items ("items: missing field")."""
        return self.narrow(schema.get("items"), depth + 1) or {"type": "string"}

    def _follow(self, schema: dict[str, Any], depth: int) -> dict[str, Any]:
        reference = schema["$ref"]
        if (
            not isinstance(reference, str)
            or not reference.startswith("#")
            or reference in self._followed  # a recursive schema, which Gemini cannot express
            or not self._references_left
        ):
            return {"type": "object"}
        self._references_left -= 1
        target = schema_at(self._root, reference)
        if target is None:
            return {"type": "object"}
        beside = {key: value for key, value in schema.items() if key != "$ref"}
        self._followed.append(reference)
        narrowed = self.narrow({**target, **beside}, depth + 1)
        self._followed.pop()
        return narrowed

    def _type(self, schema: dict[str, Any], result: dict[str, Any], depth: int) -> None:
        kind = schema.get("type")
        if isinstance(kind, list):
            kinds = [item for item in words_in(kind) if item in _TYPES]
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
        elif isinstance(schema.get("properties"), dict):
            result["type"] = "object"

    def _values(self, schema: dict[str, Any], result: dict[str, Any]) -> None:
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

    def _alternatives(self, alternatives: list[Any], result: dict[str, Any], depth: int) -> None:
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


def words_in(value: Any) -> list[str]:
    """The strings in what should be a list of them."""
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []


def schema_at(root: dict[str, Any], reference: str) -> dict[str, Any] | None:
    """The schema within `root` that a reference such as ``#/$defs/a`` names."""
    if not reference.startswith("#"):
        return None
    target: Any = root
    for step in reference[1:].split("/"):
        if step:
            name = step.replace("~1", "/").replace("~0", "~")
            target = target.get(name) if isinstance(target, dict) else None
    return target if isinstance(target, dict) else None


def merge_all_of(schema: dict[str, Any]) -> dict[str, Any]:
    """`schema` with the members of ``allOf`` drawn into it, as far as they are plain."""
    parts = schema.get("allOf")
    if not isinstance(parts, list):
        return schema
    merged = {key: value for key, value in schema.items() if key != "allOf"}
    for part in parts:
        if not isinstance(part, dict):
            continue
        for key, value in part.items():
            present = merged.get(key)
            if isinstance(present, dict) and isinstance(value, dict):
                merged[key] = {**value, **present}
            elif isinstance(present, list) and isinstance(value, list) and key == "required":
                merged[key] = [*present, *(item for item in value if item not in present)]
            else:
                merged.setdefault(key, value)
    return merged


def fits_strict(schema: Any) -> bool:
    """Whether OpenAI's strict mode takes `schema`: all objects closed, and all their properties required."""
    if isinstance(schema, list):
        return all(fits_strict(item) for item in schema)
    if not isinstance(schema, dict):
        return True
    if any(keyword in schema for keyword in ("allOf", "oneOf", "not", "if", "patternProperties")):
        return False
    properties = schema.get("properties", {})
    if not isinstance(properties, dict):
        return False
    if schema.get("type") == "object" or properties:
        required = schema.get("required", [])
        if schema.get("additionalProperties") is not False:
            return False
        if not isinstance(required, list) or any(name not in required for name in properties):
            return False
    definitions = schema.get("$defs", {})
    return (
        all(fits_strict(child) for child in properties.values())
        and isinstance(definitions, dict)
        and all(fits_strict(child) for child in definitions.values())
        and all(fits_strict(schema[keyword]) for keyword in ("items", "anyOf") if keyword in schema)
    )
