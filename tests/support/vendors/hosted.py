"""Vendors elsewhere, and the gateways before them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tests.support.vendors import messages, parameters, schemas
from tests.support.vendors.engine import Vendor, rule
from tests.support.vendors.shared import (
    LENIENT,
    MISTRAL_ORDER,
    MOONSHOT_SCHEMAS,
    OPENAI_SCHEMAS,
    QWEN_TEMPLATE,
    text_only,
)

__all__ = ["HOSTED"]


def xai_envelope(status: int, message: str, param: str | None) -> Any:
    return {"code": "Client specified an invalid argument", "error": message}


def gemini_envelope(status: int, message: str, param: str | None) -> Any:
    return [{"error": {"code": status, "message": message, "status": "INVALID_ARGUMENT"}}]


def mistral_envelope(status: int, message: str, param: str | None) -> Any:
    if status == 422:
        return {
            "object": "error",
            "message": {"detail": [{"type": "extra_forbidden", "loc": ["body", param], "msg": message}]},
            "type": "invalid_request_error",
        }
    return {"object": "error", "message": message, "type": "invalid_request_message_order", "code": "3230"}


def cerebras_envelope(status: int, message: str, param: str | None) -> Any:
    return {"message": message, "type": "invalid_request_error", "param": param, "code": "wrong_api_format"}


ASSISTANT = frozenset({"role", "content", "tool_calls", "name", "prefix"})

MISTRAL_FIELDS = frozenset(
    {
        "model", "messages", "temperature", "top_p", "max_tokens", "stream", "stop", "random_seed", "metadata",
        "response_format", "tools", "tool_choice", "presence_penalty", "frequency_penalty", "n", "prediction",
        "parallel_tool_calls", "prompt_mode", "reasoning_effort", "guardrails", "prompt_cache_key", "safe_prompt",
    }
)  # fmt: skip

GEMINI_FIELDS = frozenset(
    {
        "model", "messages", "temperature", "top_p", "max_tokens", "max_completion_tokens", "stream",
        "stream_options", "stop", "n", "tools", "tool_choice", "response_format", "reasoning_effort", "extra_body",
        "frequency_penalty", "presence_penalty", "seed", "user", "modalities",
    }
)  # fmt: skip

GROQ_FIELDS = frozenset(
    {
        "model", "messages", "temperature", "top_p", "max_tokens", "max_completion_tokens", "stream",
        "stream_options", "stop", "n", "tools", "tool_choice", "parallel_tool_calls", "response_format",
        "reasoning_effort", "reasoning_format", "include_reasoning", "seed", "user", "service_tier",
    }
)  # fmt: skip

_VENDORS = (
    Vendor(
        "openrouter",
        (
            "moonshotai/kimi-k2.6",
            "qwen/qwen3.8-coder",
            "mistralai/devstral-2",
            "anthropic/claude-opus-5-5",
            "google/gemini-3-pro",
            "openai/gpt-5.2",
            "deepseek/deepseek-v4-pro",
            "z-ai/glm-5.3",
        ),
        (
            LENIENT,
            MOONSHOT_SCHEMAS.only(r"kimi"),
            OPENAI_SCHEMAS.only(r"^openai/"),
            rule(
                "reasoning given back",
                "earendil-works/pi#987",
                messages.reasoning_given_back(
                    "thinking is enabled but reasoning_content is missing in assistant tool call message at index {n}",
                    thinks=lambda body: parameters.at_path(body, "reasoning.enabled") is not False,
                ),
                models=r"kimi",
            ),
            QWEN_TEMPLATE,
            MISTRAL_ORDER.only(r"^mistralai/"),
            rule(
                "efforts",
                "https://openrouter.ai/docs/use-cases/reasoning-tokens",
                parameters.only_values(
                    "reasoning.effort",
                    ("none", "minimal", "low", "medium", "high", "xhigh"),
                    "reasoning.effort: Invalid option: expected one of {allowed}",
                ),
            ),
        ),
    ),
    Vendor(
        "gemini",
        ("gemini-3-pro", "gemini-3-flash", "gemini-2.5-pro", "gemini-2.5-flash", "gemini-2.0-flash"),
        (
            LENIENT,
            rule(
                "unknown fields",
                "https://ai.google.dev/gemini-api/docs/openai",
                parameters.only_fields(
                    GEMINI_FIELDS, 'Invalid JSON payload received. Unknown name "{field}": Cannot find field.'
                ),
            ),
            rule("schemas", "continuedev/continue#8865", schemas.gemini),
            rule(
                "tool names",
                "https://ai.google.dev/api/caching#FunctionDeclaration",
                schemas.tool_names(
                    r"[A-Za-z_][\w.-]{0,63}",
                    "Invalid function name. Must start with a letter or an underscore. Must be alphameric (a-z, A-Z, "
                    "0-9), underscores (_), dots (.) or dashes (-), with a maximum length of 64.",
                ),
            ),
            rule(
                "thought signatures",
                "https://ai.google.dev/gemini-api/docs/thought-signatures",
                messages.thought_signatures,
                models=r"gemini-3",
            ),
            rule(
                "names of results",
                "inference-gateway/inference-gateway#181",
                messages.named_results(
                    "* GenerateContentRequest.contents[{n}].parts[0].function_response.name: Name cannot be empty."
                ),
            ),
            rule(
                "efforts",
                "jenslys/opencode-gemini-auth#14",
                parameters.only_values(
                    "reasoning_effort",
                    ("low", "high"),
                    "Unable to submit request because thinking_level {value} is not supported by this model.",
                ),
                models=r"gemini-3-pro",
            ),
            rule(
                "efforts",
                "https://ai.google.dev/gemini-api/docs/openai#thinking",
                parameters.only_values(
                    "reasoning_effort",
                    ("none", "minimal", "low", "medium", "high"),
                    "Invalid reasoning_effort: {value}",
                ),
            ),
            rule(
                "always thinking",
                "https://ai.google.dev/gemini-api/docs/openai#thinking",
                parameters.only_values(
                    "reasoning_effort",
                    ("minimal", "low", "medium", "high"),
                    "Budget 0 is invalid. This model only works in thinking mode.",
                ),
                models=r"gemini-2\.5-pro|gemini-3-pro",
            ),
            rule(
                "no reasoning_effort",
                "https://ai.google.dev/gemini-api/docs/openai#thinking",
                parameters.no_field("reasoning_effort", "Thinking is not enabled for this model"),
                models=r"gemini-2\.0",
            ),
        ),
        gemini_envelope,
    ),
    Vendor(
        "xai",
        ("grok-4.3", "grok-4-1-fast", "grok-3-mini", "grok-4.20-non-reasoning"),
        (
            LENIENT,
            rule("schemas", "openclaw/openclaw#32080", schemas.xai),
            rule(
                "no stop",
                "https://docs.x.ai/docs/models",
                parameters.no_field("stop", "Argument not supported on this model: stop"),
                models=r"grok-(3-mini|4)(?!.*non-reasoning)",
            ),
            rule(
                "no reasoning_effort",
                "BerriAI/litellm#16265",
                lambda body: (
                    None
                    if body.get("reasoning_effort") is None
                    else f"Model {body['model']} does not support parameter reasoningEffort."
                ),
                models=r"grok-4-1|non-reasoning",
            ),
            rule(
                "efforts",
                "https://docs.x.ai/docs/guides/reasoning",
                parameters.only_values("reasoning_effort", ("low", "high"), "Invalid reasoning effort."),
                models=r"grok-3-mini",
            ),
            rule(
                "efforts",
                "https://docs.x.ai/docs/guides/reasoning",
                parameters.only_values(
                    "reasoning_effort", ("none", "low", "medium", "high"), "Invalid reasoning effort."
                ),
            ),
        ),
        xai_envelope,
    ),
    Vendor(
        "groq",
        ("openai/gpt-oss-120b", "qwen/qwen3-32b", "llama-4-maverick", "moonshotai/kimi-k2-instruct"),
        (
            LENIENT,
            rule(
                "unknown fields",
                "fanenr/chatbot#21",
                parameters.only_fields(GROQ_FIELDS, "property '{field}' is unsupported"),
            ),
            rule(
                "fields of messages",
                "karthink/gptel#774",
                messages.only_fields(
                    "assistant",
                    frozenset({"role", "content", "tool_calls", "name", "function_call"}),
                    "'messages.{n}' : for 'role:assistant' the following must be satisfied[('messages.{n}' : property "
                    "'{field}' is unsupported)]",
                ),
            ),
            rule(
                "efforts",
                "earendil-works/pi#1745",
                parameters.only_values(
                    "reasoning_effort",
                    ("none", "default"),
                    "`reasoning_effort` must be one of `none` or `default`",
                ),
                models=r"qwen3",
            ),
            rule(
                "efforts",
                "https://console.groq.com/docs/reasoning",
                parameters.only_values(
                    "reasoning_effort",
                    ("low", "medium", "high"),
                    "`reasoning_effort` must be one of `low`, `medium`, or `high`",
                ),
                models=r"gpt-oss",
            ),
            rule(
                "no reasoning_effort",
                "iamsrikanthnani/pluely#219",
                parameters.no_field(
                    "reasoning_effort", "`reasoning_effort` is not supported with this model"
                ),
                models=r"llama|kimi",
            ),
            *text_only(
                "'messages.{n}' : content must be a string",
                "https://console.groq.com/docs/vision",
                models=r"gpt-oss|qwen3|kimi",
            ),
        ),
    ),
    Vendor(
        "mistral",
        ("mistral-large-2512", "devstral-2", "codestral-2508", "magistral-medium-2509"),
        (
            LENIENT,
            rule(
                "unknown fields",
                "yetone/avante.nvim#2347",
                parameters.only_fields(MISTRAL_FIELDS, "Extra inputs are not permitted"),
                status=422,
            ),
            rule(
                "fields of messages",
                "charmbracelet/crush#1590",
                lambda body: (
                    None
                    if (found := messages.only_fields("assistant", ASSISTANT, "{field}")(body)) is None
                    else ("Extra inputs are not permitted", str(found))
                ),
                status=422,
            ),
            MISTRAL_ORDER,
            rule(
                "tool ids",
                "nearai/ironclaw#1241",
                messages.tool_ids(
                    r"[A-Za-z0-9]{9}", "Tool call id was {id} but must be a-z, A-Z, 0-9, with a length of 9."
                ),
            ),
            rule(
                "no reasoning_effort",
                "https://docs.mistral.ai/capabilities/reasoning",
                parameters.no_field("reasoning_effort", "reasoning_effort is not supported for this model"),
                models=r"devstral|codestral|magistral|large",
            ),
            rule(
                "no images",
                "https://docs.mistral.ai/capabilities/vision",
                messages.no_parts("image_url", "Image input is not supported for this model"),
                models=r"codestral",
            ),
        ),
        mistral_envelope,
    ),
    Vendor(
        "cerebras",
        ("gpt-oss-120b", "zai-glm-4.7", "qwen-3-coder-480b"),
        (
            LENIENT,
            *(
                rule(
                    f"no {name}",
                    "https://inference-docs.cerebras.ai/resources/openai",
                    parameters.no_field(name, f"Unsupported parameter: {name}"),
                )
                for name in ("frequency_penalty", "presence_penalty", "logit_bias", "parallel_tool_calls")
            ),
            rule(
                "forced tool",
                "https://inference-docs.cerebras.ai/capabilities/tool-use",
                parameters.forced_choice("tool_choice: only auto and none are supported"),
            ),
            rule(
                "efforts",
                "https://inference-docs.cerebras.ai/capabilities/reasoning",
                parameters.only_values(
                    "reasoning_effort", ("low", "medium", "high"), "reasoning_effort must be one of {allowed}"
                ),
                models=r"gpt-oss",
            ),
            rule(
                "efforts",
                "https://inference-docs.cerebras.ai/capabilities/reasoning",
                parameters.only_values(
                    "reasoning_effort", ("none",), "reasoning_effort must be one of {allowed}"
                ),
                models=r"glm",
            ),
            *text_only(
                "messages.{n}.content: Input should be a valid string",
                "https://inference-docs.cerebras.ai/resources/openai",
            ),
        ),
        cerebras_envelope,
    ),
    Vendor(
        "bedrock",
        ("openai.gpt-oss-120b-1:0", "qwen.qwen3-coder-480b", "mistral.ministral-3-14b", "moonshot.kimi-k2"),
        (
            LENIENT,
            rule(
                "efforts",
                "https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters-openai.html",
                parameters.only_values(
                    "reasoning_effort", ("low", "medium", "high"), "reasoning_effort must be one of {allowed}"
                ),
            ),
            QWEN_TEMPLATE,
            MISTRAL_ORDER.only(r"mistral"),
            *text_only(
                "messages.{n}: content type image_url is not supported",
                "https://docs.aws.amazon.com/bedrock/latest/userguide/inference-chat-completions.html",
            ),
        ),
    ),
)
#: Vertex AI's Chat Completions are judged as AI Studio's; `tests.support.vendors.vertex` judges its other APIs.
HOSTED = (*_VENDORS, *(replace(each, name="vertex") for each in _VENDORS if each.name == "gemini"))
