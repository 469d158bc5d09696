"""A whole completion as one chunk, so that it passes the state machine of `codecs.openai.stream`."""

from __future__ import annotations

from typing import Any

__all__ = ["completion_to_chunk"]


def completion_to_chunk(completion: dict[str, Any]) -> dict[str, Any]:
    """Return a whole completion as one chunk.

    Its tool calls are numbered by their position, whatever index they have.
    """
    choices = completion.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        return completion
    choice = choices[0]
    message = choice.get("message")
    if not isinstance(message, dict) or not isinstance(message.get("tool_calls"), list):
        return completion
    calls = [
        {**call, "index": position}
        for position, call in enumerate(message["tool_calls"])
        if isinstance(call, dict)
    ]
    return {**completion, "choices": [{**choice, "message": {**message, "tool_calls": calls}}]}
