"""JSON Schema in the words that an upstream takes: one small rewrite per style of `Dialect.schema_style`.

A schema that fits already comes back as the same object. Otherwise the rewrite keeps what the style can say: whatever
the rewritten schema accepts, the original accepts too, except where the style has no word for a constraint. Such a
constraint is left out: it is a hint to the model, and the client checks the arguments itself.

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
from collections.abc import Callable, Mapping
from typing import Any

from proxyd.codecs.openai.json_schema import fits_strict, merge_all_of, narrow_for_gemini, schema_at, words_in

__all__ = ["MAX_GRAMMAR_BOUND", "fits_grammar_pattern", "in_style"]

Schema = dict[str, Any]

#: llama.cpp refuses more repetitions than this.
MAX_GRAMMAR_BOUND = 2000
#: Deepest schema that is followed; what lies deeper may be anything.
_MAX_DEPTH = 64
#: Most references that are replaced by what they name, each of which may hold several more.
_MAX_INLINED = 200

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
_ANNOTATIONS = frozenset(
    ["description", "title", "default", "examples", "$comment", "deprecated", "readOnly"]
)
_ROOT_COMBINATORS = ("anyOf", "oneOf", "allOf", "not", "enum", "const", "if", "then", "else")


def in_style(schema: Schema, style: str) -> Schema:
    """`schema`, that of an object, in `style`; itself where it fits already. It is never changed."""
    if "$schema" in schema:
        schema = {key: value for key, value in schema.items() if key != "$schema"}
    if style == "common":
        # The result of each step is legal for the styles before it.
        for each in ("grammar", "xai", "gemini", "moonshot"):
            schema = in_style(schema, each)
        return schema
    if style == "gemini":
        return narrow_for_gemini(schema)
    if style == "strict":
        plain = in_style(schema, "openai")
        closed = _rewritten(plain, _closed)
        return closed if fits_strict(closed) else plain
    if style == "openai":
        return _rewritten(_plain_root(schema), _openai)
    if style == "xai":
        return _rewritten(_plain_root(schema), _xai)
    if style == "grammar":
        return _rewritten(schema, _Grammar(schema), booleans=True)
    if style == "moonshot":
        plain = _plain_root(schema)
        result = _rewritten(plain, _Moonshot(plain), before=True, booleans=True)
        definitions = result.get("$defs")
        return (
            result if definitions != {} else {key: value for key, value in result.items() if key != "$defs"}
        )
    return schema


Rule = Callable[[Schema, str], Schema]


def _rewritten(schema: Schema, rule: Rule, *, before: bool = False, booleans: bool = False) -> Schema:
    """`schema` with `rule` applied to it and to every schema in it, in a copy where something changes.

    Args:
        rule: takes a schema and the keyword that holds it ("" for the root); returns the same object, or another.
        before: apply it before the schemas within, instead of after them.
        booleans: apply it to ``true`` and ``false`` as well, as to a schema that says nothing, except where any server
            knows them.
    """

    def visit(node: Any, keyword: str, depth: int) -> Any:
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
                inner: Any = {name: visit(child, key, depth + 1) for name, child in value.items()}
                if any(inner[name] is not value[name] for name in value):
                    changed[key] = inner
            elif (key in _SEVERAL or key == "items") and isinstance(value, list):
                inner = [visit(child, key, depth + 1) for child in value]
                if any(new is not old for new, old in zip(inner, value, strict=True)):
                    changed[key] = inner
            elif key in _ONE and not isinstance(value, list):
                inner = visit(value, key, depth + 1)
                if inner is not value:
                    changed[key] = inner
        if changed:
            node = {**node, **changed}
        return node if before else rule(node, keyword)

    result: Schema = visit(schema, "", 0)
    return result


# -- what several styles need


def _plain_root(schema: Schema) -> Schema:
    """`schema` as one object without combinators at its root.

    The properties of alternatives are offered together; required is what every alternative requires.
    """
    for _ in range(_MAX_DEPTH):
        if not isinstance(schema.get("$ref"), str):
            break
        target = schema_at(schema, schema["$ref"])
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
        branches = [item for item in _list(schema.get(keyword)) if isinstance(item, dict)]
        branches = [merge_all_of(_resolved(branch, schema)) for branch in branches]
        if not branches:
            continue
        properties: Schema = {}
        for branch in branches:
            for name, child in _mapping(branch.get("properties")).items():
                known = properties.setdefault(name, child)
                if known != child:
                    properties[name] = _either(known, child)
        # What stands beside the alternatives holds whichever of them is chosen.
        properties.update(_mapping(plain.get("properties")))
        required = [set(words_in(branch.get("required"))) for branch in branches]
        shared = set.intersection(*required) - set(words_in(plain.get("required")))
        plain["properties"] = properties
        if shared:
            plain["required"] = [*words_in(plain.get("required")), *sorted(shared)]
        if plain.get("additionalProperties") is None and all(
            branch.get("additionalProperties") is False for branch in branches
        ):
            plain["additionalProperties"] = False
    return plain


def _either(one: Any, other: Any) -> Schema:
    """What accepts what one of two schemas accepts."""
    if isinstance(one, dict) and set(one) == {"anyOf"} and isinstance(one["anyOf"], list):
        return one if other in one["anyOf"] else {"anyOf": [*one["anyOf"], other]}
    return {"anyOf": [one, other]}


def _resolved(schema: Schema, root: Schema) -> Schema:
    reference = schema.get("$ref")
    target = schema_at(root, reference) if isinstance(reference, str) else None
    return schema if target is None else target


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _anything(beside: Schema) -> Schema:
    """A schema for any value, spelled out, for those who want a type everywhere."""
    words = {key: value for key, value in beside.items() if key in ("description", "title")}
    return {**words, "anyOf": [{"type": kind} for kind in _TYPES]}


def _type_told_by(schema: Schema) -> str | None:
    """The type that the keywords of a schema without one are about."""
    return next((kind for keyword, kind in _TYPE_BY_KEYWORD.items() if keyword in schema), None)


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
    """Arrays have items, and these are a schema and no list of them."""
    items = schema.get("items")
    if isinstance(items, list):
        given = schema.get("additionalItems")
        rest = given if isinstance(given, (dict, bool)) else {}
        schema = {key: value for key, value in schema.items() if key not in ("items", "additionalItems")}
        return {**schema, "prefixItems": items, "items": rest}
    kind = schema.get("type")
    is_array = kind == "array" or (isinstance(kind, list) and "array" in kind)
    return {**schema, "items": {}} if is_array and "items" not in schema else schema


_XAI_REFUSES = frozenset(["minLength", "maxLength", "minItems", "maxItems", "minContains", "maxContains"])


def _xai(schema: Schema, keyword: str) -> Schema:
    schema = _openai(schema, keyword)
    if _XAI_REFUSES.isdisjoint(schema):
        return schema
    return {key: value for key, value in schema.items() if key not in _XAI_REFUSES}


def _closed(schema: Schema, keyword: str) -> Schema:
    """Objects closed, where closing them loses nothing that a model would say."""
    properties = schema.get("properties")
    is_closable = isinstance(properties, dict) and "additionalProperties" not in schema
    return {**schema, "additionalProperties": False} if is_closable else schema


# -- grammar

_COUNTS = ("minLength", "maxLength", "minItems", "maxItems")
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
#: What the converter finds its way by in a schema without a type.
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
    """For servers that turn schemas into a grammar: llama.cpp, LM Studio, Ollama, and the guided modes of others."""

    def __init__(self, root: Schema) -> None:
        self._root = root

    def __call__(self, schema: Schema, keyword: str) -> Schema:
        dropped = [key for key in schema if key in _NO_GRAMMAR]
        dropped += [key for key in _COUNTS if _is_above(schema.get(key), MAX_GRAMMAR_BOUND)]
        if "pattern" in schema and not fits_grammar_pattern(schema["pattern"]):
            dropped.append("pattern")
        reference = schema.get("$ref")
        if reference is not None and not self._is_known(reference):
            dropped.append("$ref")
        told = _type_told_by(schema)  # before the keywords that tell it are gone
        if dropped:
            schema = {key: value for key, value in schema.items() if key not in dropped}
        if keyword == "" or "type" in schema or any(key in schema for key in _CONVERTED_WITHOUT_TYPE):
            return schema
        if keyword in ("not", "if", "then", "else", "propertyNames"):
            return schema  # never converted
        return {**schema, "type": told} if told else _anything(schema)

    def _is_known(self, reference: Any) -> bool:
        return (
            isinstance(reference, str)
            and reference.startswith("#/")
            and schema_at(self._root, reference) is not None
        )


def _is_above(value: Any, bound: int) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value > bound


# -- moonshot

#: Keywords that hold schemas, which would all need types, and that Moonshot's flavour does not have.
_NOT_MOONSHOT = frozenset(
    [
        "oneOf", "allOf", "not", "if", "then", "else", "prefixItems", "additionalItems", "contains", "minContains",
        "maxContains", "patternProperties", "propertyNames", "dependentSchemas", "dependentRequired", "const",
        "unevaluatedItems", "unevaluatedProperties", "definitions", "$anchor", "$comment", "$dynamicRef",
        "$dynamicAnchor",
    ]
)  # fmt: skip
_MOONSHOT_TYPES = frozenset(["string", "number", "integer", "boolean", "object", "array", "null"])
#: The types of which a schema's keywords say something.
_KEYWORDS_OF: dict[str, frozenset[str]] = {
    kind: frozenset(keyword for keyword, told in _TYPE_BY_KEYWORD.items() if told == kind)
    for kind in ("string", "number", "object", "array")
}
_KEYWORDS_OF["integer"] = _KEYWORDS_OF["number"]
_TYPED = frozenset(_TYPE_BY_KEYWORD)


#: What may stand beside ``anyOf``.
_BESIDE_ALTERNATIVES = frozenset(["anyOf", "description", "title"])


class _Moonshot:
    """Every schema has a type, or ``anyOf`` alone, or ``$ref`` alone; ``required`` names what there is.

    Applied before the schemas within, since keywords beside ``anyOf`` move into its items.
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
            schema = {**schema, "$defs": {**_mapping(schema["definitions"]), **_mapping(schema.get("$defs"))}}
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
        schema = _with_object_words(schema)
        return given if schema == given else schema

    def _reference(self, schema: Schema) -> Schema:
        """A lone reference to ``#/$defs/…``; else what it names, in its place."""
        reference = schema["$ref"]
        if isinstance(reference, str):
            reference = reference.replace("#/definitions/", "#/$defs/", 1)
        target = schema_at(self._root, schema["$ref"]) if isinstance(reference, str) else None
        is_in_place = isinstance(reference, str) and re.fullmatch(r"#/\$defs/[^/]+", reference) is not None
        beside = {key: value for key, value in schema.items() if key != "$ref" and key not in _ANNOTATIONS}
        if target is None:
            return {key: value for key, value in schema.items() if key != "$ref"}
        if is_in_place and not beside:
            return schema if schema == {"$ref": reference} else {"$ref": reference}
        self._inlined += 1
        if self._inlined > _MAX_INLINED or "$ref" in target or self._holds_references(schema["$ref"], target):
            return {"$ref": reference} if is_in_place else {"type": "object"}
        words = {key: value for key, value in schema.items() if key != "$ref"}
        inlined = merge_all_of({**words, "allOf": [target]})
        return {key: value for key, value in inlined.items() if key != "$defs"}

    def _holds_references(self, reference: str, target: Schema) -> bool:
        """Whether what is named holds a reference: then it is not put in place, so that nothing grows without end."""
        known = self._holding_references.get(reference)
        if known is None:
            known = self._holding_references[reference] = "'$ref':" in repr(target)
        return known

    def _alternatives(self, schema: Schema, keyword: str) -> Schema:
        """``anyOf`` with what stands beside it in its items; a list of types, and mixed values, become one too."""
        branches = [item for item in _list(schema.get("anyOf")) if isinstance(item, dict)]
        words = {key: value for key, value in schema.items() if key in ("description", "title")}
        if branches:
            if schema.keys() <= _BESIDE_ALTERNATIVES and branches == schema["anyOf"]:
                return schema
            beside = {key: value for key, value in schema.items() if key not in ("anyOf", *_ANNOTATIONS)}
            items = [self._branch(branch, beside) for branch in branches] if beside else branches
            return {**words, "anyOf": items}
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
            known = [kind for kind in words_in(kinds) if kind in _MOONSHOT_TYPES]
            if known == kinds and len(set(known)) > 1 and schema.keys() <= {"type", "description", "title"}:
                return schema
            if len(known) == 1:
                return {**schema, "type": known[0]}
            if known:
                return {**words, "anyOf": [_of_type(schema, kind) for kind in known]}
        elif isinstance(kinds, str) and kinds in _MOONSHOT_TYPES:
            return schema
        told = _type_told_by(schema)
        if told is None and keyword == "additionalProperties" and not schema:
            return schema
        return {**schema, "type": told} if told else _anything(schema)

    def _branch(self, branch: Schema, beside: Schema) -> Schema:
        if "$ref" in branch:
            target = schema_at(self._root, branch["$ref"]) if isinstance(branch["$ref"], str) else None
            if set(beside) == {"type"} and target is not None:
                return branch  # what it names has a type of its own
            branch = _resolved(branch, self._root)
        kind = branch.get("type")
        if kind is not None and kind != beside.get("type"):
            # A type beside the alternatives that is not theirs is a mistake that others overlook.
            beside = {key: value for key, value in beside.items() if key != "type"}
        return merge_all_of({**branch, "allOf": [beside]})


