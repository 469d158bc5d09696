"""What refusals teach. Wordings are those of public reports, named per case."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from proxyd import jsonio
from proxyd.codecs.translation.dialect import Dialect
from proxyd.providers.error_rules import change_for_error, output_limit_for
from proxyd.providers.refusals import QuirkChange, models_yaml_line
from proxyd.providers.registry import PROFILES, dialect_for

GITHUB = "https://github.com/"
TOOLS = [{"type": "function", "function": {"name": "Read", "parameters": {"type": "object"}}}]
SENT: dict[str, Any] = {
    "model": "m",
    "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}],
    "max_tokens": 32000,
    "stream": True,
    "stream_options": {"include_usage": True},
    "tools": TOOLS,
}
IMAGE = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}]}
PDF = {"role": "user", "content": [{"type": "file", "file": {"filename": "a.pdf", "file_data": "data:,"}}]}
CACHED = {"role": "user", "content": [{"type": "text", "text": "u", "cache_control": {"type": "ephemeral"}}]}
SCHEMA = {"type": "json_schema", "json_schema": {"name": "output", "schema": {}}}
NAMED = {"type": "function", "function": {"name": "Read"}}
CALL = {"id": "c", "type": "function", "function": {"name": "Read", "arguments": "{}"}}


def openai(message: str, param: str | None = None, code: str | None = None) -> dict[str, Any]:
    return {"error": {"message": message, "type": "invalid_request_error", "param": param, "code": code}}


def unsupported(name: str) -> dict[str, Any]:
    return openai(
        f"Unsupported parameter: '{name}' is not supported with this model.", name, "unsupported_parameter"
    )


#: source, what was sent besides SENT, the upstream's body, the change
CASES: list[tuple[str, dict[str, Any], Any, QuirkChange]] = [
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
    (
        "vllm-project/vllm/issues/38560",
        {"chat_template_kwargs": {"enable_thinking": True}},
        openai("chat_template is not supported for Mistral tokenizers."),
        QuirkChange("thinking_path", None),
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


def body_of(response: Any) -> bytes:
    return response.encode() if isinstance(response, str) else jsonio.dumps(response)


def request_of(changes: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in {**SENT, **changes}.items() if value is not None}


IDS = [f"{case[3].quirk}-{number}" for number, case in enumerate(CASES)]


@pytest.mark.parametrize(("source", "changes", "response", "change"), CASES, ids=IDS)
def test_change(source: str, changes: dict[str, Any], response: Any, change: QuirkChange) -> None:
    assert change_for_error(400, body_of(response), request_of(changes)) == change, source


@pytest.mark.parametrize(("source", "changes", "response", "change"), CASES, ids=IDS)
def test_changes_are_quirks(source: str, changes: dict[str, Any], response: Any, change: QuirkChange) -> None:
    assert set(change.quirks) <= {field.name for field in fields(Dialect)}
    changed = dialect_for(PROFILES["generic"], "m", change.quirks)
    for name, wanted in change.quirks.items():
        value = getattr(changed, name)
        assert (list(value) if isinstance(wanted, list) else value) == wanted


@pytest.mark.parametrize(("source", "changes", "response", "change"), CASES, ids=IDS)
def test_the_line_for_models_yaml_says_the_same(
    source: str, changes: dict[str, Any], response: Any, change: QuirkChange
) -> None:
    line = models_yaml_line(change)
    assert "\n" not in line
    assert json.loads(json.dumps(YAML(typ="safe").load(line))) == {"quirks": change.quirks}


@pytest.mark.parametrize(("source", "changes", "response", "change"), CASES, ids=IDS)
def test_a_request_without_the_refused_part_gets_no_change(
    source: str, changes: dict[str, Any], response: Any, change: QuirkChange
) -> None:
    """Without the thing it names, the same refusal gives no change; else the retries would not end."""
    bare = {"model": "m", "messages": [{"role": "user", "content": "u"}]}
    # Some refusals are about the order of messages or the ids in them, which a bare request cannot show, or demand a
    # value that was not sent.
    expected = change if change.quirk in ("strict_alternation", "tool_id_style", "body") else None
    if change.quirk == "thinking_on":  # a model that thinks by default, and is told not to
        expected = QuirkChange("body", {"enable_thinking": False})
    assert change_for_error(400, body_of(response), bare) == expected


@pytest.mark.parametrize("status", [200, 401, 403, 429, 503, 529])
def test_only_refusals_give_a_change(status: int) -> None:
    assert change_for_error(status, body_of(unsupported("stream_options")), SENT) is None


def test_openrouter_without_a_provider() -> None:
    image = openai("No endpoints found that support image input")
    assert change_for_error(404, body_of(image), {**SENT, "messages": [IMAGE]}) == QuirkChange(
        "vision", False
    )
    choice = openai("No endpoints found that support the provided 'tool_choice' value.")
    assert change_for_error(404, body_of(choice), {**SENT, "tool_choice": "required"}) == QuirkChange(
        "required_word", "auto"
    )
    unknown = openai(
        "No endpoints found that can handle the requested parameters: stream_options not supported"
    )
    assert change_for_error(404, body_of(unknown), SENT) == QuirkChange("stream_options", False)


@pytest.mark.parametrize(
    ("status", "is_read"),
    [(500, True), (501, True), (502, True), (503, True), (401, False), (403, False), (429, False)],
)
def test_refusals_that_a_gateway_repeats(status: int, is_read: bool) -> None:
    """As LiteLLM does: the status is the gateway's, the text is that of the upstream behind it."""
    words = "litellm.ServiceUnavailableError: OpenAIException BadRequestError: Unknown parameter: 'stream_options'"
    found = change_for_error(status, body_of(openai(words)), SENT)
    assert found == (QuirkChange("stream_options", False) if is_read else None)


