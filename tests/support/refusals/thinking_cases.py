"""Refusals about thinking (`proxyd.providers.thinking_rules`)."""

from __future__ import annotations

from proxyd.providers.refusals import QuirkChange
from tests.support.refusals import CALL, Case, openai, unsupported

CASES: list[Case] = [
    (
        "Kilo-Org/cloud/pull/3807",
        {"reasoning_effort": "none"},
        openai(
            "Unsupported value: 'reasoning_effort' does not support 'none' with this model. Supported values are: "
            "'minimal', 'low', 'medium', and 'high'."
        ),
        QuirkChange(
            "efforts",
            {"minimal": "minimal", "low": "low", "medium": "medium", "high": "high", "none": "minimal"},
        ),
    ),
    (
        "anomalyco/opencode/issues/4451",
        {"reasoning_effort": "minimal"},
        openai(
            "Unsupported value: 'minimal' is not supported with the 'gpt-5.1' model. Supported values are: 'none', "
            "'low', 'medium', and 'high'.",
            "***.effort",
            "unsupported_value",
        ),
        QuirkChange("efforts", {"none": "none", "low": "low", "medium": "medium", "high": "high"}),
    ),
    (
        "groq, console.groq.com/docs/reasoning",
        {"reasoning_effort": "high"},
        openai("`reasoning_effort` must be one of `none` or `default`", "reasoning_effort"),
        QuirkChange("efforts", {"none": "none"}),
    ),
    (
        "matsonj/eval-connections/issues/12",
        {"reasoning": {"effort": "none"}},
        {
            "error": {
                "message": "Reasoning is mandatory for this endpoint and cannot be disabled.",
                "code": 400,
            }
        },
        QuirkChange("efforts", {"low": "low", "medium": "medium", "high": "high"}),
    ),
    (
        "docs/spec/messages-to-chat.md#thinking",
        {"reasoning_effort": "high"},
        unsupported("reasoning_effort"),
        QuirkChange("effort_path", None),
    ),
    (
        "xai, docs.x.ai reasoning",
        {"reasoning_effort": "high"},
        {
            "code": "Client specified an invalid argument",
            "error": "Model grok-4 does not support parameter reasoningEffort or reasoning_effort.",
        },
        QuirkChange("effort_path", None),
    ),
    (
        "docs/spec/messages-to-chat.md#thinking",
        {"enable_thinking": True},
        openai("Unknown parameter: 'enable_thinking'"),
        QuirkChange("thinking_path", None),
    ),
    (
        "vllm-project/vllm/issues/38560",
        {"chat_template_kwargs": {"enable_thinking": True}},
        openai("chat_template is not supported for Mistral tokenizers."),
        QuirkChange("thinking_path", None),
    ),
    (
        "BerriAI/litellm/issues/34569",
        {"reasoning_effort": "high"},
        openai(
            "Function tools with reasoning_effort are not supported for gpt-5.6 in /v1/chat/completions. To use "
            "function tools, use /v1/responses or set reasoning_effort to 'none'.",
            "reasoning_effort",
        ),
        QuirkChange("body_with_tools", {"reasoning_effort": "none"}),
    ),
    (
        "a list of levels after must be",
        {"reasoning_effort": "max"},
        openai("reasoning_effort must be 'low', 'medium' or 'high'"),
        QuirkChange("efforts", {"low": "low", "medium": "medium", "high": "high"}),
    ),
    (
        "QwenLM, parameter.enable_thinking of calls that do not stream",
        {"tools": None, "enable_thinking": True},
        openai("parameter.enable_thinking must be set to false for non-streaming calls"),
        QuirkChange("thinking_on", False),
    ),
    (
        "new-api/issues/3121",
        {"messages": [{"role": "user", "content": "u"}, {"role": "assistant", "tool_calls": [CALL]}]},
        openai(
            "thinking is enabled but reasoning_content is missing in assistant tool call message at index 1"
        ),
        QuirkChange(
            "reasoning_return",
            "field",
            (QuirkChange("reasoning_field", "reasoning_content"), QuirkChange("reasoning_placeholder", ".")),
        ),
    ),
    (
        "groq: messages without reasoning_content",
        {"messages": [{"role": "assistant", "content": "a", "reasoning_content": "r"}]},
        openai("property 'reasoning_content' is unsupported"),
        QuirkChange("reasoning_return", "none"),
    ),
    (
        "gemini: thought signatures",
        {"messages": [{"role": "assistant", "tool_calls": [CALL]}]},
        openai("Function call is missing a thought_signature in functionCall parts."),
        QuirkChange(
            "thought_signatures",
            True,
            (QuirkChange("thought_signature_placeholder", "skip_thought_signature_validator"),),
        ),
    ),
]
