"""Recognise that a request does not fit the context window, and say so in a way from which Claude Code recovers.

Claude Code compacts, or asks for less output, when a 400 carries one of three texts (docs/spec/errors.md#too-long)::

    prompt is too long: 215000 tokens > 200000 maximum                                    it compacts
    input length and `max_tokens` exceed context limit: 190000 + 32000 > 200000           it asks for less
    max_tokens: 32000 > 8192, which is the maximum allowed number of output tokens for X  the same

No OpenAI-compatible server writes any of them. Whether a text says "too long" is decided by its words, in any order
(`overflow_words`). `WORDINGS` are known texts, each with its source, whose named groups are the numbers; the numbers of
other texts are identified by the words around them (`overflow_numbers`). Where an upstream gives no reason,
`is_evident` judges by the size of the prompt.

`OUTPUT_LIMITS` are the wordings for requests for more output than the model can write. Matching ignores case; texts
are truncated to `MAX_SCANNED` characters first.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from proxyd.codecs.upstream_errors.overflow_numbers import COUNT, number, read_counts
from proxyd.codecs.upstream_errors.overflow_words import MAX_SCANNED, says_overflow

__all__ = [
    "OUTPUT_LIMITS",
    "WORDINGS",
    "OutputLimit",
    "Overflow",
    "Wording",
    "find_output_limit",
    "find_overflow",
    "is_evident",
    "output_limit_message",
    "overflow_message",
]

#: Numeric codes that mean "too long": GLM.
_CODES = frozenset({"1261"})

#: Codes about the output limit, which contain words of an overflow.
_OUTPUT_CODE = re.compile(r"max_?(?:completion_|output_|new_)?tokens")

#: Texts that mention tokens and limits because of a quota per minute.
_QUOTA = re.compile(
    r"rate.?limit|too many requests|per.?(?:minute|day|hour)|\btp[md]\b|\bquota\b|throttl|please wait",
    re.IGNORECASE,
)

#: Where validation errors begin to repeat the request.
_ECHO = re.compile(r"\binput_value=|['\"]input['\"]\s{0,4}:")

#: From this many tokens on, an error with an empty body is taken for "too long" where no window is known: the
#: smallest window of Cerebras, which responds that way.
_SMALLEST_WINDOW = 8192

#: No model writes fewer tokens than this at most.
_SMALLEST_OUTPUT = 256

#: Limits outside this range are not learned as windows: Claude Code's first prompt alone is larger than the smallest.
_SMALLEST_LEARNED = 1024
_LARGEST_LEARNED = 100_000_000


@dataclass(frozen=True, slots=True)
class Wording:
    """A known text.

    Args:
        vendor: who writes so.
        pattern: its groups ``limit``, ``input``, ``output``, ``total`` (input and output) and ``excess``
            (input over the limit) hold what numbers there are; ``tools`` adds to the input; ``least`` is an
            input of which the server counted only the beginning.
        source: where it was found.
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

    @property
    def window(self) -> int | None:
        """The limit, if it is plausible as the window of a model."""
        return (
            self.limit
            if self.limit is not None and _SMALLEST_LEARNED <= self.limit <= _LARGEST_LEARNED
            else None
        )


@dataclass(frozen=True, slots=True)
class OutputLimit:
    """A request for more output than the model can write; token counts."""

    limit: int
    asked: int | None = None


def _wording(vendor: str, pattern: str, source: str) -> Wording:
    """Compile `pattern`, in which ``{name}`` stands for a count and a blank for any white space."""
    text = pattern.replace(" ?", r"\s*").replace(" ", r"\s+")
    text = re.sub(r"\{([a-z]+)\}", lambda found: f"(?P<{found[1]}>{COUNT})", text)
    return Wording(vendor, re.compile(text, re.IGNORECASE), source)


