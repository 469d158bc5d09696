"""JSON Schema of models.yaml for editors, built from the same tables as the reader.

``python -m proxyd.config.schema`` prints it; ``config/models.schema.json`` is its output. The schema does not express
relations between keys and entries, which only ``claude-proxy check`` verifies.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from proxyd.config.keys import ENTRY_KEYS, TOP_KEYS
from proxyd.config.settings import TABLE

__all__ = ["build_schema", "dump_schema"]


def build_schema() -> dict[str, Any]:
    """Return the schema as plain data, in JSON Schema draft 7, which yaml-language-server reads."""
    entry = {
        "type": "object",
        "required": ["model_id", "api_base"],
        "additionalProperties": False,
        "properties": {
            name: {**key.kind.schema, "description": key.help} for name, key in ENTRY_KEYS.items()
        },
    }
    settings = {
        "type": ["object", "null"],
        "additionalProperties": False,
        "properties": {
            name: {**row.kind.schema, "description": f"{row.help} Default: {_default(row.default)}."}
            for name, row in TABLE.items()
        },
    }
    models = {"type": "array", "minItems": 1, "items": {"$ref": "#/definitions/entry"}}
    top = {
        "settings": {"$ref": "#/definitions/settings", "description": TOP_KEYS["settings"]},
        "models": {"$ref": "#/definitions/models", "description": TOP_KEYS["models"]},
        "routes": {**ENTRY_KEYS["routes"].kind.schema, "description": TOP_KEYS["routes"]},
    }
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "claude-proxy models.yaml",
        "oneOf": [
            {"$ref": "#/definitions/models"},
            {"type": "object", "required": ["models"], "additionalProperties": False, "properties": top},
        ],
        "definitions": {"entry": entry, "models": models, "settings": settings},
    }


def dump_schema() -> str:
    """Return the text of ``config/models.schema.json``."""
    return json.dumps(build_schema(), indent=2, ensure_ascii=False) + "\n"


def _default(value: Any) -> str:
    if value is None or value == "" or value == () or value == {}:
        return "none"
    return value if isinstance(value, str) else json.dumps(value)


if __name__ == "__main__":
    sys.stdout.write(dump_schema())
