"""Refusals about tools (`proxyd.providers.tool_rules`)."""

from __future__ import annotations

from proxyd.providers.refusals import QuirkChange
from tests.support.refusals import NAMED, TOOLS, Case, openai

CASES: list[Case] = [
    (
        "deepseek-ai/DeepSeek-V3/issues/1376",
        {"tool_choice": "required"},
        openai("Thinking mode does not support this tool_choice"),
        QuirkChange("forced_choice_while_thinking", False),
    ),
    (
        "deepseek-ai/DeepSeek-V3/issues/1376",
        {"tool_choice": NAMED},
        openai("Thinking mode does not support this tool_choice"),
        QuirkChange("forced_choice_while_thinking", False),
    ),
    (
        "docs/spec/messages-to-chat.md#tools",
        {"tool_choice": NAMED},
        openai("tool_choice object is not supported"),
        QuirkChange("named_tool_choice", False),
    ),
    (
        "docs/spec/messages-to-chat.md#tools",
        {"tool_choice": "required"},
        openai("Unsupported value for tool_choice: 'required'. Supported: auto, none", "tool_choice"),
        QuirkChange("required_word", "auto"),
    ),
    (
        "docs/spec/vendors.md#mistral",
        {"tool_choice": "required"},
        {
            "detail": [
                {
                    "loc": ["body", "tool_choice"],
                    "msg": "Input should be 'auto', 'none' or 'any'",
                    "type": "enum",
                }
            ]
        },
        QuirkChange("required_word", "any"),
    ),
    (
        "docs/spec/vendors.md#mistral",
        {},
        {
            "object": "error",
            "message": "Tool call id was call_9 but must be a-z, A-Z, 0-9, with a length of 9.",
            "code": "3280",
        },
        QuirkChange("tool_id_style", "mistral"),
    ),
    (
        "docs/spec/chat-completions.md#messages",
        {},
        openai(
            "Invalid 'messages[3].tool_calls[0].id': string too long. Expected a string with maximum length 40, but "
            "instead got a string with length 41 instead.",
            "messages[3].tool_calls[0].id",
            "string_above_max_length",
        ),
        QuirkChange("tool_id_style", "openai"),
    ),
    (
        "openai, array_above_max_length",
        {"tools": TOOLS * 150},
        openai(
            "Invalid 'tools': array too long. Expected an array with maximum length 128, but instead got "
            "an array with length 150 instead.",
            "tools",
            "array_above_max_length",
        ),
        QuirkChange("max_tools", 128),
    ),
    (
        "karthink/gptel/issues/806",
        {},
        [
            {
                "error": {
                    "code": 400,
                    "message": 'Invalid JSON payload received. Unknown name "additionalProperties" at '
                    "'tools[0].function_declarations[7].parameters.properties[1].value.items': Cannot find field.",
                    "status": "INVALID_ARGUMENT",
                }
            }
        ],
        QuirkChange("schema_style", "gemini"),
    ),
    (
        "MoonshotAI/kimi-cli/issues/1595",
        {},
        openai(
            "Invalid request: tools.function.parameters is not a valid moonshot flavored json schema, details: "
            "<At path 'properties.args': type is not defined>"
        ),
        QuirkChange("schema_style", "moonshot"),
    ),
    (
        "lemonade-sdk/lemonade/issues/2691",
        {},
        openai("Failed to initialize samplers: failed to parse grammar"),
        QuirkChange("schema_style", "grammar"),
    ),
    (
        "ggml-org/llama.cpp/issues/19716",
        {},
        openai('JSON schema conversion failed:\nUnrecognized schema: {"description":"d"}'),
        QuirkChange("schema_style", "grammar"),
    ),
    (
        "ogx-ai/ogx/pull/3602",
        {},
        openai(
            "Invalid schema for function 'Read': In context=('properties', 'tags'), array schema missing items.",
            "tools[0].function.parameters",
            "invalid_function_parameters",
        ),
        QuirkChange("schema_style", "openai"),
    ),
]
