"""What vendors refuse in the schemas of tools. Each function returns the vendor's words, or None."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

from tests.support.vendors.engine import Body

__all__ = ["gemini", "grammar", "moonshot", "openai", "tool_names", "tools_of", "xai"]

Path = tuple[str, ...]


def tools_of(body: Body) -> list[tuple[str, dict[str, Any]]]:
    """Name and schema of each function."""
    tools = body.get("tools") or []
    return [(tool["function"]["name"], tool["function"].get("parameters", {})) for tool in tools]


def nodes(schema: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Every schema within `schema`, itself first, told from property names by its place."""
    yield path, schema
    if not isinstance(schema, dict):
        return
    for key in ("properties", "patternProperties", "$defs", "definitions"):
        named = schema.get(key)
        for name, child in (named if isinstance(named, dict) else {}).items():
            yield from nodes(child, (*path, key, name))
    for key in ("items", "additionalProperties", "propertyNames", "contains", "not", "if", "then", "else"):
        child = schema.get(key)
        if isinstance(child, dict):
            yield from nodes(child, (*path, key))
    for key in ("anyOf", "oneOf", "allOf", "prefixItems", "items"):
        several = schema.get(key)
        for number, child in enumerate(several if isinstance(several, list) else ()):
            yield from nodes(child, (*path, key, str(number)))


def openai(body: Body) -> str | tuple[str, str] | None:
    """Arrays without items, combinators at the root, and lists of items."""
    for number, (name, schema) in enumerate(tools_of(body)):
        words = _openai_fault(schema)
        if words:
            return f"Invalid schema for function '{name}': {words}", f"tools[{number}].function.parameters"
    return None


def _openai_fault(schema: dict[str, Any]) -> str | None:
    if schema.get("type") != "object":
        return f"schema must be a JSON Schema of 'type: \"object\"', got 'type: \"{schema.get('type')}\"'."
    if {"oneOf", "anyOf", "allOf", "enum", "not"} & set(schema):
        return "schema must have type 'object' and not have 'oneOf'/'anyOf'/'allOf'/'enum'/'not' at the top level."
    for path, node in nodes(schema):
        if not isinstance(node, dict):
            continue
        kinds = node.get("type")
        if (kinds == "array" or (isinstance(kinds, list) and "array" in kinds)) and "items" not in node:
            return f"In context={path}, array schema missing items."
        if isinstance(node.get("items"), list):
            return f"{node['items']} is not of type 'object', 'boolean'."
        if not isinstance(node.get("required", []), list):
            return f"{node['required']} is not of type 'array'."
    return None


def moonshot(body: Body) -> str | None:
    """Moonshot's flavour, as its validator words it."""
    for _, schema in tools_of(body):
        fault = _moonshot_fault(schema)
        if fault:
            return (
                "Invalid request: tools.function.parameters is not a valid moonshot flavored json schema, "
                f"details: <{fault}>"
            )
    return None


MOONSHOT_TYPES = {"null", "boolean", "object", "array", "number", "integer", "string"}
#: Keywords that hold schemas and that the flavour does not have.
NOT_MOONSHOT = (
    "oneOf", "allOf", "not", "if", "then", "else", "prefixItems", "contains", "patternProperties", "propertyNames",
    "unevaluatedItems", "dependentSchemas", "const",
)  # fmt: skip


def _moonshot_fault(schema: dict[str, Any]) -> str | None:
    for path, node in nodes(schema):
        at = f"At path '{'.'.join(path) or 'root'}': "
        if isinstance(node, bool):
            return f"{at}type is not defined"
        if "$ref" in node:
            if len(node) > 1:
                return f"{at}when using $ref, no other keywords are allowed"
            reference = str(node["$ref"])
            name = reference.removeprefix("#/$defs/")
            if reference != "#" and (name == reference or name not in schema.get("$defs", {})):
                return f"{at[:-3]}.$ref': references must start with #/$defs/"
            continue
        if "anyOf" in node:
            if "type" in node:
                return f"{at}when using anyOf, type should be defined in anyOf items instead of the parent schema"
            others = set(node) - {"anyOf", "description", "title", "$defs", "$id"}
            if others:
                return f"{at}when using anyOf, {sorted(others)[0]} should be defined in anyOf items"
            if not 1 <= len(node["anyOf"]) <= 10:
                return f"{at}anyOf must have 1 to 10 items"
            continue
        kinds = node.get("type")
        if kinds is None and not (node == {} and path[-1:] == ("additionalProperties",)):
            return f"{at}type is not defined"
        if isinstance(kinds, str) and kinds not in MOONSHOT_TYPES:
            return f"{at}type {kinds} is not supported"
        if isinstance(kinds, list):
            if not kinds or not set(kinds) <= MOONSHOT_TYPES:
                return f"{at}type {kinds} is not supported"
            if "enum" not in node and set(node) - {"type", "description", "title"}:
                return f"{at}only description and title may stand beside a list of types"
        for keyword in NOT_MOONSHOT:
            if keyword in node:
                return f"{at}keyword {keyword} is not supported"
        if "$defs" in node and path:
            return f"{at}$defs must be at the root"
        missing = [name for name in node.get("required") or [] if name not in node.get("properties", {})]
        if missing:
            return f"{at}required property '{missing[0]}' is not defined in properties"
        values = node.get("enum")
        if values is not None and len({type(value) for value in values} - {int, float}) > 1:
            return f"{at}enum values must be of one type"
        if values and kinds == "string" and not all(isinstance(value, str) for value in values):
            return f"{at}enum value does not match type {kinds}"
        if "items" in node and not node["items"]:
            return f"{at}items must not be empty"
    return None


