# ruff: noqa: E501 - the words of servers are not wrapped
"""The schemas, names and number of tools, and their choice."""

from __future__ import annotations

import re

from tests.support.vendors.reports import (
    FORCED,
    NAMED,
    OURS,
    Report,
    gh,
    google,
    is_in,
    is_not_in,
    message,
    minimax,
    words_in_schemas,
)

__all__ = ["REPORTS"]

REPORTS: tuple[Report, ...] = (
    Report(
        OURS,
        words_in_schemas("additionalProperties", "$schema", "exclusiveMinimum", "propertyNames", "const"),
        "Invalid JSON payload received. Unknown name \"exclusiveMinimum\" at 'tools[0].function_declarations[3].parameters.properties[1].value': Cannot find field.",
        envelope=google,
    ),
    Report(
        OURS,
        words_in_schemas("additionalProperties", "const"),
        "* GenerateContentRequest.tools[0].function_declarations[5].parameters.properties[questions].items: missing field.",
        envelope=google,
    ),
    Report(
        OURS,
        words_in_schemas("anyOf", "oneOf"),
        "Unable to submit request because `Workflow` functionDeclaration `parameters.args` schema specified other fields alongside any_of. When using any_of, it must be the only field set.",
        capture="mcp_tools",
        envelope=google,
    ),
    Report(
        OURS,
        words_in_schemas("additionalProperties"),
        "Invalid value at 'tools[0].function_declarations[0].parameters.properties[0].value.type' (type.googleapis.com/google.ai.generativelanguage.v1beta.Type), \"null\"",
        envelope=google,
    ),
    Report(
        OURS,
        words_in_schemas("additionalProperties", "maxItems"),
        "The specified schema produces a constraint that has too many states for serving.",
        envelope=google,
    ),
    Report(
        OURS,
        words_in_schemas("anyOf", "oneOf", "allOf"),
        "tools.12.custom.input_schema: input_schema does not support oneOf, allOf, or anyOf at the top level",
        capture="mcp_tools",
    ),
    Report(
        OURS,
        words_in_schemas("$ref", "$defs"),
        "tools.14.custom.input_schema: JSON schema is invalid. It must match JSON Schema draft 2020-12",
        capture="mcp_tools",
    ),
    Report(
        OURS,
        words_in_schemas("maxLength", "pattern", "format"),
        "Invalid schema for function 'Workflow': In context=('properties', 'script'), 'maxLength' is not permitted.",
        envelope=lambda t: {
            "error": {
                "message": t,
                "param": "tools[3].function.parameters",
                "code": "invalid_function_parameters",
            }
        },
    ),
    Report(
        OURS,
        words_in_schemas("pattern", "minItems", "maxItems", "propertyNames"),
        "The provided JSON schema contains features not supported by xgrammar.",
        fields=FORCED,
        envelope=message,
    ),
    Report(
        OURS,
        words_in_schemas("pattern", "minItems", "maxItems", "maxLength"),
        "Grammar error: Invalid grammar specification: unsupported type/keyword",
        fields=FORCED,
        envelope=message,
    ),
    Report(
        OURS,
        words_in_schemas("maxLength", "propertyNames"),
        "Failed to compile json schema: regex parse error",
        envelope=message,
    ),
    Report(
        OURS,
        words_in_schemas("additionalProperties"),
        "JSON schema error: additionalProperties must be a boolean",
    ),
    Report(
        OURS,
        words_in_schemas("propertyNames", "maxLength"),
        "<400> InternalError.Algo.InvalidParameter: The provided tool's parameters schema is invalid",
    ),
    Report(OURS, words_in_schemas("maxLength"), "tools[2].function.parameters 参数非法"),
    Report(
        gh("bestruirui/octopus#165"),
        words_in_schemas("maxLength"),
        "API 调用参数有误，请检查文档。",
        envelope=lambda t: {"error": {"code": "1210", "message": t}},
    ),
    Report(
        gh("BigPizzaV3/CodexPlusPlus#267"),
        words_in_schemas("maxLength"),
        "invalid params, invalid chat setting (2013)",
        envelope=minimax,
    ),
    Report(
        OURS,
        words_in_schemas("maxLength"),
        "No endpoints found that can handle the requested parameters. To learn more about provider routing, visit: https://openrouter.ai/docs/guides/routing/provider-selection",
        status=404,
    ),
    Report(
        OURS,
        words_in_schemas("maxLength"),
        "Provider returned error",
        envelope=lambda t: {
            "error": {
                "message": t,
                "code": 400,
                "metadata": {
                    "provider_name": "X",
                    "raw": "tools.3.parameters: schema too complex (max depth 5)",
                },
            }
        },
    ),
    Report(
        OURS,
        lambda b: any(not re.match("[A-Za-z]", t["function"]["name"]) for t in b["tools"]),
        "Invalid request: function name is invalid, must start with a letter and can contain letters, numbers, underscores, and dashes",
        capture="odd_names",
    ),
    Report(
        OURS,
        lambda b: any(len(t["function"].get("description", "")) > 1024 for t in b["tools"]),
        "Invalid 'tools[0].function.description': string too long. Expected a string with maximum length 1024, but got a string with length 2345 instead.",
        capture="long_descriptions",
    ),
    Report(
        OURS,
        lambda b: any(len(t["function"].get("description", "")) > 1024 for t in b["tools"]),
        "'Runs a command' is too long - 'tools.0.function.description'",
        capture="long_descriptions",
    ),
    Report(
        gh("zed-industries/zed#42393"),
        lambda b: len(b["tools"]) > 16,
        "Invalid 'tools': array too long. Expected an array with maximum length 16, but got an array with length 21 instead.",
        capture="tool_search_off",
    ),
    Report(
        OURS,
        lambda b: len(b["tools"]) > 16,
        "'tools' : maximum number of items is 16",
        capture="tool_search_off",
    ),
    Report(
        OURS,
        lambda b: len(b["tools"]) > 16,
        "Too many tools: 21 were provided, but the maximum allowed is 16",
        capture="tool_search_off",
    ),
    Report(
        OURS,
        lambda b: len(b["tools"]) > 16,
        "tools 数量超过限制，最多支持 16 个",
        capture="tool_search_off",
    ),
    Report(
        gh("lmstudio-ai/lmstudio-bug-tracker#670"),
        lambda b: isinstance(b.get("tool_choice"), dict),
        "Invalid tool_choice type: 'object'. Supported string values: none, auto, required",
        fields=NAMED,
        envelope=lambda t: {"error": t},
    ),
    Report(OURS, is_not_in("tool_choice", "auto"), "tool_choice 目前仅支持 auto", fields=FORCED),
    Report(
        OURS,
        is_not_in("tool_choice", "auto", "none"),
        "Invalid tool choice: only 'auto' and 'none' are allowed",
        fields=NAMED,
    ),
    Report(
        gh("cloudwego/eino#994"),
        lambda b: b.get("tool_choice") not in (None, "auto") and "reasoning_effort" in b,
        "<400> InternalError.Algo.InvalidParameter: The tool_choice parameter does not support being set to required or object in thinking mode",
        fields=FORCED,
    ),
    Report(
        gh("mastra-ai/mastra#7507"),
        lambda b: b.get("tool_choice") not in (None, "auto") and "reasoning_effort" in b,
        "Thinking may not be enabled when tool_choice forces tool use.",
        fields=NAMED,
    ),
    Report(
        OURS,
        is_in("tool_choice", "required"),
        'tool_choice = "required" is not supported!',
        fields=FORCED,
        envelope=message,
    ),
    Report(
        OURS,
        is_in("tool_choice", "required"),
        "Forced tool use is not supported by this model",
        fields=FORCED,
    ),
    Report(
        gh("BerriAI/litellm#24158"),
        lambda b: not b.get("tools") and any(m.get("tool_calls") for m in b["messages"]),
        "litellm.UnsupportedParamsError: Bedrock doesn't support tool calling without `tools=` param specified. Pass `tools=` param OR set `litellm.modify_params = True`",
        fields={"tools": []},
    ),
    Report(
        gh("langgenius/dify#16421"),
        lambda b: not b.get("tools") and any(m.get("tool_calls") for m in b["messages"]),
        "The toolConfig field must be defined when using toolUse and toolResult content blocks.",
        fields={"tools": []},
    ),
)