QUOTED = "please explain why stream_options is an unsupported parameter of the server"


@pytest.mark.parametrize(
    ("words", "prompt", "is_read"),
    [
        (f"Cannot parse: {QUOTED}", QUOTED, False),
        (f"Cannot parse: {QUOTED}", "something else", True),
        (f"Unknown parameter: stream_options. In: {QUOTED}", QUOTED, True),
        (QUOTED, f"I see this error:\n{QUOTED}\nWhat is it?", True),  # the user asks about an earlier refusal
    ],
)
def test_quotations_of_the_prompt_are_not_read(words: str, prompt: str, is_read: bool) -> None:
    for content in (prompt, [{"type": "text", "text": prompt}]):
        sent = {**SENT, "messages": [{"role": "user", "content": content}]}
        assert (change_for_error(400, body_of(openai(words)), sent) is not None) is is_read


def test_llama_cpp_without_image_support() -> None:
    response = openai(
        "image input is not supported - hint: if this is unexpected, you may need to provide the mmproj"
    )
    assert change_for_error(500, body_of(response), {**SENT, "messages": [IMAGE]}) == QuirkChange(
        "vision", False
    )


@pytest.mark.parametrize(
    "response",
    [
        openai("Invalid API key"),
        openai(
            "max_tokens is too large: 32000. This model supports at most 16384 completion tokens, "
            "whereas you provided 32000.",
            "max_tokens",
        ),
        openai(
            "'max_tokens' is too large: 64000. This model's maximum context length is 64001 tokens and "
            "your request has 24235 input tokens"
        ),
        openai("The stream_options of today are fine"),
        openai("Unknown parameter: 'seed'", "seed"),
        openai("Invalid value for tool_choice: 'auto'", "messages"),
        openai(""),
        "",
        "<html><title>400 stream_options is unknown</title>" * 0,
    ],
)
def test_other_causes_give_no_change(response: Any) -> None:
    sent = {**SENT, "tool_choice": "auto", "service_tier": "auto", "prompt_cache_key": "k"}
    assert change_for_error(400, body_of(response), sent) is None


@pytest.mark.parametrize(
    ("sent", "limit"),
    [
        ({"max_tokens": 32000}, 16384),
        ({"max_completion_tokens": 32000}, 16384),
        ({"max_tokens": 100}, None),
        ({}, None),
    ],
)
def test_output_limit(sent: dict[str, Any], limit: int | None) -> None:
    body = body_of(
        openai("max_tokens is too large: 32000. This model supports at most 16384 completion tokens")
    )
    assert output_limit_for(400, body, sent) == limit
    assert output_limit_for(429, body, sent) is None


def test_context_overflow_is_no_output_limit() -> None:
    text = "'max_tokens' is too large: 64000. This model's maximum context length is 64001 tokens and "
    "your request has 24235 input tokens"
    assert output_limit_for(400, body_of(openai(text)), {"max_tokens": 64000}) is None


REQUESTS = st.dictionaries(
    st.sampled_from(
        [
            "messages",
            "tools",
            "tool_choice",
            "stop",
            "reasoning",
            "response_format",
            "max_tokens",
            "temperature",
        ]
    ),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=8),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["role", "content", "type", "effort"]) | st.text(max_size=3),
                inner,
                max_size=3,
            )
        ),
        max_leaves=8,
    ),
)
RESPONSES = st.sampled_from([body_of(case[2]) for case in CASES]) | st.binary(max_size=200)


@given(st.integers(100, 999), RESPONSES, REQUESTS)
def test_arbitrary_refusals_never_raise(status: int, body: bytes, sent: dict[str, Any]) -> None:
    change = change_for_error(status, body, sent)
    if change is not None:
        assert change.quirk in {field.name for field in fields(Dialect)}
        assert models_yaml_line(change).startswith(f"quirks: {{{change.quirk}: ")
    output_limit_for(status, body, sent)


@pytest.mark.parametrize("status", [400, 500])
def test_templates_of_llama_cpp_refuse_with_500(status: int) -> None:
    text = "While executing CallExpression: Jinja Exception: System message must be at the beginning."
    messages = [{"role": "user", "content": "u"}, {"role": "system", "content": "s"}]
    found = change_for_error(status, body_of(openai(text)), {**SENT, "messages": messages})
    assert found == QuirkChange("leading_system_only", True)


def test_a_value_that_the_prompt_names_is_not_sent() -> None:
    prompt = "set reasoning_effort to 'none'"
    sent = {**SENT, "messages": [{"role": "user", "content": prompt}]}
    assert change_for_error(400, body_of(openai(f"invalid messages: {prompt}")), sent) is None


def test_a_limit_on_tools_drops_none_that_was_called() -> None:
    refusal = body_of(
        openai("Invalid 'tools': array too long. Expected an array with at most 1 items", "tools")
    )
    tools = [{"type": "function", "function": {"name": name, "parameters": {}}} for name in ("A", "Read")]
    assert change_for_error(400, refusal, {**SENT, "tools": tools}) == QuirkChange("max_tools", 1)
    called = [{"role": "assistant", "tool_calls": [CALL]}]
    assert change_for_error(400, refusal, {**SENT, "tools": tools, "messages": called}) is None


def test_a_model_that_thinks_unasked_takes_no_forced_tool() -> None:
    refusal = body_of(openai("Thinking mode does not support this tool_choice", "tool_choice"))
    sent = {**SENT, "tool_choice": NAMED}
    first = change_for_error(400, refusal, sent)
    assert first == QuirkChange("forced_choice_while_thinking", False)
    assert change_for_error(400, refusal, sent, first.quirks) == QuirkChange(
        "named_tool_choice", False, (QuirkChange("required_word", "auto"),)
    )