#: llama.cpp's grammar language knows these escapes.
GRAMMAR_ESCAPES = set('nrt\\"[]^$.|(){}*+?')
MAX_REPETITIONS = 2000


def grammar(body: Body) -> str | None:
    """What the conversion of schemas into a grammar does not take, in llama.cpp's words."""
    for _, schema in tools_of(body):
        for path, node in nodes(schema):
            fault = _grammar_fault(node, path, schema)
            if fault:
                return fault
    return None


def _grammar_fault(node: Any, path: Path, root: dict[str, Any]) -> str | None:
    conversion = "JSON schema conversion failed:\n"
    if any(
        step in ("not", "if", "then", "else", "propertyNames", "contains", "patternProperties")
        for step in path
    ):
        return None  # never looked at
    if not isinstance(node, dict):
        return f"{conversion}Unrecognized schema: {json.dumps(node)}"
    counts = [node.get(word) for word in ("minLength", "maxLength", "minItems", "maxItems")]
    if any(isinstance(count, int) and count > MAX_REPETITIONS for count in counts):
        return "Failed to initialize samplers: failed to parse grammar"
    reference = node.get("$ref")
    if reference is not None:
        return None if _leads_somewhere(root, reference) else f"{conversion}Unsupported ref: {reference}"
    pattern = node.get("pattern")
    if pattern is not None:
        if not (pattern.startswith("^") and pattern.endswith("$")):
            return f"{conversion}Pattern must start with '^' and end with '$'"
        escapes = re.findall(r"\\(.)", pattern)
        if "(?" in pattern or any(letter not in GRAMMAR_ESCAPES for letter in escapes):
            return "Failed to initialize samplers: failed to parse grammar"
    known = (
        "type",
        "anyOf",
        "oneOf",
        "allOf",
        "enum",
        "const",
        "properties",
        "items",
        "prefixItems",
        "pattern",
    )
    if path and node and not any(word in node for word in known):
        return f"{conversion}Unrecognized schema: {json.dumps(node)}"
    return None


def _leads_somewhere(root: Any, reference: str) -> bool:
    if not reference.startswith("#/"):
        return False
    for step in reference[2:].split("/"):
        root = root.get(step.replace("~1", "/").replace("~0", "~")) if isinstance(root, dict) else None
    return root is not None


GEMINI = {
    "title", "description", "nullable", "maxItems", "minItems", "minProperties", "maxProperties", "minLength",
    "maxLength", "pattern", "minimum", "maximum", "default", "type", "enum", "anyOf", "format", "properties",
    "required", "items",
}  # fmt: skip


def gemini(body: Body) -> str | None:
    """Unknown keywords, arrays without items, enums that are no strings, required beyond properties."""
    for number, (_, schema) in enumerate(tools_of(body)):
        at = f"tools.function_declarations[{number}].parameters"
        for path, node in nodes(schema):
            where = ".".join((at, *path))
            unknown = sorted(set(node) - GEMINI)
            if unknown:
                return f"Invalid JSON payload received. Unknown name \"{unknown[0]}\" at '{where}': Cannot find field."
            if isinstance(node.get("type"), list):
                return f"Invalid value at '{where}.type' (TYPE_ENUM): Proto field is not repeating, cannot start list."
            if node.get("type") == "array" and not node.get("items"):
                return f"* GenerateContentRequest.{where}.items: missing field."
            if not all(isinstance(value, str) and value for value in node.get("enum", [])):
                return f"Invalid value at '{where}.enum[0]' (TYPE_STRING)"
            missing = [name for name in node.get("required", []) if name not in node.get("properties", {})]
            if missing:
                return f"* GenerateContentRequest.{where}.required[0]: property is not defined"
    return None


XAI = ("minLength", "maxLength", "minItems", "maxItems", "minContains", "maxContains")


def xai(body: Body) -> str | None:
    """Bounds on lengths."""
    for _, schema in tools_of(body):
        for _, node in nodes(schema):
            if isinstance(node, dict) and any(word in node for word in XAI):
                return "Invalid arguments passed to the model."
    return None


def tool_names(pattern: str, words: str) -> Callable[[Body], str | None]:
    """Names that do not match `pattern`; `words` may hold ``{name}``."""

    def finds(body: Body) -> str | None:
        for name, _ in tools_of(body):
            if not re.fullmatch(pattern, name):
                return words.format(name=name)
        return None

    return finds
