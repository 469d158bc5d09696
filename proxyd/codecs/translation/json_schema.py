"""Read and rewrite JSON Schema, whatever the upstream: references, ``allOf``, types, and a walk over all subschemas.

Keywords are distinguished from property names by their position: under ``properties`` every key is a name and its
value a schema. So a property called ``format``, ``title`` or ``default`` is never mistaken for the keyword.

No function changes the schema that it is given.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

__all__ = [
    "ANNOTATIONS",
    "KEYWORDS_BY_TYPE",
    "TYPED_KEYWORDS",
    "Rule",
    "Schema",
    "accept_anything",
    "as_list",
    "as_mapping",
    "fits_strict",
    "flatten_root",
    "implied_type",
    "merge_all_of",
    "resolve",
    "resolve_reference",
    "rewrite",
    "strings_in",
]

Schema = dict[str, Any]

#: Takes a schema and the keyword that holds it ("" for the root); returns the same object, or another.
Rule = Callable[[Schema, str], Schema]

#: Deepest schema that is followed; deeper ones accept any object.
_MAX_DEPTH = 64

#: Keywords by what they hold: a schema, a list of schemas, or schemas by name.
_ONE = (
    "items", "additionalProperties", "additionalItems", "contains", "not", "if", "then", "else", "propertyNames",
    "unevaluatedItems", "unevaluatedProperties",
)  # fmt: skip
_SEVERAL = ("anyOf", "oneOf", "allOf", "prefixItems")
_NAMED = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")

#: The type that a keyword is about, for schemas that name none.
_TYPE_BY_KEYWORD = {
    **dict.fromkeys(
        ("properties", "required", "additionalProperties", "patternProperties", "propertyNames"), "object"
    ),
    **dict.fromkeys(("items", "prefixItems", "minItems", "maxItems", "uniqueItems", "contains"), "array"),
    **dict.fromkeys(("pattern", "minLength", "maxLength", "format"), "string"),
    **dict.fromkeys(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"), "number"),
}
_TYPES = ("string", "number", "boolean", "object", "array", "null")
ANNOTATIONS = frozenset(["description", "title", "default", "examples", "$comment", "deprecated", "readOnly"])
_ROOT_COMBINATORS = ("anyOf", "oneOf", "allOf", "not", "enum", "const", "if", "then", "else")


#: Type -> the keywords about it.
KEYWORDS_BY_TYPE: dict[str, frozenset[str]] = {
    kind: frozenset(keyword for keyword, implied in _TYPE_BY_KEYWORD.items() if implied == kind)
    for kind in ("string", "number", "object", "array")
}
KEYWORDS_BY_TYPE["integer"] = KEYWORDS_BY_TYPE["number"]
TYPED_KEYWORDS = frozenset(_TYPE_BY_KEYWORD)


def rewrite(schema: Schema, rule: Rule, *, before: bool = False, booleans: bool = False) -> Schema:
    """Apply `rule` to `schema` and to every schema in it, copying what changes.

    Args:
        before: apply it to a schema before its subschemas, instead of after them.
        booleans: apply it to ``true`` and ``false`` as well, as to an empty schema, except where every server
            understands them.
    """
    result: Schema = _visit(schema, "", 0, rule, before, booleans)
    return result


def _visit(node: Any, keyword: str, depth: int, rule: Rule, before: bool, booleans: bool) -> Any:
    # A function of the module: a nested one that calls itself would be a reference cycle.
    if isinstance(node, bool) and keyword not in ("", "additionalProperties", "unevaluatedProperties"):
        return rule({}, keyword) if booleans else node
    if not isinstance(node, dict):
        return node
    if depth > _MAX_DEPTH:
        return {"type": "object"}
    if before:
        node = rule(node, keyword)
    changed: Schema = {}
    for key, value in node.items():
        if key in _NAMED and isinstance(value, Mapping):
            inner: Any = {
                name: _visit(child, key, depth + 1, rule, before, booleans) for name, child in value.items()
            }
            if any(inner[name] is not value[name] for name in value):
                changed[key] = inner
        elif (key in _SEVERAL or key == "items") and isinstance(value, list):
            inner = [_visit(child, key, depth + 1, rule, before, booleans) for child in value]
            if any(new is not old for new, old in zip(inner, value, strict=True)):
                changed[key] = inner
        elif key in _ONE and not isinstance(value, list):
            inner = _visit(value, key, depth + 1, rule, before, booleans)
            if inner is not value:
                changed[key] = inner
    if changed:
        node = {**node, **changed}
    return node if before else rule(node, keyword)


def flatten_root(schema: Schema) -> Schema:
    """Turn `schema` into one object without combinators at its root.

    It has the properties of all alternatives and requires what every alternative requires.
    """
    for _ in range(_MAX_DEPTH):
        if not isinstance(schema.get("$ref"), str):
            break
        target = resolve_reference(schema, schema["$ref"])
        if target is None:
            schema = {key: value for key, value in schema.items() if key != "$ref"}
        else:
            beside = {key: value for key, value in schema.items() if key != "$ref"}
            schema = merge_all_of({**beside, "allOf": [target]})
    if "$ref" in schema:  # it names itself
        schema = {key: value for key, value in schema.items() if key != "$ref"}
    if not any(keyword in schema for keyword in _ROOT_COMBINATORS):
        return schema
    schema = merge_all_of(schema)
    plain = {key: value for key, value in schema.items() if key not in _ROOT_COMBINATORS}
    for keyword in ("anyOf", "oneOf"):
        branches = [item for item in as_list(schema.get(keyword)) if isinstance(item, dict)]
        branches = [merge_all_of(resolve(branch, schema)) for branch in branches]
        if not branches:
            continue
        properties: Schema = {}
        for branch in branches:
            for name, child in as_mapping(branch.get("properties")).items():
                known = properties.setdefault(name, child)
                if known != child:
                    properties[name] = _union(known, child)
        # Properties beside the alternatives apply to all of them.
        properties.update(as_mapping(plain.get("properties")))
        required = [set(strings_in(branch.get("required"))) for branch in branches]
        shared = set.intersection(*required) - set(strings_in(plain.get("required")))
        plain["properties"] = properties
        if shared:
            plain["required"] = [*strings_in(plain.get("required")), *sorted(shared)]
        if plain.get("additionalProperties") is None and all(
            branch.get("additionalProperties") is False for branch in branches
        ):
            plain["additionalProperties"] = False
    return plain


def _union(one: Any, other: Any) -> Schema:
    """Return a schema that accepts whatever one of two accepts."""
    if isinstance(one, dict) and set(one) == {"anyOf"} and isinstance(one["anyOf"], list):
        return one if other in one["anyOf"] else {"anyOf": [*one["anyOf"], other]}
    return {"anyOf": [one, other]}


def resolve(schema: Schema, root: Schema) -> Schema:
    """Return the target of a schema's ``$ref``, or the schema itself."""
    reference = schema.get("$ref")
    target = resolve_reference(root, reference) if isinstance(reference, str) else None
    return schema if target is None else target


def as_mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def accept_anything(beside: Schema) -> Schema:
    """Return a schema for any value with all types spelled out, keeping the texts of `beside`."""
    texts = {key: value for key, value in beside.items() if key in ("description", "title")}
    return {**texts, "anyOf": [{"type": kind} for kind in _TYPES]}


def implied_type(schema: Schema) -> str | None:
    """Return the type that the keywords of a schema without a type are about."""
    return next((kind for keyword, kind in _TYPE_BY_KEYWORD.items() if keyword in schema), None)


def strings_in(value: Any) -> list[str]:
    """Return the strings in what should be a list of strings."""
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []


def resolve_reference(root: dict[str, Any], reference: str) -> dict[str, Any] | None:
    """Look up a reference such as ``#/$defs/a``; None where it names no schema within `root`."""
    if not reference.startswith("#"):
        return None
    target: Any = root
    for step in reference[1:].split("/"):
        if step:
            name = step.replace("~1", "/").replace("~0", "~")
            target = target.get(name) if isinstance(target, dict) else None
    return target if isinstance(target, dict) else None


def merge_all_of(schema: dict[str, Any]) -> dict[str, Any]:
    """Merge the members of ``allOf`` into `schema`; its own keywords take precedence."""
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