_PI = "https://github.com/earendil-works/pi/blob/main/packages/ai/src/utils/overflow.ts"
_WINDOW = r"maximum context length is {limit} tokens\W{1,3}however,? "

#: The first match wins: wordings with more numbers come first.
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
        "lm studio",
        r"is greater than the context length \(n_keep: {input} ?>= n_ctx: {limit}\)",
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
    _wording(
        "nvidia nim, vllm",  # it subtracts the prompt from the window
        r"max_(?:completion_)?tokens must be at least ?1, got -{excess}",
        "https://github.com/vllm-project/vllm/issues/36789",
    ),
    _wording("ollama", r"prompt too long; exceeded (?:max )?context length by {excess} tokens", _PI),
    _wording(
        "vllm",
        r"\(length {input}\) is longer than the maximum model length of {limit}",
        "https://github.com/vllm-project/vllm/pull/12600",
    ),
)

_OUTPUT = r"`?'?max_(?:completion_|output_|new_)?tokens'?`?"

#: Requests for more output than the model can write; groups ``limit`` and ``asked``.
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
        "docs/spec/errors.md#too-long",
    ),
    _wording(
        "bedrock",
        r"maximum tokens you requested exceeds? the model limit of {limit}",
        "https://github.com/charmbracelet/crush/issues/946",
    ),
)


def find_overflow(text: str, codes: tuple[str, ...] = ()) -> Overflow | None:
    """Read an overflow from the upstream's `text` or its error `codes` and types.

    Returns:
        None when they are about something else, such as quotas per minute.
    """
    scanned = _ECHO.split(text[:MAX_SCANNED], maxsplit=1)[0]
    if _QUOTA.search(scanned):
        return None
    for wording in WORDINGS:
        found = wording.pattern.search(scanned)
        if found:
            return _overflow(found)
    if find_output_limit(scanned) is not None:
        return None
    if says_overflow(scanned) or any(_is_overflow_code(code) for code in codes):
        counts = read_counts(scanned)
        return Overflow(counts.limit, counts.input, counts.output, counts.total)
    return None


def _is_overflow_code(code: str) -> bool:
    if code.lower() in _CODES:
        return True
    return not _OUTPUT_CODE.search(code.lower()) and says_overflow(re.sub(r"[_.-]", " ", code))


def is_evident(
    estimate: int | None, *, window: int | None, largest_accepted: int | None = None, certainty: float
) -> bool:
    """Whether an error without a reason can only be about the length of the prompt.

    Args:
        estimate: of the prompt's tokens.
        window: the configured or learned one.
        largest_accepted: the largest estimate that this upstream has accepted; nothing smaller is too long.
        certainty: the share of the window that the estimate must reach, depending on how likely other causes are.
            From 0.9 on, a window must be known.
    """
    if estimate is None or (largest_accepted is not None and estimate <= largest_accepted):
        return False
    if window is not None:
        return estimate >= window * certainty
    return certainty < 0.9 and estimate >= _SMALLEST_WINDOW


def _overflow(found: re.Match[str]) -> Overflow:
    counts = {name: number(text) for name, text in found.groupdict().items() if text is not None}
    used = counts.get("input", counts.get("least"))
    if used is not None:
        used += counts.get("tools", 0)
    total = counts.get("total") if used is None else None
    return Overflow(
        counts.get("limit"), used, counts.get("output"), total, "least" in counts, counts.get("excess")
    )


def find_output_limit(text: str) -> OutputLimit | None:
    """Read the model's output limit from a `text` that says that more was requested."""
    scanned = text[:MAX_SCANNED]
    for wording in OUTPUT_LIMITS:
        found = wording.pattern.search(scanned)
        if found:
            counts = {name: number(count) for name, count in found.groupdict().items() if count is not None}
            if counts["limit"] > 0:
                return OutputLimit(counts["limit"], counts.get("asked"))
    return _limit_by_words(scanned)


