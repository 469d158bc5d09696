# ruff: noqa: E501 - the words of servers are not wrapped
"""Refusals in the words of many servers, beside those of the profiles' simulators.

Each row is a vendor of its own that refuses one thing. Its request goes through ``generic``, and must be taken within
four tries, with all tools and texts. Words are those of the source, perhaps shortened; where there is none, they are
our own, in the manner of such servers.
"""

from __future__ import annotations

import copy
import itertools
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from proxyd.codecs.anthropic.thinking_signature import encode_signature
from tests.captures import Capture

__all__ = ["OURS", "REPORTS", "Report", "request_of"]

Body = Mapping[str, Any]
GITHUB = "https://github.com/"
#: Source of words that were read nowhere.
OURS = "our own words"


@dataclass(frozen=True)
class Report:
    """One refusal.

    Args:
        source: the page where it was read, or `OURS`.
        refuses: whether a body is refused.
        words: the vendor's text.
        capture: the request of Claude Code that is sent, see `request_of`, and `fields` over it.
        envelope: the text -> the JSON of the error.
        quirks: of the profile, where only another one sends what is refused.
    """

    source: str
    refuses: Callable[[Body], bool]
    words: str
    capture: str = "tool_turn"
    fields: Mapping[str, Any] = field(default_factory=dict)
    status: int = 400
    envelope: Callable[[str], Any] = lambda text: {
        "error": {"message": text, "type": "invalid_request_error"}
    }
    quirks: Mapping[str, Any] = field(default_factory=dict)
    model: str = "some-model"
    most_tries: int = 4

    @property
    def name(self) -> str:
        return f"{self.source.removeprefix(GITHUB)}: {self.words[:60]}"


# -- requests


def request_of(report: Report, found: Mapping[str, Capture]) -> dict[str, Any]:
    """Return the client's request that is refused.

    Args:
        found: the captures of one version.
    """
    make = _MADE.get(report.capture)
    body = found[report.capture].body if make is None else make(found, report.model)
    fields = dict(report.fields)
    if "output_config" in fields:
        fields["output_config"] = {**body.get("output_config", {}), **fields["output_config"]}
    return {**body, **fields}


def _with_calls_alone(found: Mapping[str, Capture], model: str) -> dict[str, Any]:
    body = copy.deepcopy(found["tool_turn"].body)
    for each in body["messages"]:
        if each["role"] == "assistant":
            each["content"] = [block for block in each["content"] if block["type"] == "tool_use"]
    return body


def _reasoned(field: str, **signed: Any) -> Callable[[Mapping[str, Capture], str], dict[str, Any]]:
    def make(found: Mapping[str, Capture], model: str) -> dict[str, Any]:
        body = _with_calls_alone(found, model)
        signature = encode_signature(model, field, None, None, fields=signed)
        for each in body["messages"]:
            if each["role"] == "assistant":
                each["content"].insert(0, {"type": "thinking", "thinking": "Hm.", "signature": signature})
        return body

    return make


def _with_tool(**fields: Any) -> Callable[[Mapping[str, Capture], str], dict[str, Any]]:
    def make(found: Mapping[str, Capture], model: str) -> dict[str, Any]:
        body = found["first_turn"].body
        return {
            **body,
            "tools": [*body["tools"], {"name": "T", "input_schema": {"type": "object"}, **fields}],
        }

    return make


def _two_users(found: Mapping[str, Capture], model: str) -> dict[str, Any]:
    messages = [{"role": "user", "content": text} for text in ("One.", "Two.")]
    return {**found["first_turn"].body, "messages": messages}


#: Requests that are made of captures.
_MADE: Mapping[str, Callable[[Mapping[str, Capture], str], dict[str, Any]]] = {
    "bare_call": _with_calls_alone,
    "reasoned": _reasoned("reasoning_content"),
    "reasoned_openrouter": _reasoned("reasoning"),
    "signed": _reasoned("reasoning_text", reasoning_opaque="abc"),
    "odd_names": _with_tool(name="1password__get"),
    "long_descriptions": _with_tool(description="word " * 500),
    "two_users": _two_users,
}


# -- envelopes


def xai(text: str) -> Any:
    return {"code": "Client specified an invalid argument", "error": text}


def detail(text: str) -> Any:
    return {"detail": text}


def message(text: str) -> Any:
    return {"object": "error", "message": text, "type": "BadRequestError", "param": None, "code": 400}


def code(text: str) -> Any:
    return {"code": 20015, "message": text, "data": None}


