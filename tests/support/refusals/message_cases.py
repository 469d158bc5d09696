"""Refusals about messages and their parts (`proxyd.providers.message_rules`)."""

from __future__ import annotations

from proxyd.providers.refusals import QuirkChange
from tests.support.refusals import CACHED, IMAGE, PDF, Case, openai

CASES: list[Case] = [
    (
        "earendil-works/pi/issues/1048",
        {"messages": [{"role": "developer", "content": "s"}]},
        openai(
            "messages[0].role: unknown variant `developer`, expected one of `system`, `user`, `assistant`, `tool`"
        ),
        QuirkChange("system_role", "system"),
    ),
    (
        "peonist-ai/halogen-server/issues/3",
        {"messages": [{"role": "developer", "content": "s"}]},
        openai("chat template rejected the request: Unexpected message role."),
        QuirkChange("system_role", "system"),
    ),
    (
        "BenedictKing/ccx/issues/161",
        {"messages": [{"role": "developer", "content": "s"}]},
        openai(
            "developer is not one of ['system', 'assistant', 'user', 'tool', 'function'] - 'messages.['0].role'"
        ),
        QuirkChange("system_role", "system"),
    ),
    (
        "earendil-works/pi/issues/6238",
        {"messages": [{"role": "developer", "content": "s"}]},
        {
            "detail": [
                {
                    "type": "enum",
                    "loc": ["body", "messages", 0, "role"],
                    "msg": "Input should be 'system', 'user', 'assistant', 'function' or 'tool'",
                    "input": "developer",
                }
            ]
        },
        QuirkChange("system_role", "system"),
    ),
    (
        "QuantumNous/new-api/issues/5330 (the role)",
        {},
        openai(
            "Unsupported value: 'messages[0].role' does not support 'system' with this model.",
            "messages[0].role",
            "unsupported_value",
        ),
        QuirkChange("system_role", "developer"),
    ),
    (
        "Qwen templates on vLLM",
        {"messages": [{"role": "user", "content": "u"}, {"role": "system", "content": "s"}]},
        openai("System message must be at the beginning."),
        QuirkChange("leading_system_only", True),
    ),
    (
        "Mistral and Gemma templates on vLLM",
        {},
        openai(
            "After the optional system message, conversation roles must alternate user/assistant/user/assistant/..."
        ),
        QuirkChange("strict_alternation", True),
    ),
    (
        "docs/spec/vendors.md#mistral",
        {"messages": [{"role": "tool", "content": "r"}, {"role": "user", "content": "u"}]},
        {
            "object": "error",
            "message": "Unexpected role 'user' after role 'tool'",
            "type": "invalid_request_error",
        },
        QuirkChange("text_after_tool_joins_it", True),
    ),
    (
        "dkhokhlov, ollama/ollama/issues/17301",
        {"messages": [IMAGE]},
        openai("this model does not support image input (ref: b8bd630e)"),
        QuirkChange("vision", False),
    ),
    (
        "zou-group/textgrad/issues/210",
        {"messages": [IMAGE]},
        openai(
            "Invalid content type. image_url is only supported by certain models.",
            "messages.[1].content.[0].type",
        ),
        QuirkChange("vision", False),
    ),
    (
        "FlashML-org/FreeToken/issues/272",
        {"messages": [IMAGE]},
        openai("Unsupported content part type for text-only server: image_url"),
        QuirkChange("vision", False),
    ),
    (
        "studio-dots-ai/dots.ocr/issues/61",
        {"messages": [IMAGE]},
        {
            "object": "error",
            "message": "facebook/opt-125m is not a multimodal model None",
            "type": "BadRequestError",
            "code": 400,
        },
        QuirkChange("vision", False),
    ),
    (
        "DayuanJiang/next-ai-draw-io/pull/55",
        {"messages": [IMAGE]},
        "Failed to deserialize the JSON body into the target type: messages[0]: unknown variant "
        "`image_url`, expected `text` "
        "at line 1 column 1052",
        QuirkChange("vision", False),
    ),
    (
        "vLLM, --limit-mm-per-prompt",
        {"messages": [IMAGE]},
        openai("At most 0 image(s) may be provided in one prompt."),
        QuirkChange("vision", False),
    ),
    (
        "docs/spec/messages-to-chat.md#messages",
        {"messages": [PDF]},
        openai(
            "Invalid value: 'file'. Supported values are: 'text', 'image_url'.", "messages[0].content[0].type"
        ),
        QuirkChange("files", False),
    ),
    (
        "docs/spec/messages-to-chat.md#top-level",
        {"messages": [CACHED]},
        openai("messages.0.content.0.cache_control: Extra inputs are not permitted"),
        QuirkChange("cache_control", False),
    ),
    (
        "minimax: content type",
        {"messages": [IMAGE]},
        openai("invalid params, content type is not supported (2013)"),
        QuirkChange("vision", False),
    ),
    (
        "mistral: system later",
        {"messages": [{"role": "user", "content": "u"}, {"role": "system", "content": "s"}]},
        openai("Unexpected role 'system' after role 'user'"),
        QuirkChange("leading_system_only", True),
    ),
]
