"""A small MCP server over stdio whose tools have the schemas that vendors stumble over."""

from __future__ import annotations

import json
import sys
from typing import Any

SCHEMAS: dict[str, dict[str, Any]] = {
    "typeless": {
        "type": "object",
        "properties": {"anything": {"description": "d"}, "level": {"enum": ["a", "b"]}},
    },
    "array_without_items": {"type": "object", "properties": {"tags": {"type": "array", "description": "d"}}},
    "type_beside_any_of": {
        "type": "object",
        "properties": {"v": {"type": "string", "anyOf": [{"type": "string"}, {"type": "null"}]}},
    },
    "reference_beside_words": {
        "type": "object",
        "properties": {"v": {"$ref": "#/$defs/V", "description": "d"}},
        "$defs": {"V": {"type": "string"}},
    },
    "alternatives_at_the_root": {
        "type": "object",
        "properties": {"a": {"type": "string"}, "b": {"type": "string"}},
        "anyOf": [{"required": ["a"]}, {"required": ["b"]}],
    },
    "required_but_absent": {
        "type": "object",
        "properties": {"v": {"type": "string"}},
        "required": ["v", "gone"],
    },
    "patterns_and_bounds": {
        "type": "object",
        "properties": {
            "word": {"type": "string", "pattern": "\\S", "maxLength": 524288},
            "look": {"type": "string", "pattern": "^(?!no).*$"},
            "many": {
                "type": "array",
                "items": {"type": ["string", "null"]},
                "maxItems": 5000,
                "uniqueItems": True,
            },
        },
    },
    "a_tool_with_a_name_that_is_longer_than_the_sixty_four_characters": {"type": "object", "properties": {}},
}


def answer(method: str, params: dict[str, Any]) -> dict[str, Any]:
    if method == "initialize":
        info = {"name": "odd", "version": "1"}
        return {
            "protocolVersion": params["protocolVersion"],
            "capabilities": {"tools": {}},
            "serverInfo": info,
        }
    if method == "tools/list":
        return {
            "tools": [
                {"name": name, "description": name, "inputSchema": schema} for name, schema in SCHEMAS.items()
            ]
        }
    if method == "tools/call":
        return {"content": [{"type": "text", "text": "done"}]}
    return {}


def main() -> None:
    for line in sys.stdin:
        message = json.loads(line)
        if "id" in message:
            result = answer(message["method"], message.get("params") or {})
            print(json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}), flush=True)


if __name__ == "__main__":
    main()
