"""The official ``google-genai`` SDK's types as a judge of request bodies.

The types forbid fields that they do not have. They are read from JSON, so that bytes must be base64, as on the wire.
"""

from __future__ import annotations

import functools
import json
from typing import Any

from pydantic import BaseModel, ValidationError

__all__ = ["violations"]


@functools.cache
def _fields() -> dict[str, tuple[type[BaseModel], bool]]:
    """Return the type of the value of each field of a request, or of the items of its list."""
    from google.genai import types  # takes a second where nobody calls this

    return {
        "contents": (types.Content, True),
        "systemInstruction": (types.Content, False),
        "tools": (types.Tool, True),
        "toolConfig": (types.ToolConfig, False),
        "generationConfig": (types.GenerationConfig, False),
        "safetySettings": (types.SafetySetting, True),
    }


def violations(body: Any) -> list[str]:
    """What Google's types of a ``generateContent`` request do not allow in `body`; empty for a good one."""
    if not isinstance(body, dict):
        return ["the body is no object"]
    faults = [f"{name}: there is no such field" for name in body if name not in _fields()]
    for name, (model, is_list) in _fields().items():
        if name not in body:
            continue
        value = body[name]
        if is_list and not isinstance(value, list):
            faults.append(f"{name}: no list")
            continue
        for item in value if is_list else [value]:
            try:
                model.model_validate_json(json.dumps(item))
            except ValidationError as exc:
                faults += [
                    f"{name}.{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in exc.errors()
                ]
    return faults
