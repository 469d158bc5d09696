"""Filler in place of everything that was said in a request; what vendors judge stays as it was."""

from __future__ import annotations

import re
from typing import Any

__all__ = ["filled", "filled_tool"]

#: Members of objects outside of schemas whose strings are kept: kinds, names and ids.
KEPT = frozenset(
    [
        "type", "role", "name", "id", "tool_use_id", "model", "media_type", "ttl", "effort", "signature", "tool_name",
        "display", "scope", "stop_reason", "tool_choice", "keep",
    ]
)  # fmt: skip
#: How a text begins decides what the proxy makes of it.
BEGINNING = re.compile(r"(?:x-anthropic-billing-header:|<[\w-]+>|# )?")
IMAGE_OR_PDF = ("image", "document")
#: Members of schemas that say something to the model alone.
SAID = ("description", "title", "$comment")


def filled(body: dict[str, Any]) -> dict[str, Any]:
    """The body of a request without its tools' texts and all others."""
    result = {key: value if key == "tools" else _filled(value, key) for key, value in body.items()}
    if "tools" in result:
        result["tools"] = [filled_tool(tool) for tool in result["tools"]]
    return result


def filled_tool(tool: dict[str, Any]) -> dict[str, Any]:
    """A tool's definition; its schema keeps all but the descriptions."""
    result = dict(tool)
    if isinstance(tool.get("description"), str):
        result["description"] = f"What {tool.get('name', 'the tool')} does."
    if isinstance(tool.get("input_schema"), dict):
        result["input_schema"] = _filled_schema(tool["input_schema"])
    if "input_examples" in result:
        result["input_examples"] = _filled(result["input_examples"], "input_examples")
    return result


def _filled_schema(schema: Any, *, is_by_name: bool = False) -> Any:
    if isinstance(schema, list):
        return [_filled_schema(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    result = {}
    for key, value in schema.items():
        if not is_by_name and key in SAID and isinstance(value, str):
            result[key] = "What it is."
        else:
            names_follow = not is_by_name and key in (
                "properties",
                "$defs",
                "definitions",
                "patternProperties",
            )
            result[key] = _filled_schema(value, is_by_name=names_follow)
    return result


def _filled(value: Any, key: str) -> Any:
    if isinstance(value, str):
        return value if key in KEPT or not value.strip() else _filler(value)
    if isinstance(value, list):
        return [_filled(item, key) for item in value]
    if isinstance(value, dict):
        if value.get("type") == "base64":  # the picture or file is one that the recorder made
            return value
        if key in ("format", "schema"):  # output_config.format
            return _filled_schema(value)
        return {name: _filled(item, name) for name, item in value.items()}
    return value


def _filler(text: str) -> str:
    found = BEGINNING.match(text)
    beginning = found[0] if found else ""
    return f"{beginning}Filler for {len(text)} characters."
