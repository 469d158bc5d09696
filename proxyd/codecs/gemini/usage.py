"""Read the token usage of the Gemini API (docs/spec/gemini.md#usage)."""

from __future__ import annotations

from typing import Any

from proxyd.codecs.anthropic.usage import Usage

__all__ = ["usage_from_gemini"]


def usage_from_gemini(usage: Any) -> Usage | None:
    """Read a ``usageMetadata`` object; None if it has no counts.

    The prompt includes cached tokens. Thoughts are counted beside the candidates, except where the total shows that
    they are included.
    """
    if not isinstance(usage, dict):
        return None
    prompt, candidates = _count(usage, "promptTokenCount"), _count(usage, "candidatesTokenCount")
    if prompt is None and candidates is None:
        return None
    thoughts, total = _count(usage, "thoughtsTokenCount"), _count(usage, "totalTokenCount")
    tools = _count(usage, "toolUsePromptTokenCount") or 0
    cached = min(_count(usage, "cachedContentTokenCount") or 0, prompt or 0)
    prompt = (prompt or 0) + tools
    if candidates is None and total is not None:
        candidates = max(0, total - prompt - (thoughts or 0))
    output = candidates or 0
    if thoughts and not (total == prompt + output and thoughts <= output):
        output += thoughts
    return Usage(
        input_tokens=prompt - cached,
        output_tokens=output,
        cache_read_tokens=cached,
        reasoning_tokens=thoughts,
    )


def _count(usage: dict[str, Any], name: str) -> int | None:
    value = usage.get(name)
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 16:
        return int(value)  # how protobuf writes 64-bit numbers
    return value if type(value) is int and 0 <= value < 1 << 53 else None
