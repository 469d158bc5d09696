# ruff: noqa: E501 - the words of servers are not wrapped
"""Thinking, efforts and their values."""

from __future__ import annotations

from tests.support.vendors.reports import (
    OURS,
    Report,
    any_message,
    detail,
    forbidden_in,
    gh,
    google,
    has,
    is_in,
    is_not_in,
    message,
)

__all__ = ["REPORTS"]

REPORTS: tuple[Report, ...] = (
    Report(
        gh("Gitlawb/openclaude#1371"),
        has("reasoning_effort"),
        '"qwen2.5-coder:7b" does not support thinking',
        envelope=lambda t: {"error": {"message": t, "type": "api_error"}},
    ),
    Report(
        OURS,
        is_not_in("reasoning_effort", "low", "medium", "high"),
        'invalid think value: "xhigh" (must be "high", "medium", "low", true, or false)',
        capture="effort_xhigh",
        quirks={"efforts": ["low", "medium", "high", "xhigh"]},
    ),
    Report(
        OURS,
        has("reasoning_effort"),
        'think value "high" is not supported for this model',
    ),
    Report(
        OURS,
        is_not_in("reasoning_effort", "low", "medium"),
        "unknown variant `high`, expected one of `low`, `medium` at line 1 column 40",
        status=422,
        envelope=detail,
    ),
    Report(
        OURS,
        is_not_in("reasoning_effort", "low", "high"),
        "Thinking level MEDIUM is not supported for this model. Please retry with other thinking level.",
        capture="effort_medium",
        envelope=google,
    ),
    Report(
        OURS,
        has("reasoning_effort"),
        "Unable to submit request because thinking is not supported by this model.",
        envelope=google,
    ),
    Report(
        OURS,
        has("reasoning_effort"),
        "Thinking is not enabled for models/gemini-2.0-flash",
        envelope=google,
    ),
    Report(
        OURS,
        is_not_in("reasoning_effort", "low", "high"),
        "1 validation error for ChatCompletionRequest: reasoning_effort: Input should be 'low' or 'high'",
        capture="effort_medium",
        envelope=message,
    ),
    Report(
        OURS,
        is_not_in("reasoning_effort", "low", "high"),
        "Effort 'medium' is not available for this model. Available: low, high",
        capture="effort_medium",
    ),
    Report(
        gh("OpenCSGs/csglite#194"),
        is_not_in("reasoning_effort", "low", "high"),
        "reasoning_effort 参数错误，可选值为 low、high",
        capture="effort_medium",
    ),
    Report(
        OURS,
        is_in("enable_thinking", True),
        "parameter.enable_thinking must be set to false for non-streaming calls",
        quirks={"thinking_path": "enable_thinking", "thinking_on": True, "thinking_off": False},
    ),
    Report(
        "https://help.aliyun.com/zh/model-studio/error-code",
        is_in("enable_thinking", False),
        "The value of the enable_thinking parameter is restricted to True.",
        capture="thinking_off",
        quirks={"thinking_path": "enable_thinking", "thinking_on": True, "thinking_off": False},
    ),
    Report(
        gh("QwenLM/Qwen-Agent#941"),
        lambda b: b.get("thinking_budget", 0) > 4000,
        "The thinking_budget parameter must be a positive integer and not greater than 4000",
        capture="thinking_budget",
        quirks={
            "budget_path": "thinking_budget",
            "thinking_path": "enable_thinking",
            "thinking_on": True,
            "thinking_off": False,
        },
    ),
    Report(
        OURS,
        has("reasoning_effort"),
        "`max_tokens` must be greater than `thinking.budget_tokens`. Please consult our documentation",
    ),
    Report(
        OURS,
        has("reasoning_effort"),
        "litellm.BadRequestError: AnthropicException - messages.1.content.0.type: Expected `thinking` or `redacted_thinking`, but found `tool_use`. When `thinking` is enabled, a final `assistant` message must start with a thinking block",
    ),
    Report(
        gh("earendil-works/pi#1502"),
        any_message(lambda m: "reasoning_opaque" in m),
        "messages.1.content.0: Invalid `signature` in `thinking` block",
        capture="signed",
    ),
    Report(
        OURS,
        any_message(lambda m: "reasoning_opaque" in m),
        "Corrupted thought signature.",
        capture="signed",
        envelope=google,
    ),
    Report(
        gh("janhq/jan#8136"),
        any_message(lambda m: "reasoning_content" in m),
        "'messages.1' : for 'role:assistant' the following must be satisfied[('messages.1' : property 'reasoning_content' is unsupported)]",
        capture="reasoned",
    ),
    Report(
        gh("karthink/gptel#774"),
        any_message(lambda m: "reasoning" in m),
        "'messages.2' : for 'role:assistant' the following must be satisfied[('messages.2' : property 'reasoning' is unsupported, did you mean 'role'?)]",
        capture="reasoned_openrouter",
    ),
    Report(
        gh("charmbracelet/crush#1590"),
        any_message(lambda m: "reasoning_content" in m),
        "Extra inputs are not permitted",
        status=422,
        envelope=forbidden_in("messages", "2", "assistant", "reasoning_content"),
        capture="reasoned",
    ),
    Report(
        OURS,
        any_message(
            lambda m: (
                m["role"] == "assistant" and m.get("tool_calls") is not None and "reasoning_content" not in m
            )
        ),
        "Missing `reasoning_content` field in the assistant message at message index 2. For more information, please refer to the docs",
    ),
    Report(
        OURS,
        any_message(
            lambda m: (
                m["role"] == "assistant" and m.get("tool_calls") is not None and "reasoning_content" not in m
            )
        ),
        "思考模式下 assistant 消息必须携带 reasoning_content 字段",
    ),
    Report(
        gh("jenslys/opencode-gemini-auth#14"),
        is_not_in("reasoning_effort", "low", "high"),
        "Unable to submit request because thinking_level MEDIUM is not supported by this model. Learn more: https://cloud.google.com/vertex-ai/generative-ai/docs/model-reference/gemini",
        capture="effort_medium",
        envelope=google,
    ),
    Report(
        gh("RooCodeInc/Roo-Code#10700"),
        has("reasoning_effort"),
        "Thinking level is not supported for this model.",
        envelope=google,
    ),
    Report(
        gh("anthropics/claude-code#10222"),
        lambda b: not b.get("tools") and any(m.get("tool_calls") for m in b["messages"]),
        "Error calling litellm.acompletion for non-Anthropic model: litellm.UnsupportedParamsError: Bedrock doesn't support tool calling without `tools=` param specified. Pass `tools=` param OR set `litellm.modify_params = True` // `litellm_settings::modify_params: True` to add dummy tool to the request.",
        fields={"tools": []},
        status=500,
    ),
    Report(
        gh("SAIL-Research-Lab/cheetahclaws#72"),
        any_message(lambda m: m.get("content") is None),
        "invalid message content type: <nil>",
        capture="bare_call",
        envelope=lambda t: {"error": {"message": t, "type": "invalid_request_error"}},
    ),
    Report(
        gh("lmstudio-ai/lmstudio-bug-tracker#261"),
        any_message(lambda m: m.get("content") is None),
        "Invalid 'content': 'content' field must be a string or an array of objects.",
        capture="bare_call",
        envelope=lambda t: {"error": t},
    ),
    Report(
        gh("earendil-works/pi#1360"),
        any_message(lambda m: m["role"] == "tool" and not m.get("name")),
        "The GenerateContentRequest proto is invalid:\n  * contents[466].parts[0].function_response.name: [REQUIRED_FIELD_MISSING]",
        envelope=google,
    ),
    Report(
        gh("musistudio/claude-code-router#948"),
        lambda b: b.get("enable_thinking") is True,
        "enable thinking can not be support when `stream=False`.",
        quirks={"thinking_path": "enable_thinking", "thinking_on": True, "thinking_off": False},
    ),
)
