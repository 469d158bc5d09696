"""Convert token usage as reported by each dialect to one `Usage`.

Anthropic's ``input_tokens`` excludes cached tokens, OpenAI's ``prompt_tokens`` includes them; Claude Code adds the
three input figures to decide when to compact, so a cached token counted twice halves the window
(docs/spec/messages-api.md#usage, docs/spec/chat-to-messages.md#usage).
"""

from __future__ import annotations

import re
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


#: Paths of a count in a usage object, in order of preference. OpenAI, Anthropic's own names (Portkey, LiteLLM and other
#: gateways), DeepSeek (hit), Kimi (cached_tokens).
_CACHE_READ = (
    ("prompt_tokens_details", "cached_tokens"),
    ("input_tokens_details", "cached_tokens"),
    ("prompt_cache_hit_tokens",),
    ("cached_tokens",),
    ("cache_read_input_tokens",),
    ("prompt_tokens_details", "cache_read_input_tokens"),
    ("prompt_tokens_details", "cache_read_tokens"),
    ("cache_read_tokens",),
    ("num_cached_tokens",),
    ("cached_prompt_tokens",),
)
#: OpenRouter, LiteLLM (cache_creation_tokens), vLLM (created_cache_tokens), DashScope (in the details), Anthropic.
_CACHE_WRITE = (
    ("prompt_tokens_details", "cache_write_tokens"),
    ("prompt_tokens_details", "cache_creation_tokens"),
    ("prompt_tokens_details", "created_cache_tokens"),
    ("prompt_tokens_details", "cache_creation_input_tokens"),
    ("input_tokens_details", "cache_write_tokens"),
    ("input_tokens_details", "cache_creation_tokens"),
    ("cache_creation_input_tokens",),
    ("cache_creation_tokens",),
    ("created_cache_tokens",),
    ("cache_write_tokens",),
)
_REASONING = (
    ("completion_tokens_details", "reasoning_tokens"),
    ("output_tokens_details", "reasoning_tokens"),
    ("reasoning_tokens",),
)


#: Names of other dialects, in snake case: Gemini, Bedrock's Converse, Ollama, llama.cpp's timings, and gateways.
_OTHER_NAMES = {
    "prompt_token_count": "prompt_tokens",
    "input_token_count": "prompt_tokens",
    "prompt_eval_count": "prompt_tokens",
    "prompt_n": "input_tokens",
    "candidates_token_count": "completion_tokens",
    "output_token_count": "completion_tokens",
    "generated_token_count": "completion_tokens",
    "generation_tokens": "completion_tokens",
    "generated_tokens": "completion_tokens",
    "eval_count": "completion_tokens",
    "predicted_n": "output_tokens",
    "total_token_count": "total_tokens",
    "cached_content_token_count": "cached_tokens",
    "cache_n": "cache_read_input_tokens",
    "cache_write_input_tokens": "cache_creation_input_tokens",
    "thoughts_token_count": "reasoning_tokens",
}
_UPPER = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


def _in_our_names(usage: dict[str, Any]) -> dict[str, Any]:
    """Return a usage object with the names of other dialects replaced, and counts that are texts as numbers."""
    renamed: dict[str, Any] = {}
    for key, value in usage.items():
        name = _UPPER.sub("_", key).lower()
        if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 16:
            value = int(value)
        renamed.setdefault(_OTHER_NAMES.get(name, name), value)
    return renamed


def _read(usage: dict[str, Any], paths: tuple[tuple[str, ...], ...]) -> int | None:
    """The first count at one of `paths` that is more than 0, or else the first count."""
    found = None
    for path in paths:
        count = _count(usage.get(path[0]) if len(path) == 1 else _child(usage, path[0]).get(path[1]))
        if count:
            return count
        found = count if found is None else found
    return found


def usage_from_openai(usage: Any) -> Usage | None:
    """Read a ``usage`` object of an OpenAI dialect; None if it has no counts.

    Servers include cache tokens in the prompt's count, or count them beside it; the same for reasoning and the
    completion. The total, where it is reported, decides. Without it, cache tokens are beside where they are more than
    the prompt, or where all names are Anthropic's. The result adds up: the three input figures are the prompt, and both
    sides are no more than the total, unless that leaves out cache tokens altogether.
    """
    if not isinstance(usage, dict):
        return None
    prompt = _first(usage.get("prompt_tokens"), usage.get("input_tokens"))
    completion = _first(usage.get("completion_tokens"), usage.get("output_tokens"))
    if prompt is None or completion is None:
        usage = _in_our_names(usage)
        prompt = _first(usage.get("prompt_tokens"), usage.get("input_tokens"))
        completion = _first(usage.get("completion_tokens"), usage.get("output_tokens"))
    if prompt is None and completion is None:
        return None
    read, written = _read(usage, _CACHE_READ) or 0, _read(usage, _CACHE_WRITE) or 0
    reasoning = _read(usage, _REASONING)
    total = _count(usage.get("total_tokens"))
    if total is not None and total < (prompt or 0) + (completion or 0):
        total = None  # wrong, or 0 for unknown
    if total is not None and prompt is None:
        prompt = total - (completion or 0)
        read = min(read, prompt)
        written = min(written, prompt - read)
    elif total is not None and completion is None:
        completion = total - (prompt or 0)
        if read + written > (prompt or 0):
            completion -= min(read + written, completion)
    prompt, completion = prompt or 0, completion or 0

    beside: tuple[int, int, int] | None = None
    if total is not None:
        beside = _counted_beside(total - prompt - completion, prompt, read, written, reasoning or 0)
    if beside is None and read + written > prompt:
        if total is not None and total > prompt + completion:
            read = min(read, total - prompt - completion)
            written = min(written, total - prompt - completion - read)
        beside = (read, written, 0)
    elif beside is None:
        beside = (read, written, 0) if total is None and _has_anthropic_names(usage) else (0, 0, 0)
    prompt += beside[0] + beside[1]
    completion += beside[2]
    return Usage(
        input_tokens=prompt - read - written,
        output_tokens=completion,
        cache_read_tokens=read,
        cache_write_tokens=written,
        reasoning_tokens=None if reasoning is None else min(reasoning, completion),
    )


def _has_anthropic_names(usage: dict[str, Any]) -> bool:
    return usage.get("prompt_tokens") is None and (
        usage.get("cache_read_input_tokens") is not None
        or usage.get("cache_creation_input_tokens") is not None
    )


def _counted_beside(
    rest: int, prompt: int, read: int, written: int, reasoning: int
) -> tuple[int, int, int] | None:
    """Return the cache reads, cache writes and reasoning that are in the total beside prompt and completion.

    Args:
        rest: the total without prompt and completion.

    Returns:
        None if no choice of them explains the total.
    """
    for beside in (
        (0, 0, 0),
        (0, 0, reasoning),
        (read, written, 0),
        (0, written, 0),
        (read, 0, 0),
        (read, written, reasoning),
        (0, written, reasoning),
        (read, 0, reasoning),
    ):
        if sum(beside) == rest and read + written - beside[0] - beside[1] <= prompt:
            return beside
    return None


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
