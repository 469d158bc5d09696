"""Describe a Responses request in the terms of Chat Completions.

Rules that read refusals look at what was sent (`proxyd.providers.error_rules`). They are written for Chat Completions,
and the two requests differ in names, not in meaning: with this view one set of rules serves both.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from proxyd.codecs.responses.request import LIMIT_FIELD

__all__ = ["encrypted_contents", "in_chat_terms"]

_PARTS = {"input_text": "text", "input_image": "image_url", "input_file": "file"}


def in_chat_terms(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return what rules look at: the body's own fields, with messages, tools and formats as in Chat Completions."""
    view = dict(body)
    view["messages"] = [_message(item) for item in _objects(body.get("input"))]
    if tools := _objects(body.get("tools")):
        view["tools"] = [{"type": "function", "function": tool} for tool in tools]
    reasoning = view.pop("reasoning", None)
    if isinstance(reasoning, Mapping):
        view["reasoning_options"] = reasoning
        if "effort" in reasoning:
            view["reasoning_effort"] = reasoning["effort"]
    text = body.get("text")
    if isinstance(text, Mapping) and isinstance(text.get("format"), Mapping):
        view["response_format"] = text["format"]
    if LIMIT_FIELD in body:
        view["max_tokens"] = body[LIMIT_FIELD]
    return view


def _message(item: Mapping[str, Any]) -> dict[str, Any]:
    kind = item.get("type")
    if kind == "function_call":
        return {"role": "assistant", "tool_calls": [{"type": "function", "function": item}]}
    if kind == "function_call_output":
        return {"role": "tool", "content": _content(item.get("output"))}
    if kind == "reasoning":
        return {"role": "assistant", "reasoning_item": item}
    return {**item, "content": _content(item.get("content"))}


def _content(content: Any) -> Any:
    if not isinstance(content, list):
        return content
    parts = []
    for part in _objects(content):
        made = {**part, "type": _PARTS.get(str(part.get("type")), part.get("type"))}
        if "prompt_cache_breakpoint" in part:
            made["cache_control"] = part["prompt_cache_breakpoint"]
        parts.append(made)
    return parts


def encrypted_contents(body: Mapping[str, Any]) -> list[str]:
    """Return the encrypted reasoning of earlier turns that a request holds."""
    found = [item.get("encrypted_content") for item in _objects(body.get("input"))]
    return [content for content in found if isinstance(content, str)]


def _objects(value: Any) -> list[Mapping[str, Any]]:
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list) else []
