"""Rules for refusals of tools: their schemas, names, descriptions and number, the choice of one, ids of calls.

A rule takes a `Refusal` and returns the quirk that avoids it, or None.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from proxyd.providers.refusals import QuirkChange, Refusal, count_limit, messages_of
from proxyd.providers.thinking_rules import asks_to_think

__all__ = ["declared_tools", "descriptions", "schemas", "tool_choice", "tool_count", "tool_ids", "tool_names"]

_CHOICE = r"tool_?\s?choice|forced tool|forcing tool|function.?calling (?:config|mode)"


def tool_choice(refusal: Refusal) -> QuirkChange | None:
    choice = refusal.sent.get("tool_choice")
    if choice is None or not (refusal.is_about("tool_choice") or refusal.says(_CHOICE)):
        return None
    is_known = refusal.known.get("forced_choice_while_thinking") is False
    if refusal.says(r"\bthinking\b") and (is_known or (refusal.known and not asks_to_think(refusal.sent))):
        # The model thinks although it was not asked to.
        return QuirkChange("named_tool_choice", False, (QuirkChange("required_word", "auto"),))
    if isinstance(choice, Mapping):
        is_for_thinking = refusal.says(r"\bthinking\b")
        return QuirkChange("forced_choice_while_thinking" if is_for_thinking else "named_tool_choice", False)
    if choice not in ("required", "any"):
        return None
    if refusal.says(r"\bthinking\b"):
        return QuirkChange("forced_choice_while_thinking", False)
    is_other_word = choice == "required" and refusal.says(
        r"(?:one of|should be|expected)\b.{0,80}['\"`]any\b"
    )
    return QuirkChange("required_word", "any" if is_other_word else "auto")


def tool_ids(refusal: Refusal) -> QuirkChange | None:
    if refusal.says(r"tool call id\b.{0,120}\blength of 9\b"):
        return QuirkChange("tool_id_style", "mistral")
    if re.search(r"tool_calls?\W?.{0,12}id", refusal.param) and refusal.says(r"string too long"):
        return QuirkChange("tool_id_style", "openai")
    return None


def tool_count(refusal: Refusal) -> QuirkChange | None:
    tools = refusal.sent.get("tools")
    if not tools or not (refusal.is_about("tools") or refusal.says(r"工具")) or _is_of_one_tool(refusal):
        return None
    if not refusal.says(r"too long|too many|at most|maximum|limit|最多|上限|超过"):
        return None
    limit = count_limit(refusal.text)
    if limit is None or limit >= len(tools) or _calls_tool_behind(limit, refusal.sent):
        return None
    return QuirkChange("max_tools", limit)


def _is_of_one_tool(refusal: Refusal) -> bool:
    """Whether a part of one tool is named, such as ``tools[0].function.description``."""
    return re.search(r"tools?[\[.]\d", f"{refusal.param} {refusal.text}") is not None


def tool_names(refusal: Refusal) -> QuirkChange | None:
    if refusal.sent.get("tools") and refusal.says(
        r"name\b.{0,60}(?:start|begin)s? with a (?:letter|lowercase)"
    ):
        return QuirkChange("tool_names_start_with_letter", True)
    return None


def descriptions(refusal: Refusal) -> QuirkChange | None:
    text = f"{refusal.param} {refusal.text}"
    if not re.search(
        r"tools?\W{1,2}\d{1,3}\W{1,2}(?:function\W)?description|(?:function|tool) description", text
    ):
        return None
    if not refusal.says(r"too long|at most|maximum|exceed|limit"):
        return None
    limit = count_limit(refusal.text)
    return QuirkChange("max_description", 1024 if limit is None else limit)


#: Schema styles by the error texts of servers that require them.
_STYLES = (
    (
        "gemini",
        r"unknown name \"?[$\w]{1,64}\"? at '?(?:tools|request\.tools)|function_?declaration"
        r"|GenerateContentRequest\.tools"
        r"|(?:additionalProperties|\$schema|\$ref|oneOf|anyOf|const|exclusiveM\w{1,16}|propertyNames)\b['\"`]? ?"
        r".{0,40}(?:not supported|unsupported|not allowed|not permitted)"
        r"|unsupported .{0,40}(?:additionalProperties|\$schema|\$ref)",
    ),
    ("moonshot", r"moonshot flavored json schema"),
    ("grammar", r"failed to parse grammar|pattern must start with|json schema conversion failed"),
    ("openai", r"array schema missing items|not have 'oneof'/'anyof'"),
)


def schemas(refusal: Refusal) -> QuirkChange | None:
    if not refusal.sent.get("tools"):
        return None
    for style, pattern in _STYLES:
        if refusal.says(pattern) and refusal.known.get("schema_style") != style:
            return QuirkChange("schema_style", style)
    return None


def declared_tools(refusal: Refusal) -> QuirkChange | None:
    """Declare the tools of earlier calls, where the request offers none (Bedrock)."""
    has_calls = any(message.get("tool_calls") for message in messages_of(refusal.sent))
    if refusal.sent.get("tools") or not has_calls:
        return None
    is_demanded = refusal.says(
        r"\btool_?config\b.{0,40}must be defined|without `?tools|\btools\b.{0,30}(?:must be|required|missing)"
        r"|(?:requires?|missing|pass)\W{1,3}tools\b"
    )
    return QuirkChange("declares_called_tools", True) if is_demanded else None


def _calls_tool_behind(limit: int, sent: Mapping[str, Any]) -> bool:
    """Whether the history calls a tool that a limit on the number of tools would drop."""
    dropped = {_name_of(tool) for tool in sent["tools"][limit:]}
    calls = [call for message in messages_of(sent) for call in message.get("tool_calls") or ()]
    return not dropped.isdisjoint(_name_of(call) for call in calls)


def _name_of(tool: Any) -> str:
    function = tool.get("function") if isinstance(tool, Mapping) else None
    name = function.get("name") if isinstance(function, Mapping) else None
    return name if isinstance(name, str) else ""
