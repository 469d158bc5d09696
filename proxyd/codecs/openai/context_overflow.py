"""Upstream wordings for "this does not fit", and the texts from which Claude Code recovers.

Claude Code compacts, or asks for less output, when a 400 carries one of three texts (claude-code.md 7)::

    prompt is too long: 215000 tokens > 200000 maximum                                    it compacts
    input length and `max_tokens` exceed context limit: 190000 + 32000 > 200000           it asks for less
    max_tokens: 32000 > 8192, which is the maximum allowed number of output tokens for X  the same

No OpenAI-compatible server writes any of them. `WORDINGS` lists what they write instead: a pattern whose
named groups are the numbers, and where the wording was read. `OUTPUT_LIMITS` does the same for answers asked
to be longer than the model can write. Matching ignores case; a text is cut to `MAX_SCANNED` characters first.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = [
    "OUTPUT_LIMITS",
    "WORDINGS",
    "OutputLimit",
    "Overflow",
    "Wording",
    "find_output_limit",
    "find_overflow",
    "output_limit_message",
    "overflow_message",
]

#: Characters of an upstream's text that are looked at. The longest known wording has 400.
MAX_SCANNED = 8192

#: A token count as servers write it: 131072, 131,072 or 131_072. Thirteen digits are no token count.
_COUNT = r"(?<![\d.])(?:\d{1,3}(?:[,_]\d{3}){1,3}|\d{1,12})(?!\d)"

#: Codes and types that mean "too long" by themselves: OpenAI and most others, llama.cpp, gateways, GLM.
_CODES = frozenset(
    {
        "context_length_exceeded",
        "exceed_context_size_error",
        "context_window_exceeded",
        "model_context_window_exceeded",
        "1261",
    }
)

#: Texts that speak of tokens and limits because of a quota per minute, not of a window.
_QUOTA = re.compile(
    r"rate.?limit|too many requests|per.?(?:minute|day|hour)|\btp[md]\b|\bquota\b|throttl|please wait",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Wording:
    """One way of saying it.

    Args:
        vendor: who writes so.
        pattern: its groups ``limit``, ``input``, ``output``, ``total`` (input and output) and ``excess``
            (input over the limit) hold what numbers there are; ``tools`` adds to the input; ``least`` is an
            input of which the server counted only the beginning.
        source: where it was read.
    """

    vendor: str
    pattern: re.Pattern[str]
    source: str


@dataclass(frozen=True, slots=True)
class Overflow:
    """A request that does not fit the window: token counts, None where the server gave none.

    Args:
        total: input and output, where the server gave their sum only.
        is_at_least: `input` is a lower bound.
        excess: by how much the input is over the limit.
    """

    limit: int | None = None
    input: int | None = None
    output: int | None = None
    total: int | None = None
    is_at_least: bool = False
    excess: int | None = None


@dataclass(frozen=True, slots=True)
class OutputLimit:
    """More output asked for than the model can write; token counts."""

    limit: int
    asked: int | None = None


def _wording(vendor: str, pattern: str, source: str) -> Wording:
    """Compile `pattern`, in which ``{name}`` stands for a count and a blank for any white space."""
    text = pattern.replace(" ?", r"\s*").replace(" ", r"\s+")
    text = re.sub(r"\{([a-z]+)\}", lambda found: f"(?P<{found[1]}>{_COUNT})", text)
    return Wording(vendor, re.compile(text, re.IGNORECASE), source)


_PI = "https://github.com/earendil-works/pi/blob/main/packages/ai/src/utils/overflow.ts"
_WINDOW = r"maximum context length is {limit} tokens\W{1,3}however,? "

#: The first match wins: wordings with more numbers stand before those with fewer.
WORDINGS: tuple[Wording, ...] = (
    _wording(
        "openai, deepseek, vllm before 0.11",
        _WINDOW
        + r"you requested {total} tokens \({input} in (?:the messages|your prompt)[,;] {output} (?:in|for) ",
        "https://github.com/vllm-project/vllm/issues/20409",
    ),
    _wording(
        "openrouter",
        _WINDOW + r"you requested about {total} tokens \({input} of text input"
        r"(?:, {tools} of tool input)?(?:, {output} in the output)?",
        "https://github.com/boldsoftware/shelley/issues/159",
    ),
    _wording(
        "vllm",
        _WINDOW
        + r"you requested {output} output tokens and your prompt contains at least {least} input tokens",
        _PI,
    ),
    _wording(
        "vllm",
        r"you passed {input} input tokens and requested {output} output tokens\W{1,3}however, the model's "
        r"context length is only {limit} tokens",
        "https://github.com/vllm-project/vllm/issues/33418",
    ),
    _wording(
        "vllm",
        r"is too large: {output}\W{1,3}this model's maximum context length is {limit} tokens and your "
        r"request has {input} input tokens",
        "https://github.com/claude-code-best/claude-code/issues/272",
    ),
    _wording(
        "sglang",
        r"maximum context length of {limit} tokens\W{1,3}you requested a total of {total} tokens: {input} "
        r"tokens from the input messages and {output} tokens for the completion",
        "https://github.com/anomalyco/opencode/pull/25230",
    ),
    _wording(
        "openai",
        _WINDOW + r"your messages resulted in {input} tokens",
        "https://github.com/langchain-ai/langchainjs/issues/10481",
    ),
    _wording(
        "openai-compatible",
        _WINDOW + r"you requested (?:about )?{total} tokens",
        "https://github.com/langchain-ai/langchain/issues/24058",
    ),
    _wording(
        "anthropic behind a gateway",
        r"prompt is too long: {input} tokens > {limit} maximum",
        "https://github.com/harbor-framework/harbor/issues/996",
    ),
    _wording(
        "anthropic behind a gateway",
        r"input length and `?max_tokens`? exceed context limit: {input} \+ {output} > {limit}",
        "https://github.com/musistudio/claude-code-router/issues/1799",
    ),
    _wording(
        "gemini",
        r"input token count(?: \({input}\))? exceeds the maximum number of tokens allowed \({limit}\)",
        "https://github.com/google-gemini/gemini-cli/issues/4692",
    ),
    _wording(
        "xai",
        r"maximum prompt length is {limit} but the request contains {input} tokens",
        "https://github.com/cline/cline/issues/3120",
    ),
    _wording(
        "mistral",
        r"prompt contains {input} tokens.{0,200}?too large for model with {limit} maximum context",
        _PI,
    ),
    _wording(
        "sglang, together",
        r"the input \({input} tokens\) is longer than the model's context length \({limit} tokens\)",
        "https://github.com/QwenLM/Qwen3/issues/1321",
    ),
    _wording(
        "sglang",
        r"input length \({input} tokens\) exceeds the maximum allowed length \({limit} tokens\)",
        "https://github.com/sgl-project/sglang/issues/4048",
    ),
    _wording(
        "litellm",
        r"input length \({input}\) exceeds (?:the )?model's maximum context length \({limit}\)",
        _PI,
    ),
    _wording(
        "openrouter", r"input length {input} exceeds the maximum allowed input length of {limit} tokens", _PI
    ),
    _wording("litellm", r"maximum (?:context|prompt) length (?:is|of) {limit} tokens", _PI),
    _wording(
        "dashscope",
        r"range of input length should be \[\d+, ?{limit}\]",
        "https://github.com/QwenLM/qwen-code/issues/98",
    ),
    _wording("kimi", r"exceeded model token limit: {limit} \(requested: {input}\)", _PI),
    _wording("copilot", r"prompt token count of {input} exceeds the limit of {limit}", _PI),
    _wording(
        "llama.cpp",
        r"exceeds the available context size.{0,120}?\(n_prompt_tokens: {input}, n_ctx: {limit}\)",
        "https://github.com/ggml-org/llama.cpp/pull/15780",
    ),
    _wording(
        "llama.cpp",
        r"exceeds the available context size",
        "https://github.com/oobabooga/textgen/issues/7257",
    ),
    _wording(
        "lm studio",
        r"is greater than the context length(?: \(n_keep: {input} ?>= n_ctx: {limit}\))?",
        "https://github.com/Gitlawb/openclaude/issues/353",
    ),
    _wording(
        "lm studio",
        r"trying to keep the first {input} tokens when context the overflows\. however, the model is "
        r"loaded with context length of only {limit} tokens",
        "https://github.com/lmstudio-ai/lmstudio-bug-tracker/issues/546",
    ),
    _wording(
        "llama-cpp-python",
        r"requested tokens \({total}\) exceed context window of {limit}",
        "https://github.com/fedora-copr/logdetective/issues/100",
    ),
    _wording("ollama", r"prompt too long; exceeded (?:max )?context length(?: by {excess} tokens)?", _PI),
    _wording(
        "vllm",
        r"\(length {input}\) is longer than the maximum model length of {limit}",
        "https://github.com/vllm-project/vllm/pull/12600",
    ),
    _wording("glm", r"prompt exceeds max length", "https://github.com/zeroclaw-labs/zeroclaw/issues/4124"),
    _wording("minimax", r"context window exceeds limit", _PI),
    _wording("openai", r"exceeds the context window", _PI),
    _wording("groq", r"reduce the length of the messages", _PI),
    _wording("bedrock", r"input is too long for requested model", _PI),
    _wording("siliconflow", r"prompt is too long", "https://github.com/NanmiCoder/cc-haha/issues/860"),
    _wording(
        "generic",
        r"context[_ ]length[_ ]exceeded|token limit exceeded|too many tokens in (?:the )?prompt",
        _PI,
    ),
)

_OUTPUT = r"`?'?max_(?:completion_|output_|new_)?tokens'?`?"

#: Answers asked to be longer than the model can write; groups ``limit`` and ``asked``.
OUTPUT_LIMITS: tuple[Wording, ...] = (
    _wording(
        "openai",
        _OUTPUT + r" is too large: {asked}\. this model supports at most {limit} completion tokens",
        "https://github.com/enoch3712/ExtractThinker/issues/346",
    ),
    _wording(
        "deepseek",
        r"invalid " + _OUTPUT + r" value, the valid range of " + _OUTPUT + r" is \[\d+, ?{limit}\]",
        "https://github.com/deepseek-ai/DeepSeek-V3/issues/69",
    ),
    _wording(
        "dashscope",
        r"range of " + _OUTPUT + r" should be \[\d+, ?{limit}\]",
        "https://github.com/musistudio/claude-code-router/issues/1327",
    ),
    _wording(
        "volcengine",
        _OUTPUT
        + r" specified in the request (?:is|are) not valid: integer above maximum value, expected a value "
        r"<= {limit}, but got {asked}",
        "https://github.com/Gitlawb/openclaude/issues/331",
    ),
    _wording(
        "groq",
        _OUTPUT + r"(?: for `[^`]{1,80}`)? must be less than or equal to `?{limit}",
        "https://github.com/anomalyco/opencode/issues/1000",
    ),
    _wording(
        "anthropic behind a gateway",
        _OUTPUT + r": {asked} > {limit}, which is the maximum allowed number of output tokens",
        "claude-code.md 7",
    ),
    _wording(
        "bedrock",
        r"maximum tokens you requested exceeds? the model limit of {limit}",
        "https://github.com/charmbracelet/crush/issues/946",
    ),
)


def find_overflow(text: str, codes: tuple[str, ...] = ()) -> Overflow | None:
    """What the upstream's `text`, or one of its error `codes` and types, says of a request that does not fit.

    Returns:
        None when it speaks of something else, quotas per minute included.
    """
    scanned = text[:MAX_SCANNED]
    if _QUOTA.search(scanned):
        return None
    for wording in WORDINGS:
        found = wording.pattern.search(scanned)
        if found:
            return _overflow(found)
    return Overflow() if any(code.lower() in _CODES for code in codes) else None


def _overflow(found: re.Match[str]) -> Overflow:
    counts = {name: _number(text) for name, text in found.groupdict().items() if text is not None}
    used: int | None = counts.get("input", counts.get("least"))
    if used is not None:
        used += counts.get("tools", 0)
    total = counts.get("total") if used is None else None
    return Overflow(
        counts.get("limit"), used, counts.get("output"), total, "least" in counts, counts.get("excess")
    )


def find_output_limit(text: str) -> OutputLimit | None:
    """The most output tokens that the model can write, when `text` says that more were asked for."""
    scanned = text[:MAX_SCANNED]
    for wording in OUTPUT_LIMITS:
        found = wording.pattern.search(scanned)
        if found:
            counts = {name: _number(count) for name, count in found.groupdict().items() if count is not None}
            if counts["limit"] > 0:
                return OutputLimit(counts["limit"], counts.get("asked"))
    return None


def overflow_message(
    overflow: Overflow,
    *,
    window: int | None = None,
    estimated_input_tokens: int | None = None,
    max_tokens: int | None = None,
) -> str:
    """The text from which Claude Code recovers; it must go out with status 400.

    Args:
        window: the configured window; counts only where the upstream gave none.
        estimated_input_tokens: our own count of the input, likewise. It also raises an input of which the
            upstream counted only the beginning: vLLM stops at the window less the output, so that its number
            would have Claude Code give up 1000 tokens of output per call instead of what is needed.
        max_tokens: the output asked for.
    """
    limit = overflow.limit if overflow.limit is not None else window
    used = overflow.input
    output = overflow.output
    if overflow.total is not None:
        output = max_tokens
        used = overflow.total - (max_tokens or 0) if overflow.total > (max_tokens or 0) else overflow.total
    elif used is None or overflow.is_at_least:
        used = max(used or 0, estimated_input_tokens or 0) or None
    if overflow.excess is not None:
        if limit is not None:
            used = limit + overflow.excess
        elif used is not None and used > overflow.excess:
            limit = used - overflow.excess
    if limit is None:
        # Claude Code compacts without numbers too. A made-up limit would make it keep the wrong amount.
        counted = f" at about {used} tokens" if used is not None else ""
        return f"prompt is too long{counted}: it exceeds the maximum context length of the model"
    if used is not None and output is not None and used < limit < used + output:
        return f"input length and `max_tokens` exceed context limit: {used} + {output} > {limit}"
    # The upstream refused, so the input is over the limit whatever an estimate says.
    return f"prompt is too long: {max(used or 0, limit + 1)} tokens > {limit} maximum"


def output_limit_message(found: OutputLimit, *, model: str, max_tokens: int | None = None) -> str:
    """The text that makes Claude Code ask for `found.limit` output tokens; it must go out with status 400."""
    asked = found.asked if found.asked is not None else max_tokens
    return (
        f"max_tokens: {max(asked or 0, found.limit + 1)} > {found.limit}, which is the maximum allowed "
        f"number of output tokens for {model}"
    )


def _number(text: str) -> int:
    return int(text.replace(",", "").replace("_", ""))
