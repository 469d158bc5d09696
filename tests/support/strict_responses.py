"""A judge of Responses requests as strict as OpenAI itself, and in places stricter.

Used by the codec tests and by the fake upstream of the end-to-end harness. Written from docs/spec/responses.md and from
the refusals reported in public; it shares no code with the translation it judges. The official SDK's types judge the
fields (`tests.support.openai_types`); this judges what types cannot say.
"""

from __future__ import annotations

import json
import re
from typing import Any

from tests.support.openai_types import violations

__all__ = ["validate"]

NAME = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")
MAX_CALL_ID = 64
MAX_BREAKPOINTS = 4
MIN_OUTPUT = 16
MAX_CACHE_KEY = 64


def validate(body: Any) -> list[str]:
    """All the violations in a request body, one sentence each; none for a good one."""
    if not isinstance(body, dict):
        return ["the body is no object"]
    faults = violations(body)
    if body.get("store") is not False:
        faults.append("store: nothing may be kept at the vendor")
    if len(body.get("prompt_cache_key") or "") > MAX_CACHE_KEY:
        faults.append("prompt_cache_key: string too long")
    faults += _of_tools(body)
    faults += _of_input(body)
    return faults


def _of_tools(body: dict[str, Any]) -> list[str]:
    faults = []
    names = set()
    for at, tool in enumerate(body.get("tools") or ()):
        name = tool.get("name", "")
        if not NAME.match(name) or name in names:
            faults.append(f"tools.{at}.name: not allowed, or repeated")
        names.add(name)
        if tool.get("strict") is not False and "additionalProperties" not in (tool.get("parameters") or {}):
            faults.append(f"tools.{at}.strict: without false the schema would be rewritten")
        if (tool.get("parameters") or {}).get("type") != "object":
            faults.append(f"tools.{at}.parameters: no object")
    choice = body.get("tool_choice")
    if isinstance(choice, dict) and choice.get("name") not in names:
        faults.append("tool_choice: names no tool")
    return faults


def _of_input(body: dict[str, Any]) -> list[str]:
    items = body.get("input")
    if not isinstance(items, list) or not items:
        return ["input: expected items"]
    faults: list[str] = []
    open_calls: set[str] = set()
    breakpoints = 0
    for at, item in enumerate(items):
        kind, path = item.get("type"), f"input.{at}"
        if item.get("id") is not None:
            faults.append(
                f"Item with id '{item['id']}' not found. Items are not persisted when `store` is false."
            )
        if kind == "reasoning":
            follower = items[at + 1] if at + 1 < len(items) else {}
            is_answer = follower.get("type") in ("reasoning", "function_call") or (
                follower.get("role") == "assistant"
            )
            if not is_answer:
                faults.append(
                    f"{path}: item of type 'reasoning' was provided without its required following item."
                )
            if not item.get("encrypted_content"):
                faults.append(f"{path}.encrypted_content: missing")
        elif kind == "function_call":
            call_id = item.get("call_id", "")
            if not 0 < len(call_id) <= MAX_CALL_ID or call_id in open_calls:
                faults.append(f"{path}.call_id: too long, or repeated")
            open_calls.add(call_id)
            if not NAME.match(item.get("name", "")):
                faults.append(f"{path}.name: not allowed")
            try:
                if not isinstance(json.loads(item.get("arguments", "")), dict):
                    faults.append(f"{path}.arguments: no JSON object")
            except ValueError:
                faults.append(f"{path}.arguments: no JSON")
        elif kind == "function_call_output":
            if item.get("call_id") not in open_calls:
                faults.append(f"{path}: No tool call found for function call output")
            open_calls.discard(item.get("call_id", ""))
        elif open_calls and item.get("role") != "assistant":
            faults.append(f"{path}: No tool output found for function call {sorted(open_calls)[0]}.")
        content = item.get("output" if kind == "function_call_output" else "content")
        if isinstance(content, list):
            breakpoints += sum("prompt_cache_breakpoint" in part for part in content)
            faults += [f"{path}: empty text" for part in content if part.get("text") == ""]
        elif content == "":
            faults.append(f"{path}: empty text")
    if open_calls:
        faults.append(f"No tool output found for function call {sorted(open_calls)[0]}.")
    if breakpoints > MAX_BREAKPOINTS:
        faults.append(f"at most {MAX_BREAKPOINTS} cache breakpoints")
    return faults
