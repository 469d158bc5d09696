"""A judge of Gemini requests as strict as Google itself, and in places stricter.

Used by the codec tests and by the fake upstream of the end-to-end harness. Written from docs/spec/gemini.md and from
the refusals reported in public; it shares no code with the translation it judges. The official SDK's types judge the
fields (`tests.support.google_types`); this judges what types cannot say.
"""

from __future__ import annotations

import re
from typing import Any

from tests.support.google_types import violations

__all__ = ["validate"]

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.:-]{0,127}\Z")
MAX_STOP_SEQUENCES = 5


def validate(body: Any, *, wants_signatures: bool = True) -> list[str]:
    """All the violations in a request body, one sentence each; none for a good one.

    Args:
        wants_signatures: the model is Gemini 3 or later.
    """
    faults = violations(body)
    if not isinstance(body, dict) or not isinstance(body.get("contents"), list) or not body["contents"]:
        return [*faults, "contents: expected some"]
    names, more = _of_tools(body)
    faults += more
    faults += _of_config(body.get("generationConfig") or {})
    choice = (body.get("toolConfig") or {}).get("functionCallingConfig") or {}
    if not set(choice.get("allowedFunctionNames") or ()) <= names:
        faults.append("allowedFunctionNames: names no function")
    if choice.get("mode") == "ANY" and not names:
        faults.append("Forced function calling (mode = ANY) is only supported with function declarations")
    faults += _of_contents(body["contents"])
    if wants_signatures:
        faults += _of_signatures(body["contents"])
    return faults


def _of_tools(body: dict[str, Any]) -> tuple[set[str], list[str]]:
    names: set[str] = set()
    faults = []
    for tool in body.get("tools") or ():
        for at, declaration in enumerate(tool.get("functionDeclarations") or ()):
            path, name = f"tools.{at}", declaration.get("name", "")
            if not NAME.match(name) or name in names:
                faults.append(f"{path}.name: not allowed, or repeated")
            names.add(name)
            if "parameters" in declaration and "parametersJsonSchema" in declaration:
                faults.append(f"{path}: parameters and parametersJsonSchema exclude each other")
            if "parameters" in declaration and not declaration["parameters"].get("properties"):
                faults.append(f"{path}.parameters.properties: should be non-empty for OBJECT type")
            whole = declaration.get("parametersJsonSchema")
            if whole is not None and whole.get("type") != "object":
                faults.append(f"{path}.parametersJsonSchema: no object")
    return names, faults


def _of_config(config: dict[str, Any]) -> list[str]:
    faults = []
    thinking = config.get("thinkingConfig") or {}
    if "thinkingLevel" in thinking and "thinkingBudget" in thinking:
        faults.append("You can only set only one of thinking budget and thinking level.")
    if len(config.get("stopSequences") or ()) > MAX_STOP_SEQUENCES:
        faults.append("stopSequences: at most 5")
    has_schema = "responseSchema" in config or "responseJsonSchema" in config
    if has_schema and config.get("responseMimeType") != "application/json":
        faults.append("a response schema needs responseMimeType application/json")
    return faults


def _of_contents(contents: list[Any]) -> list[str]:
    faults = []
    if contents[0].get("role") != "user":
        faults.append("contents: must begin with the user")
    open_calls: list[dict[str, Any]] = []
    before = None
    for at, content in enumerate(contents):
        path, role, parts = f"contents.{at}", content.get("role"), content.get("parts") or []
        if role not in ("user", "model") or role == before:
            faults.append(f"{path}.role: {role} after {before}")
        before = role
        if not parts:
            faults.append(f"{path}.parts: must not be empty")
        if any(part == {} or (part.get("text") == "" and "thoughtSignature" not in part) for part in parts):
            faults.append(f"{path}.parts: required oneof field 'data' must have one initialized field")
        results = [part["functionResponse"] for part in parts if "functionResponse" in part]
        if role == "user":
            faults += _of_results(path, parts, results, open_calls)
            open_calls = []
            continue
        if results:
            faults.append(f"{path}: a function response of the model")
        open_calls = [part["functionCall"] for part in parts if "functionCall" in part]
        faults += [
            f"{path}: function name not allowed"
            for call in open_calls
            if not NAME.match(call.get("name", ""))
        ]
        faults += [
            f"{path}: args are no object" for call in open_calls if not isinstance(call.get("args"), dict)
        ]
    if open_calls:
        faults.append("contents: a function call has no response")
    return faults


def _of_results(
    path: str, parts: list[Any], results: list[dict[str, Any]], calls: list[dict[str, Any]]
) -> list[str]:
    faults = []
    if len(results) != len(calls):
        faults.append(
            f"{path}: Please ensure that the number of function response parts is equal to the number of function "
            "call parts of the function call turn."
        )
    if any("functionResponse" not in part for part in parts[: len(results)]):
        faults.append(f"{path}: function responses come first")
    for call, result in zip(calls, results, strict=False):
        if (call.get("name"), call.get("id")) != (result.get("name"), result.get("id")):
            faults.append(f"{path}: the response of {result.get('name')} is not in the order of the calls")
        response = result.get("response")
        if not isinstance(response, dict) or len(response.keys() & {"output", "error"}) != 1:
            faults.append(f"{path}: a function response has neither output nor error")
    return faults


def _of_signatures(contents: list[Any]) -> list[str]:
    """The first call of each step of the current turn carries a signature."""
    prompts = [
        at
        for at, content in enumerate(contents)
        if content.get("role") == "user"
        and not any("functionResponse" in part for part in content.get("parts") or ())
    ]
    faults = []
    for at in range(prompts[-1] + 1 if prompts else 0, len(contents)):
        calls = [part for part in contents[at].get("parts") or () if "functionCall" in part]
        if calls and not calls[0].get("thoughtSignature"):
            name = calls[0]["functionCall"].get("name")
            faults.append(
                f"Function call is missing a thought_signature in functionCall parts: {name}, position {at}"
            )
    return faults
