"""Convert token usage as reported by each dialect to one `Usage`.

Anthropic's ``input_tokens`` excludes cached tokens, OpenAI's ``prompt_tokens`` includes them; Claude Code adds the
three input figures to decide when to compact, so a cached token counted twice halves the window
(docs/spec/messages-api.md#usage, docs/spec/chat-to-messages.md#usage).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["Usage", "usage_from_anthropic", "usage_from_openai"]


@dataclass(slots=True)
class Usage:
    """Token counts of one response. The three input counts are disjoint; ``reasoning_tokens`` is part of the output."""

    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int | None = None
    is_estimated: bool = False

    @property
    def total_input_tokens(self) -> int:
        return self.input_tokens + self.cache_read_tokens + self.cache_write_tokens

    def to_anthropic(self) -> dict[str, Any]:
        usage: dict[str, Any] = {
            "input_tokens": self.input_tokens,
            "cache_creation_input_tokens": self.cache_write_tokens,
            "cache_read_input_tokens": self.cache_read_tokens,
            "output_tokens": self.output_tokens,
        }
        if self.reasoning_tokens is not None:
            usage["output_tokens_details"] = {"thinking_tokens": self.reasoning_tokens}
        return usage


def _count(value: Any) -> int | None:
    """Return a token count, or None for anything else (null, text, NaN, a negative number, a bool)."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1 << 53:
        return None
    return int(value)


def _first(*values: Any) -> int | None:
    for value in values:
        if value is not None and (count := _count(value)) is not None:
            return count
    return None


def _child(value: dict[str, Any], key: str) -> dict[str, Any]:
    child = value.get(key)
    return child if isinstance(child, dict) else {}


def usage_from_openai(usage: Any) -> Usage | None:
    """Read a ``usage`` object of an OpenAI dialect; None if it has no counts.

    Contradicting counts are read as known vendors mean them:

    - more cached than prompt tokens: the server counts them separately;
    - ``total = prompt + completion + reasoning``: the server excludes reasoning from the completion (Grok, Gemini).
    """
    if not isinstance(usage, dict):
        return None
    prompt = _first(usage.get("prompt_tokens"), usage.get("input_tokens"))
    completion = _first(usage.get("completion_tokens"), usage.get("output_tokens"))
    if prompt is None and completion is None:
        return None
    prompt, completion = prompt or 0, completion or 0
    prompt_details = _child(usage, "prompt_tokens_details")
    cached = (
        _first(
            prompt_details.get("cached_tokens"),
            usage.get("prompt_cache_hit_tokens"),
            usage.get("cached_tokens"),
            usage.get("cache_read_input_tokens"),
        )
        or 0
    )
    written = _first(prompt_details.get("cache_write_tokens"), usage.get("cache_creation_input_tokens")) or 0
    reasoning = _first(
        _child(usage, "completion_tokens_details").get("reasoning_tokens"), usage.get("reasoning_tokens")
    )
    if reasoning and _count(usage.get("total_tokens")) == prompt + completion + reasoning:
        completion += reasoning
    return Usage(
        input_tokens=prompt if cached + written > prompt else prompt - cached - written,
        output_tokens=completion,
        cache_read_tokens=cached,
        cache_write_tokens=written,
        reasoning_tokens=None if reasoning is None else min(reasoning, completion),
    )


def usage_from_anthropic(usage: Any, before: Usage | None = None) -> Usage | None:
    """Read an Anthropic ``usage`` object of cumulative totals; missing fields keep their value from `before`."""
    if not isinstance(usage, dict):
        return before
    old = before or Usage()
    get = usage.get
    thinking = _count(_child(usage, "output_tokens_details").get("thinking_tokens"))
    return Usage(
        input_tokens=_or(get("input_tokens"), old.input_tokens),
        output_tokens=_or(get("output_tokens"), old.output_tokens),
        cache_read_tokens=_or(get("cache_read_input_tokens"), old.cache_read_tokens),
        cache_write_tokens=_or(get("cache_creation_input_tokens"), old.cache_write_tokens),
        reasoning_tokens=old.reasoning_tokens if thinking is None else thinking,
    )


def _or(value: Any, previous: int) -> int:
    if type(value) is int and 0 <= value < 1 << 53:
        return value
    count = _count(value)
    return previous if count is None else count