def _with_object_words(schema: Schema) -> Schema:
    """``required`` within ``properties``; no items or defaults where they may not be."""
    changes: Schema = {}
    dropped: set[str] = set()
    properties = schema.get("properties")
    if "required" in schema:
        names = [name for name in words_in(schema["required"]) if name in _mapping(properties)]
        if names != schema["required"]:
            changes["required"] = names
    if isinstance(properties, dict) and any(isinstance(child, bool) for child in properties.values()):
        changes["properties"] = {
            name: {} if child is True else child for name, child in properties.items() if child is not False
        }
        known = changes["properties"]
        if "required" in schema:
            changes["required"] = [name for name in words_in(schema["required"]) if name in known]
    items = schema.get("items")
    if "items" in schema and (not isinstance(items, dict) or not items):
        dropped.add("items")
    if "default" in schema and schema.get("type") in ("object", "array"):
        dropped.add("default")
    if not changes and not dropped:
        return schema
    return {key: changes.get(key, value) for key, value in schema.items() if key not in dropped}


def _of_type(schema: Schema, kind: str) -> Schema:
    """`schema` for values of one type, with only the keywords about it."""
    own = _KEYWORDS_OF.get(kind, frozenset())
    kept = {key: value for key, value in schema.items() if key in own or key not in _TYPED}
    return {
        "type": kind,
        **{key: value for key, value in kept.items() if key != "type" and key not in _ANNOTATIONS},
    }


def _typed_values(schema: Schema, values: list[Any]) -> Schema:
    """``enum`` with a type, and one type each."""
    groups: dict[str, list[Any]] = {}
    for value in values:
        groups.setdefault(_type_of(value), []).append(value)
    if "integer" in groups and "number" in groups:
        groups["number"] += groups.pop("integer")
    words = {key: value for key, value in schema.items() if key in ("description", "title")}
    declared = schema.get("type")
    allowed = {declared} if isinstance(declared, str) else set(words_in(declared)) or None
    if allowed and "number" in allowed and "integer" in groups:
        groups["number"] = [*groups.get("number", []), *groups.pop("integer")]
    groups = {kind: group for kind, group in groups.items() if not allowed or kind in allowed} or groups
    if len(groups) == 1:
        kind, group = next(iter(groups.items()))
        if kind in ("boolean", "null", "object", "array"):
            return {**words, "type": kind}
        if schema.get("type") == kind and group == values:
            return schema
        return {**schema, "type": kind, "enum": group}
    branches: list[Schema] = [
        {"type": kind} if kind in ("boolean", "null", "object", "array") else {"type": kind, "enum": group}
        for kind, group in groups.items()
    ]
    return {**words, "anyOf": branches} if branches else _anything(words)
