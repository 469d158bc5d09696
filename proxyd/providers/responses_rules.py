"""Rules for refusals that only the Responses API has (`proxyd.providers.error_rules` has those of all formats).

Each reads the refusal and what was sent, in the terms of Chat Completions (`codecs.responses.chat_terms`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from proxyd.providers.refusals import QuirkChange, Refusal, content_parts, messages_of, read_refusal

__all__ = ["change_for_responses"]


def change_for_responses(
    status: int, body: bytes, sent: Mapping[str, Any], known: Mapping[str, Any]
) -> QuirkChange | None:
    """Return the quirk that avoids a refusal, as `error_rules.change_for_error`."""
    refusal = read_refusal(status, body, sent, known)
    if refusal is None:
        return None
    for rule in _RULES:
        change = rule(refusal)
        if change is not None:
            return change
    return None


def _summary(refusal: Refusal) -> QuirkChange | None:
    """Read refusals of summaries: of organisations that are not verified, and of models without."""
    reasoning = refusal.sent.get("reasoning_options")
    if not isinstance(reasoning, Mapping) or "summary" not in reasoning:
        return None
    is_named = refusal.param.startswith("reasoning.summary") or refusal.says(
        r"reasoning[ ._](?:summary|summaries)"
    )
    return QuirkChange("reasoning_summary", "none") if is_named else None


def _reasoning_items(refusal: Refusal) -> QuirkChange | None:
    """Read refusals of encrypted reasoning by models and servers that do not know it."""
    items = [message for message in messages_of(refusal.sent) if "reasoning_item" in message]
    if refusal.says(r"encrypted[ _]content is not supported") and refusal.sent.get("include"):
        return QuirkChange("reasoning_items", "content")
    if items and re.fullmatch(r"input\[\d+\]\.id", refusal.param) and refusal.says(r"missing|required"):
        return QuirkChange("reasoning_item_ids", True)
    return None


def _messages(refusal: Refusal) -> QuirkChange | None:
    if any("phase" in message for message in messages_of(refusal.sent)) and re.search(
        r"\bphase\b", f"{refusal.param} {refusal.text}"
    ):
        return QuirkChange("message_phases", False)
    has_breakpoint = any("prompt_cache_breakpoint" in part for part in content_parts(refusal.sent))
    if has_breakpoint and "prompt_cache_breakpoint" in f"{refusal.param} {refusal.text}":
        return QuirkChange("cache_control", False)
    lists = any(
        message.get("role") == "tool" and isinstance(message.get("content"), list)
        for message in messages_of(refusal.sent)
    )
    if lists and re.match(r"input\[\d+\]\.output", refusal.param) and refusal.says(r"invalid type|string"):
        return QuirkChange("images_in_tool_results", False)
    return None


_RULES: tuple[Callable[[Refusal], QuirkChange | None], ...] = (_summary, _reasoning_items, _messages)
