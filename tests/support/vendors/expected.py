"""The cells of the matrix that are not right yet. The list must shrink: a cell that is right and stands here fails."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from tests.captures import Capture

__all__ = ["expected_failures"]

#: Sets of captures, by what their requests hold.
WITH_TOOLS, WITH_BOUNDS, WITH_CALLS = (
    "with tools and thinking",
    "with bounds in schemas",
    "with calls in their history",
)

#: Route, as in the table -> why, and which captures: names or sets.
EXPECTED: dict[str, tuple[str, tuple[str, ...]]] = {
    "generic to openai gpt-5.6": (
        "the refusal says which value to send, and the lesson leaves the field out",
        (WITH_TOOLS,),
    ),
    "generic to openai gpt-5.4": ("three things to learn take four tries", ("sampling",)),
    "generic to openai gpt-5": ("three things to learn take four tries", ("sampling",)),
    "generic to moonshot kimi-k2.6": (
        "the model thinks although it was told not to, since nothing switches it off",
        ("named_tool_thinking_off",),
    ),
    "generic to xai grok-4.3": ("the refusal names nothing", (WITH_BOUNDS,)),
    "generic to gemini gemini-3-pro": ("the refusal asks for thought signatures", (WITH_CALLS,)),
    "generic to zhipu glm-5.3": ("the refusal of an image is not recognised", ("image",)),
    "generic to minimax MiniMax-M2.7": ("the refusal of an image is not recognised", ("image",)),
}


def expected_failures(route: str, captures: list[Capture]) -> set[str]:
    """The names of the captures that are expected to fail on a route."""
    _, wanted = EXPECTED.get(route, ("", ()))
    return {capture.name for capture in captures if {capture.name, *_sets_of(capture)} & set(wanted)}


def _sets_of(capture: Capture) -> Iterator[str]:
    schemas = [tool["input_schema"] for tool in capture.body.get("tools", ()) if "input_schema" in tool]
    if schemas and capture.body.get("thinking", {}).get("type") not in (None, "disabled"):
        yield WITH_TOOLS
    if re.search(r'"(?:min|max)(?:Length|Items)":', json.dumps(schemas)):
        yield WITH_BOUNDS
    contents = [message["content"] for message in capture.body["messages"]]
    blocks = [block for content in contents if isinstance(content, list) for block in content]
    if any(block["type"] == "tool_use" for block in blocks):
        yield WITH_CALLS