def minimax(text: str) -> Any:
    return {"type": "error", "error": {"type": "bad_request_error", "message": text, "http_code": "400"}}


def google(text: str) -> Any:
    return [{"error": {"code": 400, "message": text, "status": "INVALID_ARGUMENT"}}]


def forbidden_in(*place: str) -> Callable[[str], Any]:
    return lambda text: {"detail": [{"type": "extra_forbidden", "loc": ["body", *place], "msg": text}]}


# -- what is refused


def has(*paths: str) -> Callable[[Body], bool]:
    def refuses(body: Body) -> bool:
        for path in paths:
            value: Any = body
            for name in path.split("."):
                value = value.get(name) if isinstance(value, Mapping) else None
            if value is not None:
                return True
        return False

    return refuses


def is_in(path: str, *values: Any) -> Callable[[Body], bool]:
    return lambda body: body.get(path) in values


def is_not_in(path: str, *values: Any) -> Callable[[Body], bool]:
    return lambda body: path in body and body[path] not in values


def words_in_schemas(*words: str) -> Callable[[Body], bool]:
    def refuses(body: Body) -> bool:
        schemas = json.dumps([tool["function"]["parameters"] for tool in body.get("tools") or ()])
        return any(f'"{word}"' in schemas for word in words)

    return refuses


def with_tools(refuses: Callable[[Body], bool]) -> Callable[[Body], bool]:
    return lambda body: bool(body.get("tools")) and refuses(body)


def any_message(refuses: Callable[[Mapping[str, Any]], bool]) -> Callable[[Body], bool]:
    return lambda body: any(map(refuses, body["messages"]))


def neighbours(refuses: Callable[[str, str], bool]) -> Callable[[Body], bool]:
    return lambda body: any(
        refuses(first["role"], second["role"]) for first, second in itertools.pairwise(body["messages"])
    )


def parts(body: Body) -> Iterator[Mapping[str, Any]]:
    for each in body["messages"]:
        content = each.get("content")
        yield from content if isinstance(content, list) else ()


def part_of(*kinds: str) -> Callable[[Body], bool]:
    return lambda body: any(part.get("type") in kinds for part in parts(body))


def limit(path: str, most: int) -> Callable[[Body], bool]:
    return lambda body: any(body.get(name, 0) > most for name in (path, "max_completion_tokens"))


def late_system(body: Body) -> bool:
    return any(m["role"] == "system" for m in body["messages"][1:])


NULL_CONTENT = any_message(lambda m: m.get("content") is None)
EMPTY_CONTENT = any_message(lambda m: m.get("content") in (None, "", []))
TWO_CALLS = any_message(lambda m: len(m.get("tool_calls") or ()) > 1)
NAMELESS = any_message(lambda m: m["role"] == "tool" and not m.get("name"))
IMAGE = part_of("image_url")
FORCED = {"tool_choice": {"type": "any"}}
NAMED = {"tool_choice": {"type": "tool", "name": "Bash"}}
SAMPLED = {"temperature": 0.5, "top_p": 0.9, "top_k": 40, "stop_sequences": ["a", "b", "c", "d", "e"]}
PARALLEL_OFF = {"tool_choice": {"type": "auto", "disable_parallel_tool_use": True}}
FORMAT = {
    "output_config": {"format": {"type": "json_schema", "schema": {"type": "object", "properties": {}}}}
}


def gh(place: str) -> str:
    return GITHUB + re.sub(r"#(\d+)", r"/issues/\1", place)


