# ruff: noqa: E501 - the words of servers are not wrapped
"""Parameters that are not known or not supported."""

from __future__ import annotations

from tests.support.vendors.reports import (
    OURS,
    PARALLEL_OFF,
    SAMPLED,
    Report,
    code,
    detail,
    forbidden_in,
    gh,
    has,
    is_not_in,
    xai,
)

__all__ = ["REPORTS"]

REPORTS: tuple[Report, ...] = (
    Report(
        gh("lobehub/lobehub#8381"),
        has("reasoning_effort"),
        "Argument not supported on this model: reasoningEffort",
        envelope=xai,
    ),
    Report(
        gh("neavo/LinguaGacha#771"),
        has("reasoning_effort"),
        "Model grok-4.20-0309-non-reasoning does not support parameter reasoningEffort.",
        envelope=xai,
    ),
    Report(
        gh("BerriAI/litellm#16265"),
        has("stop"),
        "Model grok-code does not support parameter stop.",
        envelope=xai,
        fields=SAMPLED,
    ),
    Report(
        gh("fanenr/chatbot#21"),
        has("stream_options"),
        "property 'stream_options' is unsupported, did you mean 'stream'?",
    ),
    Report(
        OURS,
        has("parallel_tool_calls"),
        "property 'parallel_tool_calls' is unsupported",
        fields=PARALLEL_OFF,
    ),
    Report(
        OURS,
        has("parallel_tool_calls"),
        "litellm.UnsupportedParamsError: somevendor does not support parameters: ['parallel_tool_calls'], for model=x. To drop these, set `litellm.drop_params=True` or for proxy:\n\n`litellm_settings:\n drop_params: true`\n",
        fields=PARALLEL_OFF,
        envelope=lambda t: {"error": {"message": t, "type": "None", "param": None, "code": "400"}},
    ),
    Report(
        OURS,
        has("reasoning_effort", "parallel_tool_calls"),
        "litellm.UnsupportedParamsError: groq does not support parameters: ['reasoning_effort', 'parallel_tool_calls'], for model=x",
        fields=PARALLEL_OFF,
        status=500,
    ),
    Report(
        OURS,
        has("reasoning_effort"),
        "litellm.UnsupportedParamsError: openai does not support parameters: {'reasoning_effort': 'high'}, for model=x",
    ),
    Report(
        OURS,
        has("reasoning_effort"),
        "AsyncCompletions.create() got an unexpected keyword argument 'reasoning_effort'",
        status=500,
        envelope=detail,
    ),
    Report(
        gh("openai/openai-python#2296"),
        has("stream_options", "parallel_tool_calls"),
        "Unrecognized request arguments supplied: parallel_tool_calls, stream_options",
        fields=PARALLEL_OFF,
    ),
    Report(
        OURS,
        has("stream_options"),
        'json: unknown field "stream_options"',
        envelope=lambda t: {"error": t},
    ),
    Report(
        OURS,
        has("parallel_tool_calls"),
        "Failed to deserialize the JSON body into the target type: unknown field `parallel_tool_calls`, expected one of `model`, `messages`, `max_tokens`, `temperature`, `tools`, `tool_choice`, `stream`, `stream_options`, `stop` at line 1 column 81",
        fields=PARALLEL_OFF,
        status=422,
        envelope=detail,
    ),
    Report(
        OURS,
        has("parallel_tool_calls"),
        "Validation: Unsupported parameter(s): `parallel_tool_calls`",
        fields=PARALLEL_OFF,
        envelope=detail,
    ),
    Report(OURS, has("stream_options"), "不支持的参数: stream_options"),
    Report(
        OURS,
        has("top_p"),
        "参数 top_p 不合法",
        fields={"temperature": 0.5, "top_p": 0.9},
    ),
    Report(
        OURS,
        has("parallel_tool_calls"),
        "parallel_tool_calls 参数无效",
        fields=PARALLEL_OFF,
        envelope=code,
    ),
    Report(
        gh("langchain-ai/langchain#29704"),
        has("parallel_tool_calls"),
        "This model does not support parallel tool calls.",
        fields=PARALLEL_OFF,
    ),
    Report(
        gh("avante-corp/avante.nvim#2347"),
        has("stream_options"),
        "Extra inputs are not permitted",
        status=422,
        envelope=forbidden_in("stream_options"),
    ),
    Report(
        OURS,
        has("stop"),
        "Input validation error: `stop` supports up to 4 stop sequences. Given: 5",
        fields=SAMPLED,
        quirks={"stop_limit": None},
        status=422,
    ),
    Report(
        OURS,
        lambda b: len(b.get("stop") or ()) > 1,
        "stop: at most 1 element is allowed",
        fields=SAMPLED,
    ),
    Report(
        OURS,
        lambda b: len(b.get("stop") or ()) > 1,
        "stop 参数最多支持1个停止词",
        fields=SAMPLED,
    ),
    Report(
        OURS,
        is_not_in("temperature", 1),
        "invalid temperature: only 1 is allowed for this model",
        fields=SAMPLED,
    ),
    Report(
        OURS,
        is_not_in("temperature", 1),
        "Unsupported value: 'temperature' does not support 0.5 with this model. Only the default (1) value is supported.",
        fields=SAMPLED,
    ),
    Report(
        OURS,
        is_not_in("temperature", 1),
        "`temperature` may only be set to 1 when thinking is enabled. Please consult our documentation",
        fields=SAMPLED,
    ),
    Report(
        OURS,
        has("top_p"),
        "`top_p` must be greater than or equal to 0.95 or unset when thinking is enabled.",
        fields=SAMPLED,
    ),
    Report(
        OURS,
        lambda b: "temperature" in b and "top_p" in b,
        "`temperature` and `top_p` cannot both be specified for this model. Please use only one.",
        fields=SAMPLED,
    ),
    Report(
        OURS,
        has("top_k"),
        "Unrecognized request argument supplied: top_k",
        fields=SAMPLED,
        quirks={"sampling": ["temperature", "top_p", "top_k"]},
    ),
    Report(
        OURS,
        has("top_k"),
        "top_k is not currently supported by this API. Please contact support",
        fields=SAMPLED,
        quirks={"sampling": ["temperature", "top_p", "top_k"]},
    ),
)
