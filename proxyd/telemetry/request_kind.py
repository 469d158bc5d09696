"""What Claude Code wants a call for, told from its shape (docs/spec/claude-code.md#side-requests).

=========  =====================================================================================
main       the conversation itself
subagent   the same of a subagent, which names itself in a header
title      the title of a conversation: no tools, and an answer by schema
search     the side call behind its WebSearch tool
compact    the summary of a conversation that has grown too long
count      ``count_tokens``; the path tells, so this is not found here
=========  =====================================================================================
"""

from __future__ import annotations

from typing import Any

from proxyd import jsonio

__all__ = ["KINDS", "kind_of", "session_in"]

KINDS = ("main", "subagent", "title", "search", "compact", "count")

#: How the request for a summary begins.
_COMPACT = "CRITICAL: Respond with TEXT ONLY"


def kind_of(payload: dict[str, Any], *, is_subagent: bool) -> str:
    """One of `KINDS`. Anything that is not recognised is ``main``."""
    tools = payload.get("tools")
    if isinstance(tools, list):
        if not tools and _has_schema(payload):
            return "title"
        only = tools[0] if len(tools) == 1 else None
        kind = only.get("type") if isinstance(only, dict) else None
        if isinstance(kind, str) and kind.startswith("web_search_"):
            return "search"
    if _last_words(payload.get("messages")).startswith(_COMPACT):
        return "compact"
    return "subagent" if is_subagent else "main"


def session_in(payload: dict[str, Any]) -> str | None:
    """The session named in ``metadata.user_id``, a JSON text, for clients that send no header."""
    metadata = payload.get("metadata")
    user = metadata.get("user_id") if isinstance(metadata, dict) else None
    if not isinstance(user, str) or not user.startswith("{") or len(user) > 1000:
        return None
    try:
        session = jsonio.loads(user.encode("utf-8", "replace")).get("session_id")
    except (jsonio.JSONError, AttributeError):
        return None
    return session if isinstance(session, str) else None


def _has_schema(payload: dict[str, Any]) -> bool:
    config = payload.get("output_config")
    return isinstance(config, dict) and isinstance(config.get("format"), dict)


def _last_words(messages: Any) -> str:
    """The first text of the last message, or of its last block: where the request for a summary stands."""
    last = messages[-1] if isinstance(messages, list) and messages else None
    content = last.get("content") if isinstance(last, dict) else None
    if isinstance(content, list):
        content = content[-1].get("text") if content and isinstance(content[-1], dict) else None
    return content.lstrip() if isinstance(content, str) else ""
