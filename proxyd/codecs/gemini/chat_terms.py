"""Describe a Gemini request in the terms of Chat Completions.

Rules that read refusals look at what was sent (`proxyd.providers.error_rules`). They are written for Chat Completions,
and the two requests differ in names, not in meaning: with this view one set of rules serves both.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator, Mapping
from typing import Any

from proxyd.codecs.gemini.contents import SIGNATURE

__all__ = ["as_chat_terms", "thought_signatures"]

_ROLES = {"model": "assistant", "user": "user"}
_CONFIG = {
    "maxOutputTokens": "max_tokens",
    "temperature": "temperature",
    "topP": "top_p",
    "topK": "top_k",
    "stopSequences": "stop",
}
_CHOICES = {"AUTO": "auto", "NONE": "none", "ANY": "required"}
#: Placeholders of a signature, which nobody has signed, as they are and in base64
#: (docs/spec/gemini.md#signature-foreign).
_PLACEHOLDERS = frozenset(
    form
    for text in ("skip_thought_signature_validator", "context_engineering_is_the_way_to_go")
    for form in (text, b64encode(text.encode()).decode())
)


def as_chat_terms(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return what rules look at: messages, tools and parameters as in Chat Completions, and the body's other fields."""
    view = dict(body)
    contents = view.pop("contents", None)
    system = view.pop("systemInstruction", None)
    messages = [{"role": "system", "content": _content(system)}] if isinstance(system, Mapping) else []
    for content in _objects(contents):
        messages += _messages(content)
    view["messages"] = messages
    declarations = [
        each for tool in _objects(body.get("tools")) for each in _objects(tool.get("functionDeclarations"))
    ]
    if declarations:
        view["tools"] = [{"type": "function", "function": _function(each)} for each in declarations]
        config = _mapping(_mapping(view.pop("toolConfig", None)).get("functionCallingConfig"))
        names = config.get("allowedFunctionNames")
        if isinstance(names, list) and names:
            view["tool_choice"] = {"type": "function", "function": {"name": names[0]}}
        elif config.get("mode") in _CHOICES:
            view["tool_choice"] = _CHOICES[config["mode"]]
    _add_config(view, _mapping(view.pop("generationConfig", None)))
    return view


def _add_config(view: dict[str, Any], config: Mapping[str, Any]) -> None:
    for name, chat_name in _CONFIG.items():
        if name in config:
            view[chat_name] = config[name]
    if "responseJsonSchema" in config or "responseSchema" in config:
        view["response_format"] = {"type": "json_schema"}
    elif "responseMimeType" in config:
        view["response_format"] = {"type": "json_object"}
    thinking = _mapping(config.get("thinkingConfig"))
    if isinstance(level := thinking.get("thinkingLevel"), str):
        view["reasoning_effort"] = level.lower()
    if "thinkingBudget" in thinking:
        view["thinking_budget"] = thinking["thinkingBudget"]
    if thinking.get("includeThoughts"):
        view["include_thoughts"] = True


def _function(declaration: Mapping[str, Any]) -> dict[str, Any]:
    function = {name: value for name, value in declaration.items() if name != "parametersJsonSchema"}
    if "parametersJsonSchema" in declaration:
        function["parameters"] = declaration["parametersJsonSchema"]
    return function


def _messages(content: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the messages for one content: each result, then the rest."""
    calls, others = [], []
    for part in _objects(content.get("parts")):
        if isinstance(result := part.get("functionResponse"), Mapping):
            texts = [each for each in _mapping(result.get("response")).values() if isinstance(each, str)]
            media = [_part(each) for each in _objects(result.get("parts"))]
            parts = [{"type": "text", "text": text} for text in texts] + media
            yield {
                "role": "tool",
                "name": result.get("name"),
                "content": parts if media else "\n".join(texts),
            }
        elif isinstance(call := part.get("functionCall"), Mapping):
            made: dict[str, Any] = {"type": "function", "function": call}
            if SIGNATURE in part:
                made["thought_signature"] = part[SIGNATURE]
            if "id" in call:
                made["id"] = call["id"]
            calls.append(made)
        else:
            others.append(part)
    role = _ROLES.get(str(content.get("role")), "user")
    if calls or others:
        message: dict[str, Any] = {"role": role, "content": [_part(part) for part in others] or ""}
        if calls:
            message["tool_calls"] = calls
        yield message


def _content(content: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [_part(part) for part in _objects(content.get("parts"))]


def _part(part: Mapping[str, Any]) -> dict[str, Any]:
    if isinstance(part.get("text"), str):
        return {"type": "text", "text": part["text"]}
    media_type = _mapping(part.get("inlineData", part.get("fileData"))).get("mimeType")
    return {"type": "image_url" if str(media_type).startswith("image/") else "file"}


def thought_signatures(body: Mapping[str, Any]) -> list[str]:
    """Return the thought signatures of earlier turns that a request holds."""
    found = [
        part.get(SIGNATURE)
        for content in _objects(body.get("contents"))
        for part in _objects(content.get("parts"))
    ]
    return [data for data in found if isinstance(data, str) and data not in _PLACEHOLDERS]


def _objects(value: Any) -> list[Mapping[str, Any]]:
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list) else []


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