R = Report
#: Parameters that are not known or not supported, in the words of many servers.
_PARAMETERS = (
    R(
        gh("lobehub/lobehub#8381"),
        has("reasoning_effort"),
        "Argument not supported on this model: reasoningEffort",
        envelope=xai,
    ),
    R(
        gh("neavo/LinguaGacha#771"),
        has("reasoning_effort"),
        "Model grok-4.20-0309-non-reasoning does not support parameter reasoningEffort.",
        envelope=xai,
    ),
    R(
        gh("BerriAI/litellm#16265"),
        has("stop"),
        "Model grok-code does not support parameter stop.",
        envelope=xai,
        fields=SAMPLED,
    ),
    R(
        gh("fanenr/chatbot#21"),
        has("stream_options"),
        "property 'stream_options' is unsupported, did you mean 'stream'?",
    ),
    R(
        OURS,
        has("parallel_tool_calls"),
        "property 'parallel_tool_calls' is unsupported",
        fields=PARALLEL_OFF,
    ),
    R(
        OURS,
        has("parallel_tool_calls"),
        "litellm.UnsupportedParamsError: somevendor does not support parameters: ['parallel_tool_calls'], for model=x. To drop these, set `litellm.drop_params=True` or for proxy:\n\n`litellm_settings:\n drop_params: true`\n",
        fields=PARALLEL_OFF,
        envelope=lambda t: {"error": {"message": t, "type": "None", "param": None, "code": "400"}},
    ),
    R(
        OURS,
        has("reasoning_effort", "parallel_tool_calls"),
        "litellm.UnsupportedParamsError: groq does not support parameters: ['reasoning_effort', 'parallel_tool_calls'], for model=x",
        fields=PARALLEL_OFF,
        status=500,
    ),
    R(
        OURS,
        has("reasoning_effort"),
        "litellm.UnsupportedParamsError: openai does not support parameters: {'reasoning_effort': 'high'}, for model=x",
    ),
    R(
        OURS,
        has("reasoning_effort"),
        "AsyncCompletions.create() got an unexpected keyword argument 'reasoning_effort'",
        status=500,
        envelope=detail,
    ),
    R(
        gh("openai/openai-python#2296"),
        has("stream_options", "parallel_tool_calls"),
        "Unrecognized request arguments supplied: parallel_tool_calls, stream_options",
        fields=PARALLEL_OFF,
    ),
    R(
        OURS,
        has("stream_options"),
        'json: unknown field "stream_options"',
        envelope=lambda t: {"error": t},
    ),
    R(
        OURS,
        has("parallel_tool_calls"),
        "Failed to deserialize the JSON body into the target type: unknown field `parallel_tool_calls`, expected one of `model`, `messages`, `max_tokens`, `temperature`, `tools`, `tool_choice`, `stream`, `stream_options`, `stop` at line 1 column 81",
        fields=PARALLEL_OFF,
        status=422,
        envelope=detail,
    ),
    R(
        OURS,
        has("parallel_tool_calls"),
        "Validation: Unsupported parameter(s): `parallel_tool_calls`",
        fields=PARALLEL_OFF,
        envelope=detail,
    ),
    R(OURS, has("stream_options"), "不支持的参数: stream_options"),
    R(
        OURS,
        has("top_p"),
        "参数 top_p 不合法",
        fields={"temperature": 0.5, "top_p": 0.9},
    ),
    R(
        OURS,
        has("parallel_tool_calls"),
        "parallel_tool_calls 参数无效",
        fields=PARALLEL_OFF,
        envelope=code,
    ),
    R(
        gh("langchain-ai/langchain#29704"),
        has("parallel_tool_calls"),
        "This model does not support parallel tool calls.",
        fields=PARALLEL_OFF,
    ),
    R(
        gh("avante-corp/avante.nvim#2347"),
        has("stream_options"),
        "Extra inputs are not permitted",
        status=422,
        envelope=forbidden_in("stream_options"),
    ),
    R(
        OURS,
        has("stop"),
        "Input validation error: `stop` supports up to 4 stop sequences. Given: 5",
        fields=SAMPLED,
        quirks={"stop_limit": None},
        status=422,
    ),
    R(
        OURS,
        lambda b: len(b.get("stop") or ()) > 1,
        "stop: at most 1 element is allowed",
        fields=SAMPLED,
    ),
    R(
        OURS,
        lambda b: len(b.get("stop") or ()) > 1,
        "stop 参数最多支持1个停止词",
        fields=SAMPLED,
    ),
    R(
        OURS,
        is_not_in("temperature", 1),
        "invalid temperature: only 1 is allowed for this model",
        fields=SAMPLED,
    ),
    R(
        OURS,
        is_not_in("temperature", 1),
        "Unsupported value: 'temperature' does not support 0.5 with this model. Only the default (1) value is supported.",
        fields=SAMPLED,
    ),
    R(
        OURS,
        is_not_in("temperature", 1),
        "`temperature` may only be set to 1 when thinking is enabled. Please consult our documentation",
        fields=SAMPLED,
    ),
    R(
        OURS,
        has("top_p"),
        "`top_p` must be greater than or equal to 0.95 or unset when thinking is enabled.",
        fields=SAMPLED,
    ),
    R(
        OURS,
        lambda b: "temperature" in b and "top_p" in b,
        "`temperature` and `top_p` cannot both be specified for this model. Please use only one.",
        fields=SAMPLED,
    ),
    R(
        OURS,
        has("top_k"),
        "Unrecognized request argument supplied: top_k",
        fields=SAMPLED,
        quirks={"sampling": ["temperature", "top_p", "top_k"]},
    ),
    R(
        OURS,
        has("top_k"),
        "top_k is not currently supported by this API. Please contact support",
        fields=SAMPLED,
        quirks={"sampling": ["temperature", "top_p", "top_k"]},
    ),
)
#: Thinking, efforts and their values.
_THINKING = (
    R(
        gh("Gitlawb/openclaude#1371"),
        has("reasoning_effort"),
        '"qwen2.5-coder:7b" does not support thinking',
        envelope=lambda t: {"error": {"message": t, "type": "api_error"}},
    ),
    R(
        OURS,
        is_not_in("reasoning_effort", "low", "medium", "high"),
        'invalid think value: "xhigh" (must be "high", "medium", "low", true, or false)',
        capture="effort_xhigh",
        quirks={"efforts": ["low", "medium", "high", "xhigh"]},
    ),
    R(
        OURS,
        has("reasoning_effort"),
        'think value "high" is not supported for this model',
    ),
    R(
        OURS,
        is_not_in("reasoning_effort", "low", "medium"),
        "unknown variant `high`, expected one of `low`, `medium` at line 1 column 40",
        status=422,
        envelope=detail,
    ),
    R(
        OURS,
        is_not_in("reasoning_effort", "low", "high"),
        "Thinking level MEDIUM is not supported for this model. Please retry with other thinking level.",
        capture="effort_medium",
        envelope=google,
    ),
    R(
        OURS,
        has("reasoning_effort"),
        "Unable to submit request because thinking is not supported by this model.",
        envelope=google,
    ),
    R(
        OURS,
        has("reasoning_effort"),
        "Thinking is not enabled for models/gemini-2.0-flash",
        envelope=google,
    ),
    R(
        OURS,
        is_not_in("reasoning_effort", "low", "high"),
        "1 validation error for ChatCompletionRequest: reasoning_effort: Input should be 'low' or 'high'",
        capture="effort_medium",
        envelope=message,
    ),
    R(
        OURS,
        is_not_in("reasoning_effort", "low", "high"),
        "Effort 'medium' is not available for this model. Available: low, high",
        capture="effort_medium",
    ),
    R(
        gh("OpenCSGs/csglite#194"),
        is_not_in("reasoning_effort", "low", "high"),
        "reasoning_effort 参数错误，可选值为 low、high",
        capture="effort_medium",
    ),
    R(
        OURS,
        is_in("enable_thinking", True),
        "parameter.enable_thinking must be set to false for non-streaming calls",
        quirks={"thinking_path": "enable_thinking", "thinking_on": True, "thinking_off": False},
    ),
    R(
        "https://help.aliyun.com/zh/model-studio/error-code",
        is_in("enable_thinking", False),
        "The value of the enable_thinking parameter is restricted to True.",
        capture="thinking_off",
        quirks={"thinking_path": "enable_thinking", "thinking_on": True, "thinking_off": False},
    ),
    R(
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
    R(
        OURS,
        has("reasoning_effort"),
        "`max_tokens` must be greater than `thinking.budget_tokens`. Please consult our documentation",
    ),
    R(
        OURS,
        has("reasoning_effort"),
        "litellm.BadRequestError: AnthropicException - messages.1.content.0.type: Expected `thinking` or `redacted_thinking`, but found `tool_use`. When `thinking` is enabled, a final `assistant` message must start with a thinking block",
    ),
    R(
        gh("earendil-works/pi#1502"),
        any_message(lambda m: "reasoning_opaque" in m),
        "messages.1.content.0: Invalid `signature` in `thinking` block",
        capture="signed",
    ),
    R(
        OURS,
        any_message(lambda m: "reasoning_opaque" in m),
        "Corrupted thought signature.",
        capture="signed",
        envelope=google,
    ),
    R(
        gh("janhq/jan#8136"),
        any_message(lambda m: "reasoning_content" in m),
        "'messages.1' : for 'role:assistant' the following must be satisfied[('messages.1' : property 'reasoning_content' is unsupported)]",
        capture="reasoned",
    ),
    R(
        gh("karthink/gptel#774"),
        any_message(lambda m: "reasoning" in m),
        "'messages.2' : for 'role:assistant' the following must be satisfied[('messages.2' : property 'reasoning' is unsupported, did you mean 'role'?)]",
        capture="reasoned_openrouter",
    ),
    R(
        gh("charmbracelet/crush#1590"),
        any_message(lambda m: "reasoning_content" in m),
        "Extra inputs are not permitted",
        status=422,
        envelope=forbidden_in("messages", "2", "assistant", "reasoning_content"),
        capture="reasoned",
    ),
    R(
        OURS,
        any_message(
            lambda m: (
                m["role"] == "assistant" and m.get("tool_calls") is not None and "reasoning_content" not in m
            )
        ),
        "Missing `reasoning_content` field in the assistant message at message index 2. For more information, please refer to the docs",
    ),
    R(
        OURS,
        any_message(
            lambda m: (
                m["role"] == "assistant" and m.get("tool_calls") is not None and "reasoning_content" not in m
            )
        ),
        "思考模式下 assistant 消息必须携带 reasoning_content 字段",
    ),
)
#: More of the same, from reports.
_REPORTED = (
    R(
        gh("jenslys/opencode-gemini-auth#14"),
        is_not_in("reasoning_effort", "low", "high"),
        "Unable to submit request because thinking_level MEDIUM is not supported by this model. Learn more: https://cloud.google.com/vertex-ai/generative-ai/docs/model-reference/gemini",
        capture="effort_medium",
        envelope=google,
    ),
    R(
        gh("RooCodeInc/Roo-Code#10700"),
        has("reasoning_effort"),
        "Thinking level is not supported for this model.",
        envelope=google,
    ),
    R(
        gh("anthropics/claude-code#10222"),
        lambda b: not b.get("tools") and any(m.get("tool_calls") for m in b["messages"]),
        "Error calling litellm.acompletion for non-Anthropic model: litellm.UnsupportedParamsError: Bedrock doesn't support tool calling without `tools=` param specified. Pass `tools=` param OR set `litellm.modify_params = True` // `litellm_settings::modify_params: True` to add dummy tool to the request.",
        fields={"tools": []},
        status=500,
    ),
    R(
        gh("SAIL-Research-Lab/cheetahclaws#72"),
        any_message(lambda m: m.get("content") is None),
        "invalid message content type: <nil>",
        capture="bare_call",
        envelope=lambda t: {"error": {"message": t, "type": "invalid_request_error"}},
    ),
    R(
        gh("lmstudio-ai/lmstudio-bug-tracker#261"),
        any_message(lambda m: m.get("content") is None),
        "Invalid 'content': 'content' field must be a string or an array of objects.",
        capture="bare_call",
        envelope=lambda t: {"error": t},
    ),
    R(
        gh("earendil-works/pi#1360"),
        any_message(lambda m: m["role"] == "tool" and not m.get("name")),
        "The GenerateContentRequest proto is invalid:\n  * contents[466].parts[0].function_response.name: [REQUIRED_FIELD_MISSING]",
        envelope=google,
    ),
    R(
        gh("musistudio/claude-code-router#948"),
        lambda b: b.get("enable_thinking") is True,
        "enable thinking can not be support when `stream=False`.",
        quirks={"thinking_path": "enable_thinking", "thinking_on": True, "thinking_off": False},
    ),
)
#: The schemas, names and number of tools, and their choice.
_TOOLS = (
    R(
        OURS,
        words_in_schemas("additionalProperties", "$schema", "exclusiveMinimum", "propertyNames", "const"),
        "Invalid JSON payload received. Unknown name \"exclusiveMinimum\" at 'tools[0].function_declarations[3].parameters.properties[1].value': Cannot find field.",
        envelope=google,
    ),
    R(
        OURS,
        words_in_schemas("additionalProperties", "const"),
        "* GenerateContentRequest.tools[0].function_declarations[5].parameters.properties[questions].items: missing field.",
        envelope=google,
    ),
    R(
        OURS,
        words_in_schemas("anyOf", "oneOf"),
        "Unable to submit request because `Workflow` functionDeclaration `parameters.args` schema specified other fields alongside any_of. When using any_of, it must be the only field set.",
        capture="mcp_tools",
        envelope=google,
    ),
    R(
        OURS,
        words_in_schemas("additionalProperties"),
        "Invalid value at 'tools[0].function_declarations[0].parameters.properties[0].value.type' (type.googleapis.com/google.ai.generativelanguage.v1beta.Type), \"null\"",
        envelope=google,
    ),
    R(
        OURS,
        words_in_schemas("additionalProperties", "maxItems"),
        "The specified schema produces a constraint that has too many states for serving.",
        envelope=google,
    ),
    R(
        OURS,
        words_in_schemas("anyOf", "oneOf", "allOf"),
        "tools.12.custom.input_schema: input_schema does not support oneOf, allOf, or anyOf at the top level",
        capture="mcp_tools",
    ),
    R(
        OURS,
        words_in_schemas("$ref", "$defs"),
        "tools.14.custom.input_schema: JSON schema is invalid. It must match JSON Schema draft 2020-12",
        capture="mcp_tools",
    ),
    R(
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
    R(
        OURS,
        words_in_schemas("pattern", "minItems", "maxItems", "propertyNames"),
        "The provided JSON schema contains features not supported by xgrammar.",
        fields=FORCED,
        envelope=message,
    ),
    R(
        OURS,
        words_in_schemas("pattern", "minItems", "maxItems", "maxLength"),
        "Grammar error: Invalid grammar specification: unsupported type/keyword",
        fields=FORCED,
        envelope=message,
    ),
    R(
        OURS,
        words_in_schemas("maxLength", "propertyNames"),
        "Failed to compile json schema: regex parse error",
        envelope=message,
    ),
    R(
        OURS,
        words_in_schemas("additionalProperties"),
        "JSON schema error: additionalProperties must be a boolean",
    ),
    R(
        OURS,
        words_in_schemas("propertyNames", "maxLength"),
        "<400> InternalError.Algo.InvalidParameter: The provided tool's parameters schema is invalid",
    ),
    R(OURS, words_in_schemas("maxLength"), "tools[2].function.parameters 参数非法"),
    R(
        gh("bestruirui/octopus#165"),
        words_in_schemas("maxLength"),
        "API 调用参数有误，请检查文档。",
        envelope=lambda t: {"error": {"code": "1210", "message": t}},
    ),
    R(
        gh("BigPizzaV3/CodexPlusPlus#267"),
        words_in_schemas("maxLength"),
        "invalid params, invalid chat setting (2013)",
        envelope=minimax,
    ),
    R(
        OURS,
        words_in_schemas("maxLength"),
        "No endpoints found that can handle the requested parameters. To learn more about provider routing, visit: https://openrouter.ai/docs/guides/routing/provider-selection",
        status=404,
    ),
    R(
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
    R(
        OURS,
        lambda b: any(not re.match("[A-Za-z]", t["function"]["name"]) for t in b["tools"]),
        "Invalid request: function name is invalid, must start with a letter and can contain letters, numbers, underscores, and dashes",
        capture="odd_names",
    ),
    R(
        OURS,
        lambda b: any(len(t["function"].get("description", "")) > 1024 for t in b["tools"]),
        "Invalid 'tools[0].function.description': string too long. Expected a string with maximum length 1024, but got a string with length 2345 instead.",
        capture="long_descriptions",
    ),
    R(
        OURS,
        lambda b: any(len(t["function"].get("description", "")) > 1024 for t in b["tools"]),
        "'Runs a command' is too long - 'tools.0.function.description'",
        capture="long_descriptions",
    ),
    R(
        gh("zed-industries/zed#42393"),
        lambda b: len(b["tools"]) > 16,
        "Invalid 'tools': array too long. Expected an array with maximum length 16, but got an array with length 21 instead.",
        capture="tool_search_off",
    ),
    R(
        OURS,
        lambda b: len(b["tools"]) > 16,
        "'tools' : maximum number of items is 16",
        capture="tool_search_off",
    ),
    R(
        OURS,
        lambda b: len(b["tools"]) > 16,
        "Too many tools: 21 were provided, but the maximum allowed is 16",
        capture="tool_search_off",
    ),
    R(
        OURS,
        lambda b: len(b["tools"]) > 16,
        "tools 数量超过限制，最多支持 16 个",
        capture="tool_search_off",
    ),
    R(
        gh("lmstudio-ai/lmstudio-bug-tracker#670"),
        lambda b: isinstance(b.get("tool_choice"), dict),
        "Invalid tool_choice type: 'object'. Supported string values: none, auto, required",
        fields=NAMED,
        envelope=lambda t: {"error": t},
    ),
    R(OURS, is_not_in("tool_choice", "auto"), "tool_choice 目前仅支持 auto", fields=FORCED),
    R(
        OURS,
        is_not_in("tool_choice", "auto", "none"),
        "Invalid tool choice: only 'auto' and 'none' are allowed",
        fields=NAMED,
    ),
    R(
        gh("cloudwego/eino#994"),
        lambda b: b.get("tool_choice") not in (None, "auto") and "reasoning_effort" in b,
        "<400> InternalError.Algo.InvalidParameter: The tool_choice parameter does not support being set to required or object in thinking mode",
        fields=FORCED,
    ),
    R(
        gh("mastra-ai/mastra#7507"),
        lambda b: b.get("tool_choice") not in (None, "auto") and "reasoning_effort" in b,
        "Thinking may not be enabled when tool_choice forces tool use.",
        fields=NAMED,
    ),
    R(
        OURS,
        is_in("tool_choice", "required"),
        'tool_choice = "required" is not supported!',
        fields=FORCED,
        envelope=message,
    ),
    R(
        OURS,
        is_in("tool_choice", "required"),
        "Forced tool use is not supported by this model",
        fields=FORCED,
    ),
    R(
        gh("BerriAI/litellm#24158"),
        lambda b: not b.get("tools") and any(m.get("tool_calls") for m in b["messages"]),
        "litellm.UnsupportedParamsError: Bedrock doesn't support tool calling without `tools=` param specified. Pass `tools=` param OR set `litellm.modify_params = True`",
        fields={"tools": []},
    ),
    R(
        gh("langgenius/dify#16421"),
        lambda b: not b.get("tools") and any(m.get("tool_calls") for m in b["messages"]),
        "The toolConfig field must be defined when using toolUse and toolResult content blocks.",
        fields={"tools": []},
    ),
)
#: The order and the contents of messages.
_MESSAGES = (
    R(
        gh("vllm-project/vllm#41114"),
        late_system,
        "System message must be at the beginning.",
        envelope=message,
    ),
    R(
        gh("MiniMax-AI/MiniMax-M2#51"),
        late_system,
        "invalid params, chat content has invalid message role: system (2013)",
        envelope=minimax,
    ),
    R(
        OURS,
        late_system,
        "Only the first message can have the role 'system'",
        capture="next_turn",
    ),
    R(OURS, late_system, "Multiple system messages are not supported"),
    R(OURS, late_system, "system 消息只能出现在第一条"),
    R(
        OURS,
        late_system,
        "Expected user role after system, got system at index 2",
    ),
    R(
        OURS,
        neighbours(lambda a, b: a == b == "user"),
        "After the (optional) system message(s), user or tool message(s) should alternate with assistant message(s).",
        capture="two_users",
    ),
    R(
        OURS,
        neighbours(lambda a, b: a == b == "user"),
        "Consecutive messages with the same role are not allowed",
        capture="two_users",
    ),
    R(
        OURS,
        neighbours(lambda a, b: a == b == "user"),
        "the role of message with even index in the messages must be user or function",
        capture="two_users",
        envelope=lambda t: {"error_code": 336006, "error_msg": t},
    ),
    R(
        OURS,
        any_message(lambda m: m["role"] == "system"),
        "System role not supported",
        envelope=message,
    ),
    R(
        OURS,
        any_message(lambda m: m["role"] == "system"),
        "Error: Jinja Exception: System role not supported",
        status=500,
    ),
    R(
        OURS,
        any_message(lambda m: m["role"] == "system"),
        "Unsupported value: 'messages[0].role' does not support 'system' with this model.",
        envelope=lambda t: {
            "error": {"message": t, "param": "messages[0].role", "code": "unsupported_value"}
        },
    ),
    R(
        OURS,
        any_message(lambda m: m["role"] == "developer"),
        "Failed to deserialize the JSON body into the target type: messages[0].role: unknown variant `developer`, expected one of `system`, `user`, `assistant`, `tool` at line 1 column 60",
        status=422,
        envelope=detail,
        quirks={"system_role": "developer"},
    ),
    R(
        gh("vllm-project/vllm#25108"),
        TWO_CALLS,
        "This model only supports single tool-calls at once!",
        capture="parallel_tools",
        envelope=message,
    ),
    R(
        OURS,
        TWO_CALLS,
        "Error: Jinja Exception: This model only supports single tool-calls at once!",
        capture="parallel_tools",
        status=500,
    ),
    R(
        OURS,
        NULL_CONTENT,
        "Invalid value for 'content': expected a string, got null.",
        envelope=lambda t: {"error": {"message": t, "param": "messages.[2].content"}},
        capture="bare_call",
    ),
    R(
        OURS,
        NULL_CONTENT,
        "messages.2.content: none is not an allowed value",
        envelope=message,
        capture="bare_call",
    ),
    R(
        OURS,
        NULL_CONTENT,
        "Input should be a valid string",
        status=422,
        envelope=lambda t: {
            "detail": [
                {
                    "type": "string_type",
                    "loc": ["body", "messages", 2, "assistant", "content"],
                    "msg": t,
                    "input": None,
                }
            ]
        },
        capture="bare_call",
    ),
    R(
        OURS,
        NULL_CONTENT,
        "messages[2]: missing field `content` at line 1 column 300",
        status=422,
        envelope=detail,
        capture="bare_call",
    ),
    R(OURS, NULL_CONTENT, "messages 中 content 字段不能为空", capture="bare_call"),
    R(
        OURS,
        EMPTY_CONTENT,
        "Invalid request: message at position 2 with role 'assistant' must not be empty",
        capture="bare_call",
    ),
    R(
        OURS,
        EMPTY_CONTENT,
        "invalid request: all elements in messages must have non-empty content",
        capture="bare_call",
    ),
    R(
        gh("inference-gateway/inference-gateway#181"),
        NAMELESS,
        "* GenerateContentRequest.contents[2].parts[0].function_response.name: Name cannot be empty.",
        envelope=google,
    ),
    R(OURS, NAMELESS, "messages[3].name is required for messages with role 'tool'"),
    R(
        OURS,
        IMAGE,
        "The model is not a VLM (Vision Language Model). Please use text-only prompts.",
        capture="image",
        envelope=code,
    ),
    R(
        OURS,
        IMAGE,
        "'messages.3' : for 'role:user' the following must be satisfied[('messages.3.content' : value must be a string)]",
        capture="image",
    ),
    R(
        OURS,
        IMAGE,
        "This model does not support image inputs. Please use a model with vision capabilities.",
        capture="image",
    ),
    R(OURS, IMAGE, "该模型不支持图片输入", capture="image", envelope=code),
    R(
        OURS,
        IMAGE,
        "messages[3].content[1].type: image_url is not allowed, only text",
        capture="image",
    ),
    R(OURS, IMAGE, "Multimodal inputs are not enabled for this deployment", capture="image"),
    R(
        OURS,
        IMAGE,
        "Failed to deserialize the JSON body into the target type: messages[3]: unknown variant `image_url`, expected `text` at line 1 column 99",
        capture="image",
        status=422,
        envelope=detail,
    ),
    R(
        OURS,
        IMAGE,
        "Failed to create new sequence: this model is missing data required for image input",
        capture="image",
        status=500,
    ),
    R(
        OURS,
        part_of("file"),
        "messages[3].content[0]: unsupported content type 'file'",
        capture="document",
        quirks={"files": True},
    ),
    R(
        OURS,
        has("response_format"),
        "This response_format type is unavailable now",
        fields=FORMAT,
    ),
    R(
        OURS,
        lambda b: bool(b.get("tools")) and "response_format" in b,
        "Function calling with a response mime type: 'application/json' is unsupported",
        fields=FORMAT,
        envelope=google,
    ),
    R(
        OURS,
        lambda b: bool(b.get("tools")) and "response_format" in b,
        "Incompatible request parameters: tools and response_format cannot be used together",
        fields=FORMAT,
    ),
    R(
        OURS,
        has("response_format"),
        "Structured outputs are not supported by this model",
        fields=FORMAT,
        envelope=message,
    ),
    R(
        OURS,
        with_tools(is_in("stream", True)),
        "Streaming is not supported when tools are used",
    ),
    R(
        OURS,
        is_in("stream", True),
        "stream mode is not supported for this model, set stream to false",
    ),
)
#: Output limits.
_LIMITS = tuple(
    R(OURS, limit("max_tokens", 8192), words)
    for words in (
        "max_tokens must be at most 8192",
        "max_tokens (32000) exceeds the maximum of 8192 for this model",
        "max_tokens: Input should be less than or equal to 8192",
        "The maximum allowed value for max_tokens is 8192",
        "Requested max_tokens 32000 exceeds model limit 8192",
        "Field max_tokens invalid, should be in [1, 8192]",
        "max_tokens参数错误，取值范围为[1, 8192]",
        "max_tokens should be between 1 and 8192",
        "max_completion_tokens cannot exceed 8192",
        "Unable to submit request because it has a maxOutputTokens value of 32000 but the supported range is from 1 (inclusive) to 8193 (exclusive). Update the value and try again.",
        "The max_tokens you requested (32,000) is larger than the maximum number of output tokens (8,192)",
        "max_tokens 超出范围，最大值为 8192",
        "Invalid value for 'max_tokens': integer above maximum value. Expected a value <= 8192, but got 32000 instead.",
    )
)
REPORTS: tuple[Report, ...] = (*_PARAMETERS, *_THINKING, *_REPORTED, *_TOOLS, *_MESSAGES, *_LIMITS)
