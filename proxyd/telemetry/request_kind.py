"""The purpose of a call of Claude Code (docs/spec/claude-code.md#side-requests).

The client names it in the header ``x-claude-code-request-class`` when ``CLAUDE_CODE_GATEWAY_HINT_HEADERS=1`` is set
(docs/spec/hints-and-modes.md#request-class); otherwise it is inferred from the shape of the request.

==========  =====================================================================================
main        the conversation itself
subagent    the conversation of a subagent
workflow    a step of a workflow
title       the title of a conversation: no tools, and a JSON schema
search      the side call of the WebSearch tool
compact     the summary of a conversation that has grown too long
review      the review of a subagent's work in auto mode
background  state and label of a background session
probe       the test whether a model exists: one token
side_reply  a reply beside the conversation
auxiliary   any other side call, as the client calls it
auto_mode   the proxy's own call of the classifier for auto mode
image       the proxy's own call for the description of an image
searching   the proxy's own call of a model for which it makes web searches
count       ``count_tokens``, which has a path of its own
==========  =====================================================================================
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from proxyd import jsonio
from proxyd.config.request_classes import AUXILIARY_KINDS

__all__ = [
    "AGENT_TYPE_HEADER",
    "CLASS_HEADER",
    "CLASS_OF_KIND",
    "KINDS",
    "PROMPT_ID_HEADER",
    "classes_of",
    "kind_of",
    "session_in",
]

#: The headers in which the client names the class of a request, the type of a subagent, and the prompt of the user.
CLASS_HEADER = "x-claude-code-request-class"
AGENT_TYPE_HEADER = "x-claude-code-agent-type"
PROMPT_ID_HEADER = "x-claude-code-prompt-id"
KINDS = (
    "main",
    "subagent",
    "workflow",
    "title",
    "search",
    "compact",
    "review",
    "background",
    "probe",
    "side_reply",
    "auxiliary",
    "auto_mode",
    "image",
    "searching",
    "count",
)
#: Values of the header -> kinds. ``auxiliary`` is what several kinds have in common.
_CLASSES = {
    "main": "main",
    "subagent": "subagent",
    "workflow": "workflow",
    "compaction": "compact",
    "side_reply": "side_reply",
}
_AUXILIARY = "auxiliary"
#: Kinds whose class has another name.
CLASS_OF_KIND = {
    "compact": "compaction",
    **dict.fromkeys((*AUXILIARY_KINDS, "probe", "auto_mode", "image", "searching"), _AUXILIARY),
}

#: The beginning of the request for a summary.
_COMPACT = "CRITICAL: Respond with TEXT ONLY"
#: The element in which a review returns its result.
_SEVERITY = "<severity>"
#: ``max_tokens`` of the state and of the label of a background session.
_BACKGROUND_TOKENS = (3072, 2080)


def classes_of(kind: str) -> frozenset[str]:
    """Return the class of a kind, and the kind itself where it is finer."""
    return frozenset({CLASS_OF_KIND.get(kind, kind), *((kind,) if kind in AUXILIARY_KINDS else ())})


def kind_of(payload: dict[str, Any], *, is_subagent: bool, request_class: str | None = None) -> str:
    """Determine the kind of a request, one of `KINDS`. A request of unknown shape is ``main``.

    Args:
        payload: {} where the request is not parsed.
        is_subagent: it has the header of a subagent.
        request_class: the value of `CLASS_HEADER`.
    """
    if request_class in _CLASSES:
        return _CLASSES[request_class]
    kind = _side_call(payload)
    if kind is not None:
        return kind
    if request_class == _AUXILIARY:
        return _AUXILIARY
    return "subagent" if is_subagent else "main"


def _side_call(payload: dict[str, Any]) -> str | None:
    """Recognise a side call by its shape."""
    tools = payload.get("tools")
    if isinstance(tools, list) and tools:
        only = tools[0] if len(tools) == 1 else None
        tool_type = only.get("type") if isinstance(only, dict) else None
        if isinstance(tool_type, str) and tool_type.startswith("web_search_"):
            return "search"
    elif not tools:
        if tools is not None and _has_schema(payload):
            return "title"
        is_stream, max_tokens = payload.get("stream") is True, payload.get("max_tokens")
        if is_stream and max_tokens in _BACKGROUND_TOKENS:
            return "background"
        if not is_stream and max_tokens == 1 and type(max_tokens) is int:
            return "probe"
        if not is_stream and _thinking_is_off(payload) and any(_SEVERITY in text for text in _texts(payload)):
            return "review"
    return "compact" if _last_text(payload.get("messages")).startswith(_COMPACT) else None


def session_in(payload: Mapping[str, Any]) -> str | None:
    """The session in ``metadata.user_id``, a JSON text, for clients that send no header."""
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


def _thinking_is_off(payload: dict[str, Any]) -> bool:
    thinking = payload.get("thinking")
    return isinstance(thinking, dict) and thinking.get("type") == "disabled"


def _texts(payload: dict[str, Any]) -> Iterator[str]:
    """The texts of the system prompt and of the messages."""
    messages = payload.get("messages")
    contents = [message.get("content") for message in _dicts(messages)]
    for content in (payload.get("system"), *contents):
        if isinstance(content, str):
            yield content
        for block in _dicts(content):
            if isinstance(block.get("text"), str):
                yield block["text"]


def _dicts(value: Any) -> list[dict[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _last_text(messages: Any) -> str:
    """The text of the last message, or of its last block: where the request for a summary is."""
    last = messages[-1] if isinstance(messages, list) and messages else None
    content = last.get("content") if isinstance(last, dict) else None
    if isinstance(content, list):
        content = content[-1].get("text") if content and isinstance(content[-1], dict) else None
    return content.lstrip() if isinstance(content, str) else ""
