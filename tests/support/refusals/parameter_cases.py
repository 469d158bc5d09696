"""Refusals of parameters (`proxyd.providers.parameter_rules`)."""

from __future__ import annotations

from proxyd.providers.refusals import QuirkChange
from tests.support.refusals import SCHEMA, Case, openai, unsupported

CASES: list[Case] = [
    (
        "microsoft/vscode-copilot-release/issues/8065",
        {},
        openai(
            "Unsupported parameter: 'max_tokens' is not supported with this model. Use "
            "'max_completion_tokens' instead.",
            "max_tokens",
            "unsupported_parameter",
        ),
        QuirkChange("max_tokens_field", "max_completion_tokens"),
    ),
    (
        "caozhiyuan/copilot-api/issues/164",
        {},
        {
            "error": {
                "message": "Unsupported parameter: 'max_tokens' is not supported with this model. Use "
                "'max_completion_tokens' instead.",
                "code": "invalid_request_body",
            }
        },
        QuirkChange("max_tokens_field", "max_completion_tokens"),
    ),
    (
        "1Panel-dev/MaxKB/issues/2912",
        {"max_tokens": None, "max_completion_tokens": 800},
        {
            "object": "error",
            "message": "[{'type': 'extra_forbidden', 'loc': ('body', 'max_completion_tokens'), 'msg': 'Extra inputs "
            "are not permitted', 'input': 800}]",
            "type": "BadRequestError",
            "param": None,
            "code": 400,
        },
        QuirkChange("max_tokens_field", "max_tokens"),
    ),
    (
        "QuantumNous/new-api/issues/418",
        {},
        openai(
            "Unknown parameter: 'stream_options'. (request id: 2024)", "stream_options", "unknown_parameter"
        ),
        QuirkChange("stream_options", False),
    ),
    (
        "CherryHQ/cherry-studio/issues/9214",
        {},
        {
            "detail": "Extra parameters ['stream_options'] are not allowed when extra-parameters is not set or set to "
            "be 'error'. Set extra-parameters to 'pass-through' to pass to the model."
        },
        QuirkChange("stream_options", False),
    ),
    (
        "openai/openai-python/issues/2296",
        {},
        {
            "error": {
                "requestid": "e",
                "code": 400,
                "message": "Validation error at #/stream_options: Extra inputs are not permitted",
            }
        },
        QuirkChange("stream_options", False),
    ),
    (
        "FlowiseAI/Flowise/issues/2866",
        {},
        openai("Extra inputs are not permitted, field: 'stream_options', value: {'include_usage': True}"),
        QuirkChange("stream_options", False),
    ),
    (
        "partITech/php-mistral/issues/76 (the envelope)",
        {},
        {
            "object": "Error",
            "message": {
                "detail": [
                    {
                        "type": "extra_forbidden",
                        "loc": ["body", "stream_options"],
                        "msg": "Extra inputs are not permitted",
                    }
                ]
            },
            "type": "invalid_request_error",
        },
        QuirkChange("stream_options", False),
    ),
    (
        "johny-b/llmcomp/issues/69",
        {"temperature": 0, "top_p": 0.9},
        openai(
            "Unsupported value: 'temperature' does not support 0 with this model. Only the default (1) "
            "value is supported.",
            "temperature",
            "unsupported_value",
        ),
        QuirkChange("sampling", ["top_p"]),
    ),
    (
        "XCNXNXNX/dsh-portable-tavern/issues/1",
        {"temperature": 0.5},
        openai("invalid temperature: only 1 is allowed for this model"),
        QuirkChange("sampling", []),
    ),
    (
        "docs/spec/chat-completions.md#request",
        {"top_p": 0.9, "temperature": 1},
        unsupported("top_p"),
        QuirkChange("sampling", ["temperature"]),
    ),
    (
        "docs/spec/messages-to-chat.md#top-level",
        {"top_k": 4},
        openai("Unrecognized request argument supplied: top_k"),
        QuirkChange("sampling", []),
    ),
    (
        "anthropic models behind a gateway",
        {"temperature": 1, "top_p": 0.9},
        openai("`temperature` and `top_p` cannot both be specified for this model. Please use only one."),
        QuirkChange("sampling", ["temperature"]),
    ),
    (
        "docs/spec/chat-completions.md#request",
        {"stop": ["a"]},
        unsupported("stop"),
        QuirkChange("stop_limit", 0),
    ),
    (
        "docs/spec/chat-completions.md#request",
        {"stop": ["a"] * 5},
        openai(
            "Invalid 'stop': array too long. Expected an array with maximum length 4, but instead got an "
            "array with length 5.",
            "stop",
            "array_above_max_length",
        ),
        QuirkChange("stop_limit", 4),
    ),
    (
        "langchain-ai/langgraph-supervisor-py/issues/52",
        {"parallel_tool_calls": False},
        unsupported("parallel_tool_calls"),
        QuirkChange("parallel_tool_calls", False),
    ),
    (
        "arbs-io/github-copilot-llm-gateway/issues/79",
        {"parallel_tool_calls": False},
        {
            "error": {
                "message": "litellm.UnsupportedParamsError: ollama does not support parameters: "
                "['parallel_tool_calls'], "
                "for model=phi4-mini:3.8b. To drop these, set litellm.drop_params=True",
                "type": "None",
                "param": "None",
                "code": "400",
            }
        },
        QuirkChange("parallel_tool_calls", False),
    ),
    (
        "docs/spec/messages-to-chat.md#top-level",
        {"service_tier": "auto"},
        unsupported("service_tier"),
        QuirkChange("service_tier", False),
    ),
    (
        "docs/spec/messages-to-chat.md#top-level",
        {"prompt_cache_key": "k"},
        unsupported("prompt_cache_key"),
        QuirkChange("prompt_cache_key", False),
    ),
    (
        "llm-exe/llm-exe/issues/662",
        {"response_format": SCHEMA},
        openai("This response_format type is unavailable now", None, "invalid_request_error"),
        QuirkChange("response_format", "json_object"),
    ),
    (
        "browser-use/browser-use/pull/215",
        {"response_format": SCHEMA},
        "Failed to deserialize the JSON body into the target type: response_format: response_format.type "
        "`json_schema` is "
        "unavailable now at line 1 column 12440",
        QuirkChange("response_format", "json_object"),
    ),
    (
        "docs/spec/messages-to-chat.md#top-level",
        {"response_format": {"type": "json_object"}},
        openai("'response_format.type' must be 'text'", "response_format"),
        QuirkChange("response_format", "none"),
    ),
]
