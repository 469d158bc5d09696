"""Rules for refusals that only the Gemini API has (`proxyd.providers.error_rules` has those of all formats).

Each reads the refusal and what was sent, in the terms of Chat Completions (`codecs.gemini.chat_terms`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from proxyd.providers.refusals import QuirkChange, Refusal, messages_of, read_refusal

__all__ = ["change_for_gemini"]


def change_for_gemini(
    status: int, body: bytes, sent: Mapping[str, Any], known: Mapping[str, Any]
) -> QuirkChange | None:
    """Return the quirk that avoids a refusal, as `error_rules.change_for_error`."""
    refusal = read_refusal(status, body, sent, known)
    if refusal is None:
        return None
    return next((change for rule in _RULES if (change := rule(refusal)) is not None), None)


#: Names of parts of a tool's schema in refusals (zed#44875, CLIProxyAPI#97, tidebreak#1516).
_SCHEMA = re.compile(
    r"parameters_?json_?schema|function_?declarations?\b.{0,80}(?:parameters|schema)"
    r"|\bschema\b.{0,80}(?:too (?:complex|deep|large)|states|depth|nesting)|(?:too many|exceeds).{0,40}\bstates\b"
    r"|(?:invalid|unsupported|unknown).{0,40}\bschema\b",
    re.IGNORECASE | re.DOTALL,
)


def _schemas(refusal: Refusal) -> QuirkChange | None:
    """Narrow the tools' schemas to the subset of ``parameters``."""
    if refusal.sent.get("tools") and "schema_style" not in refusal.known and _SCHEMA.search(refusal.text):
        return QuirkChange("schema_style", "gemini")
    return None


def _thoughts(refusal: Refusal) -> QuirkChange | None:
    if refusal.sent.get("include_thoughts") and refusal.mentions("include_thoughts"):
        return QuirkChange("reasoning_summary", "none")
    return None


def _function_parts(refusal: Refusal) -> QuirkChange | None:
    """Read refusals of what servers and older models do not know in calls and results: ids, and images."""
    if not refusal.says(r"function_?(?:call|response)\b"):
        return None
    messages = messages_of(refusal.sent)
    has_ids = any("id" in call for message in messages for call in message.get("tool_calls") or ())
    if has_ids and refusal.says(r"unknown name \W{0,2}id\b|\bid\b.{0,30}not supported"):
        return QuirkChange("function_call_ids", False)
    has_media = any(
        message.get("role") == "tool" and isinstance(message.get("content"), list) for message in messages
    )
    if has_media and refusal.says(r"unknown name \W{0,2}parts\b|multimodal function response|inline_?data"):
        return QuirkChange("images_in_tool_results", False)
    return None


def _system(refusal: Refusal) -> QuirkChange | None:
    """Read refusals of a system prompt, such as Gemma's."""
    if refusal.says(r"(?:developer|system)[ _]?instruction\b.{0,30}not (?:enabled|supported|allowed)"):
        return QuirkChange("system_role", "user")
    return None


_RULES: tuple[Callable[[Refusal], QuirkChange | None], ...] = (_function_parts, _thoughts, _system, _schemas)