#: A parameter that limits the output, or the output itself.
_OUTPUT_NAME = re.compile(
    r"max_?(?:completion_?|output_?|new_?)?tokens(?!_to_sample)|maximum number of output tokens|\boutput tokens"
    r"|最大输出",
    re.IGNORECASE,
)
_NOT_OUTPUT = re.compile(
    r"\b(?:context|prompts?|inputs?|messages?|total|sum|thinking|budget|minimum|at least|greater than or equal)\b"
    r"|上下文|输入|提示|总",
    re.IGNORECASE,
)
_VALIDATION = re.compile(r"\binput (?:should be|validation error)", re.IGNORECASE)
#: What a limit is introduced by; a number follows.
_BOUND = re.compile(
    r"(?:at most|up to|<=?|≤|less than(?: or equal to)?|no (?:more|larger|greater) than|not? exceed|exceeds?"
    r"|supports?|between"
    r"|range|maximum|max\b|limit|from|\bin\b|最大|不超过|不能超过|最多|上限|范围)",
    re.IGNORECASE,
)
_COUNT_OF_LIMIT = re.compile(rf"(?<![\w.-])({COUNT})(?![\w.])")


def _limit_by_words(text: str) -> OutputLimit | None:
    """Read an output limit from a text of no known wording: its numbers, and words for a bound."""
    plain = _VALIDATION.sub(" ", text)
    if not _OUTPUT_NAME.search(plain) or _NOT_OUTPUT.search(plain):
        return None
    bound = _BOUND.search(plain)
    if bound is None:
        return None
    numbers = sorted({number(found[1]) for found in _COUNT_OF_LIMIT.finditer(plain)})
    numbers = [each for each in numbers if each >= _SMALLEST_OUTPUT]
    if not 1 <= len(numbers) <= 2:
        return None
    # Of two, the larger one was asked for.
    limit = numbers[0] - ("exclusive" in plain.lower())
    return OutputLimit(limit, numbers[1] if len(numbers) == 2 else None)


def overflow_message(
    overflow: Overflow,
    *,
    window: int | None = None,
    estimated_input_tokens: int | None = None,
    max_tokens: int | None = None,
) -> str:
    """Return the text from which Claude Code recovers; it must be sent with status 400.

    Args:
        window: the configured window; used only where the upstream gave none.
        estimated_input_tokens: our own count of the input; used likewise, and to raise an input of which the
            upstream counted only the beginning: vLLM stops at the window less the output, and with its number
            Claude Code would reduce the output by 1000 tokens per call instead of by what is needed.
        max_tokens: the requested output.
    """
    limit, used, output = _window_counts(overflow, window, estimated_input_tokens, max_tokens)
    if limit is None:
        # Claude Code compacts without numbers too. A made-up limit would make it keep the wrong amount.
        counted = f" at about {used} tokens" if used is not None else ""
        return f"prompt is too long{counted}: it exceeds the maximum context length of the model"
    if used is not None and output is not None and used < limit < used + output:
        return f"input length and `max_tokens` exceed context limit: {used} + {output} > {limit}"
    # The upstream refused, so the input is over the limit whatever an estimate says.
    return f"prompt is too long: {max(used or 0, limit + 1)} tokens > {limit} maximum"


def _window_counts(
    overflow: Overflow, window: int | None, estimated_input_tokens: int | None, max_tokens: int | None
) -> tuple[int | None, int | None, int | None]:
    """Return limit, input and output tokens: the upstream's numbers, completed by ours."""
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
    return limit, used, output


def output_limit_message(found: OutputLimit, *, model: str, max_tokens: int | None = None) -> str:
    """Return the text that makes Claude Code request `found.limit` output tokens; it must be sent with status 400."""
    asked = found.asked if found.asked is not None else max_tokens
    return (
        f"max_tokens: {max(asked or 0, found.limit + 1)} > {found.limit}, which is the maximum allowed "
        f"number of output tokens for {model}"
    )
