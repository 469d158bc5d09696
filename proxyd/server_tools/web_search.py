"""Web search: the response to Claude Code's WebSearch call on a route whose upstream cannot search.

Claude Code's WebSearch makes one call of its own that offers nothing but Anthropic's search tool. A model that is asked
without it invents results, and Claude Code hands them over as "Web search results". So such a call is answered here,
without an upstream, by the pair of blocks that says the search is unavailable. Calls that offer the search among other
tools come from other clients; the translation leaves the search tool out there, so that the model knows nothing of it.

See docs/spec/hints-and-modes.md#web-search-blocks.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from proxyd import jsonio
from proxyd.codecs.anthropic.events import (
    BlockStart,
    BlockStop,
    JsonDelta,
    MessageDelta,
    MessageStart,
    MessageStop,
    StreamEvent,
    TextDelta,
)

__all__ = ["is_search_call", "unavailable"]

_TYPE_PREFIX = "web_search_"
#: How Claude Code begins the only message of the call; the query stands nowhere else.
_QUERY = re.compile(r"Perform a web search for the query:\s{0,8}")
_MAX_QUERY_CHARS = 2000


def is_search_call(payload: Mapping[str, Any]) -> bool:
    """Whether the request offers Anthropic's web search and no other tool."""
    tools = payload.get("tools")
    return (
        isinstance(tools, list)
        and bool(tools)
        and all(
            isinstance(tool, Mapping) and str(tool.get("type", "")).startswith(_TYPE_PREFIX) for tool in tools
        )
    )


def unavailable(payload: Mapping[str, Any], route: str, message_id: str) -> list[StreamEvent]:
    """Build the events of a response that says there is no search.

    Args:
        route: the model id, for the text.
        message_id: of the new message.
    """
    search_id = f"srvtoolu_{message_id.removeprefix('msg_')}"
    blocks: list[tuple[dict[str, Any], JsonDelta | TextDelta | None]] = [
        (
            {"type": "server_tool_use", "id": search_id, "name": "web_search", "input": {}},
            JsonDelta(0, jsonio.dump_text({"query": _query_of(payload)})),
        ),
        (
            {
                "type": "web_search_tool_result",
                "tool_use_id": search_id,
                "content": {"type": "web_search_tool_result_error", "error_code": "unavailable"},
            },
            None,
        ),
        (
            {"type": "text", "text": ""},
            TextDelta(
                2,
                f"No web search was made: the upstream of model {route!r} cannot search the web, and claude-proxy "
                "has no search engine of its own. Answer without it, and say that nothing was searched.",
            ),
        ),
    ]
    usage = {"input_tokens": 0, "output_tokens": 0}
    events: list[StreamEvent] = [
        MessageStart(
            {
                "id": message_id,
                "type": "message",
                "role": "assistant",
                "model": payload.get("model"),
                "content": [],
                "stop_reason": None,
                "stop_sequence": None,
                "usage": usage,
            }
        )
    ]
    for index, (block, delta) in enumerate(blocks):
        events.append(BlockStart(index, block))
        if delta is not None:
            events.append(delta)
        events.append(BlockStop(index))
    events.append(MessageDelta({"stop_reason": "end_turn", "stop_sequence": None}, usage))
    events.append(MessageStop())
    return events


def _query_of(payload: Mapping[str, Any]) -> str:
    """Return the query of the last message, or its text where it is not in Claude Code's form."""
    messages = payload.get("messages")
    content = messages[-1].get("content") if isinstance(messages, list) and messages else None
    if isinstance(content, list):
        content = " ".join(
            str(block.get("text", ""))
            for block in content
            if isinstance(block, Mapping) and block.get("type") == "text"
        )
    text = content if isinstance(content, str) else ""
    found = _QUERY.search(text)
    return text[found.end() if found else 0 :].strip()[:_MAX_QUERY_CHARS]
