"""The tools that a request offers, and the repair of calls of them (docs/spec/chat-to-messages.md#spoilt-calls).

A spoilt call is repaired only where the repaired reading is valid JSON that fits the schema of the tool.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from proxyd import jsonio

__all__ = ["OfferedTools", "tools_in"]

#: Words of gpt-oss's channels that servers leave behind the name.
_CHANNEL_WORDS = re.compile(r"<\|.*\Z", re.DOTALL)
_NAMESPACE = "functions."

_TYPES: Mapping[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "boolean": (bool,),
    "integer": (int,),
    "number": (int, float),
    "null": (type(None),),
}
#: Deepest level of a value that is compared with its schema.
_MAX_DEPTH = 8


def tools_in(offered: Iterable[Any]) -> dict[str, Any]:
    """Return name -> parameters of tools in the form of Chat Completions."""
    functions = (tool.get("function") for tool in offered if isinstance(tool, Mapping))
    return {
        function["name"]: function.get("parameters")
        for function in functions
        if isinstance(function, Mapping) and isinstance(function.get("name"), str) and function["name"]
    }


class OfferedTools:
    """Tools by the upstream's name, with their schemas."""

    __slots__ = ("_schemas", "names")

    def __init__(self, schemas: Mapping[str, Any]) -> None:
        self._schemas = schemas
        self.names = tuple(sorted(schemas, key=len, reverse=True))

    def __bool__(self) -> bool:
        return bool(self._schemas)

    def known_name(self, name: Any) -> str:
        """Return the offered name that `name` is, without channel words and namespace; "" if it is none."""
        if not isinstance(name, str):
            return ""
        for text in (name, _CHANNEL_WORDS.sub("", name).rstrip()):
            for each in (text, text.removeprefix(_NAMESPACE)):
                if each in self._schemas:
                    return each
        return ""

    def fits(self, name: str, arguments: Any) -> bool:
        """Whether `arguments` is an object that fits the schema of the tool, as far as its types and names go."""
        return isinstance(arguments, dict) and _fits(self._schemas.get(name), arguments, 0)

    def property_types(self, name: str, key: str) -> frozenset[str]:
        """Return the types of one parameter; empty if the schema does not say."""
        schema = self._schemas.get(name)
        properties = schema.get("properties") if isinstance(schema, Mapping) else None
        return _types_of(properties.get(key)) if isinstance(properties, Mapping) else frozenset()

    def read_arguments(self, name: str, text: str) -> dict[str, Any] | None:
        """Return the arguments in `text`, an object, or one that was spoilt in a known way; None for anything else."""
        try:
            value = jsonio.loads(text)
        except jsonio.JSONError:
            return self._without_first_brace(name, text)
        return value if isinstance(value, dict) else self.decoded(name, value)

    def decoded(self, name: str, value: Any) -> dict[str, Any] | None:
        """Return the object that was encoded a second time as a string; None if it does not fit the tool."""
        if not isinstance(value, str):
            return None
        try:
            inner = jsonio.loads(value)
        except jsonio.JSONError:
            return None
        return inner if self.fits(name, inner) else None

    def _without_first_brace(self, name: str, text: str) -> dict[str, Any] | None:
        if not text.lstrip().startswith('"'):
            return None
        try:
            value = jsonio.loads("{" + text)
        except jsonio.JSONError:
            return None
        return value if self.fits(name, value) else None


def _fits(schema: Any, value: Any, depth: int) -> bool:
    if not isinstance(schema, Mapping) or depth > _MAX_DEPTH:
        return True
    types = _types_of(schema)
    if types and not any(_is_of(value, each) for each in types):
        return False
    choices = schema.get("enum")
    if isinstance(choices, list) and value not in choices:
        return False
    if isinstance(value, list):
        return all(_fits(schema.get("items"), item, depth + 1) for item in value)
    if not isinstance(value, dict):
        return True
    required = schema.get("required")
    if isinstance(required, list) and any(key not in value for key in required):
        return False
    properties = schema.get("properties")
    properties = properties if isinstance(properties, Mapping) else {}
    if schema.get("additionalProperties") is False and any(key not in properties for key in value):
        return False
    return all(_fits(properties.get(key), item, depth + 1) for key, item in value.items())


def _is_of(value: Any, name: str) -> bool:
    if isinstance(value, bool) and name != "boolean":
        return False
    if isinstance(value, float) and name == "integer":
        return value.is_integer()
    return isinstance(value, _TYPES.get(name, (object,)))


def _types_of(schema: Any) -> frozenset[str]:
    """Return the types that a schema allows; empty if it does not say."""
    if not isinstance(schema, Mapping):
        return frozenset()
    named = schema.get("type")
    if isinstance(named, str):
        return frozenset((named,))
    if isinstance(named, list):
        return frozenset(each for each in named if isinstance(each, str))
    for keyword in ("anyOf", "oneOf"):
        branches = schema.get(keyword)
        if isinstance(branches, list) and branches:
            types = [_types_of(branch) for branch in branches]
            return frozenset().union(*types) if all(types) else frozenset()
    return frozenset()
