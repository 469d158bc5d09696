"""The vendors that run their models themselves, and the gateways before them."""

from __future__ import annotations

from typing import Any

from tests.support.vendors import messages, parameters, schemas
from tests.support.vendors.engine import Rule, Vendor, rule

__all__ = ["HOSTED"]

CHAT_COMPLETIONS = (
    "https://github.com/openai/openai-python/blob/main/src/openai/types/chat/completion_create_params.py"
)
STRICT = rule("chat completions", CHAT_COMPLETIONS, parameters.chat_completions(other_fields=False))
LENIENT = rule("chat completions", CHAT_COMPLETIONS, parameters.chat_completions(other_fields=True))

OPENAI_SCHEMAS = rule("schemas", "ogx-ai/ogx#3602", schemas.openai)
MFJS = "https://github.com/MoonshotAI/walle/blob/main/docs/walle.md"
MOONSHOT_SCHEMAS = rule("schemas", MFJS, schemas.moonshot)

#: OpenAI's models that reason.
REASONING = r"(^|/)(o\d|gpt-5(?![\w.-]*-chat))"


def _openai_efforts(models: str, *allowed: str) -> Rule:
    return rule(
        "efforts",
        "https://learn.microsoft.com/azure/ai-foundry/openai/how-to/reasoning",
        parameters.only_values(
            "reasoning_effort",
            allowed,
            "Unsupported value: 'reasoning_effort' does not support '{value}' with this model. "
            "Supported values are: {allowed}.",
        ),
        models=models,
    )


def _unsupported(name: str, source: str, models: str) -> Rule:
    words = f"Unsupported parameter: '{name}' is not supported with this model."
    return rule(f"no {name}", source, parameters.no_field(name, words), models=models)


OPENAI_RULES = (
    STRICT,
    rule(
        "count of tools",
        "zed-industries/zed#42393",
        parameters.count_of_tools(
            128,
            "Invalid 'tools': array too long. Expected an array with maximum length 128, "
            "but got an array with length {count} instead.",
        ),
    ),
    OPENAI_SCHEMAS,
    rule(
        "tool ids",
        "microsoft/autogen#6377",
        messages.tool_ids(
            r".{1,40}",
            "Invalid 'messages[{n}].tool_calls[0].id': string too long. Expected a string with maximum length 40, "
            "but got a string with length {length} instead.",
        ),
    ),
    rule(
        "output limit",
        "microsoft/vscode-copilot-release#8065",
        parameters.no_field(
            "max_tokens",
            "Unsupported parameter: 'max_tokens' is not supported with this model. "
            "Use 'max_completion_tokens' instead.",
        ),
        models=REASONING,
    ),
    _unsupported("temperature", "tmc/langchaingo#1355", REASONING),
    _unsupported("top_p", "QuantaAlpha/RepoMaster#8", REASONING),
    _unsupported("stop", "huggingface/smolagents#1662", REASONING),
    _unsupported("parallel_tool_calls", "langchain-ai/langchain#29704", r"(^|/)o\d"),
    rule(
        "no reasoning_effort",
        "davidmigloz/langchain_dart#712",
        parameters.no_field("reasoning_effort", "Unrecognized request argument supplied: reasoning_effort"),
        models=r"(^|/)gpt-4|-chat",
    ),
    _openai_efforts(r"(^|/)o\d", "low", "medium", "high"),
    _openai_efforts(r"(^|/)gpt-5(-mini|-nano|-codex)?(-\d{4}|$)", "minimal", "low", "medium", "high"),
    _openai_efforts(r"(^|/)gpt-5\.1", "none", "low", "medium", "high"),
    _openai_efforts(r"(^|/)gpt-5\.[2-9]", "none", "low", "medium", "high", "xhigh"),
    rule(
        "effort with tools",
        "pipecat-ai/pipecat#4043",
        parameters.effort_with_tools(
            (None, "none"),
            "Function tools with reasoning_effort are not supported for {model} in /v1/chat/completions. "
            "Please use /v1/responses instead.",
        ),
        models=r"(^|/)gpt-5\.[45]",
    ),
    rule(
        "effort with tools",
        "BerriAI/litellm#34569",
        parameters.effort_with_tools(
            ("none",),
            "Function tools with reasoning_effort are not supported for {model} in /v1/chat/completions. "
            "To use function tools, use /v1/responses or set reasoning_effort to 'none'.",
        ),
        models=r"(^|/)gpt-5\.[6-9]",
    ),
)
OPENAI_MODELS = ("gpt-5.6", "gpt-5.4", "gpt-5.2", "gpt-5.1", "gpt-5", "gpt-5-mini", "o3", "gpt-4.1")


def _thinks(path: str, off: Any) -> Any:
    """Whether a model that thinks by default was left to it."""
    return lambda body: parameters.at_path(body, path) != off


def _is_on(path: str) -> Any:
    """Whether a model that must be asked to think was asked."""
    return lambda body: parameters.at_path(body, path) is True


KIMI_REASONING = rule(
    "reasoning given back",
    "anomalyco/opencode#10996",
    messages.reasoning_given_back(
        "thinking is enabled but reasoning_content is missing in assistant tool call message at index {n}",
        thinks=_thinks("thinking.type", "disabled"),
    ),
    models=r"kimi-(k2\.[5-9]|k3|k2-thinking)",
)
QWEN_TEMPLATE = rule(
    "one system message",
    "vllm-project/vllm#41114",
    messages.leading_system("System message must be at the beginning."),
    models=r"qwen|minimax",
)
MISTRAL_ORDER = rule("order of roles", "yetone/avante.nvim#2695", messages.mistral_order)


def _text_only(words: str, source: str, models: str = "") -> tuple[Rule, ...]:
    return (
        rule("no images", source, messages.no_parts("image_url", words), models=models),
        rule(
            "no files", source, messages.no_parts("file", words.replace("image_url", "file")), models=models
        ),
    )


def zhipu_envelope(status: int, message: str, param: str | None) -> Any:
    return {"error": {"code": "1210", "message": message}}


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


def ark_envelope(status: int, message: str, param: str | None) -> Any:
    return {
        "error": {"code": "InvalidParameter", "message": message, "param": param or "", "type": "BadRequest"}
    }


def siliconflow_envelope(status: int, message: str, param: str | None) -> Any:
    return {"code": 20015, "message": message, "data": None}


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

HOSTED = (
    Vendor("openai", OPENAI_MODELS, OPENAI_RULES),
    Vendor("azure", OPENAI_MODELS, OPENAI_RULES, key_header="api-key"),
    Vendor(
        "github",
        (*(f"openai/{model}" for model in OPENAI_MODELS), "mistral-ai/mistral-medium-2505"),
        (
            *(each.only(each.models or r"openai/") for each in OPENAI_RULES),
            MISTRAL_ORDER.only(r"mistral"),
            rule(
                "tool ids",
                "nearai/ironclaw#1241",
                messages.tool_ids(
                    r"[A-Za-z0-9]{9}", "Tool call id was {id} but must be a-z, A-Z, 0-9, with a length of 9."
                ),
                models=r"mistral",
            ),
        ),
    ),
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
        "deepseek",
        ("deepseek-v4-pro", "deepseek-v4-flash"),
        (
            LENIENT,
            rule(
                "no developer role",
                "earendil-works/pi#1048",
                messages.no_role(
                    "developer",
                    "Failed to deserialize the JSON body into the target type: messages[0].role: unknown variant "
                    "`developer`, expected one of `system`, `user`, `assistant`, `tool`, `latest_reminder`",
                ),
            ),
            *_text_only(
                "Failed to deserialize the JSON body into the target type: messages[{n}]: unknown variant "
                "`image_url`, expected `text`",
                "esengine/DeepSeek-Reasonix#7859",
            ),
            rule(
                "response format",
                "https://api-docs.deepseek.com/guides/json_mode",
                parameters.only_values(
                    "response_format.type",
                    ("text", "json_object"),
                    "This response_format type is unavailable now",
                ),
            ),
            rule(
                "efforts",
                "https://api-docs.deepseek.com/guides/thinking_mode",
                parameters.only_values(
                    "reasoning_effort",
                    ("low", "medium", "high", "xhigh", "max"),
                    "reasoning_effort: unknown variant `{value}`, expected one of `low`, `medium`, `high`, `xhigh`, "
                    "`max`",
                ),
            ),
            rule(
                "forced tool while thinking",
                "vercel/ai#13203",
                parameters.forced_choice(
                    "Thinking mode does not support this tool_choice",
                    when=_thinks("thinking.type", "disabled"),
                ),
            ),
            rule(
                "reasoning given back",
                "anomalyco/opencode#24722",
                messages.reasoning_given_back(
                    "The `reasoning_content` in the thinking mode must be passed back to the API.",
                    thinks=_thinks("thinking.type", "disabled"),
                ),
            ),
        ),
    ),
    Vendor(
        "moonshot",
        ("kimi-k3", "kimi-k2.7-code", "kimi-k2.6", "kimi-k2-thinking", "kimi-k2-0905-preview"),
        (
            LENIENT,
            MOONSHOT_SCHEMAS,
            rule(
                "tool names",
                "https://platform.moonshot.ai/docs/api/chat",
                schemas.tool_names(
                    r"[A-Za-z][\w-]{0,63}",
                    "Invalid request: function name is invalid, must start with a letter and can contain letters, "
                    "numbers, underscores, and dashes",
                ),
            ),
            rule(
                "temperature",
                "https://platform.moonshot.ai/docs/guide/use-kimi-k2-thinking-model",
                parameters.only_values(
                    "temperature", (1,), "invalid temperature: only 1 is allowed for this model"
                ),
                models=r"k2\.[5-9]|k3",
            ),
            rule(
                "always thinking",
                "https://platform.moonshot.ai/docs/guide/use-kimi-k2-thinking-model",
                parameters.only_values(
                    "thinking.type",
                    ("enabled",),
                    "invalid thinking: only type=enabled is allowed for this model",
                ),
                models=r"k2\.7-code",
            ),
            rule(
                "forced tool while thinking",
                "https://platform.moonshot.ai/docs/guide/use-kimi-k2-thinking-model",
                parameters.forced_choice(
                    "tool_choice 'required' is incompatible with thinking enabled",
                    when=_thinks("thinking.type", "disabled"),
                ),
                models=r"k2\.[5-9]",
            ),
            rule(
                "named tool while thinking",
                "https://platform.moonshot.ai/docs/guide/use-kimi-k2-thinking-model",
                parameters.forced_choice(
                    "tool_choice 'specified' is incompatible with thinking enabled", named_only=True
                ),
                models=r"k3",
            ),
            KIMI_REASONING,
            *_text_only(
                "Invalid request: image_url is only supported by vision models",
                "https://platform.moonshot.ai/docs/guide/use-kimi-vision-model",
                models=r"kimi-k2-",
            ),
        ),
    ),
    Vendor(
        "zhipu",
        ("glm-5.3", "glm-5.3-flash", "glm-5.2", "glm-4.7", "glm-4.6v"),
        (
            LENIENT,
            rule(
                "always thinking",
                "charmbracelet/catwalk#603",
                parameters.only_values(
                    "thinking.type",
                    ("enabled",),
                    "This model always engages in thinking and cannot be disabled; please use low, high, or max.",
                ),
                models=r"glm-5\.3",
            ),
            rule(
                "efforts",
                "charmbracelet/catwalk#603",
                parameters.only_values(
                    "reasoning_effort",
                    ("low", "high", "max"),
                    "This model always engages in thinking and cannot be disabled; please use low, high, or max.",
                ),
                models=r"glm-5\.3",
            ),
            rule(
                "forced tool",
                "https://docs.z.ai/api-reference/llm/chat-completion",
                parameters.forced_choice("tool_choice only supports auto"),
            ),
            rule(
                "stop",
                "https://docs.z.ai/api-reference/llm/chat-completion",
                parameters.stop_sequences(1, "stop: at most 1 stop word is supported"),
            ),
            rule(
                "response format",
                "https://docs.z.ai/api-reference/llm/chat-completion",
                parameters.only_values(
                    "response_format.type", ("text", "json_object"), "response_format.type is invalid"
                ),
            ),
            *_text_only(
                "messages.content.type is invalid, expected text",
                "BigPizzaV3/CodexPlusPlus#1760",
                r"glm-[\d.]+(-|$)",
            ),
        ),
        zhipu_envelope,
    ),
    Vendor(
        "minimax",
        ("MiniMax-M3", "MiniMax-M2.7"),
        (
            LENIENT,
            rule(
                "one system message",
                "MiniMax-AI/MiniMax-M2#51",
                messages.leading_system(
                    "invalid params, chat content has invalid message role: system (2013)"
                ),
            ),
            rule(
                "thinking",
                "https://platform.minimax.io/docs/api-reference/text-openai-api",
                parameters.only_values(
                    "thinking.type", ("adaptive", "disabled"), "invalid params, invalid thinking type (2013)"
                ),
            ),
            *_text_only("invalid params, content type is not supported (2013)", "MiniMax-AI/MiniMax-M2#51"),
        ),
    ),
    Vendor(
        "dashscope",
        ("qwen3.8-plus", "qwen3-coder-plus", "qwen3-vl-plus", "qwen-max", "kimi-k2.6", "deepseek-v4-pro"),
        (
            LENIENT,
            MOONSHOT_SCHEMAS.only(r"kimi"),
            QWEN_TEMPLATE,
            rule(
                "forced tool while thinking",
                "https://www.alibabacloud.com/help/en/model-studio/deep-thinking",
                parameters.forced_choice(
                    "<400> InternalError.Algo.InvalidParameter: The tool_choice parameter does not support being set "
                    "to required or object in thinking mode",
                    when=_is_on("enable_thinking"),
                ),
            ),
            rule(
                "thinking budget",
                "https://www.alibabacloud.com/help/en/model-studio/deep-thinking",
                parameters.whole_number(
                    "thinking_budget", 1, 81920, "parameter.thinking_budget must be a positive integer"
                ),
            ),
            rule(
                "no reasoning_effort",
                "https://www.alibabacloud.com/help/en/model-studio/deep-thinking",
                parameters.no_field("reasoning_effort", "Unsupported parameter: reasoning_effort"),
                models=r"qwen",
            ),
            *_text_only(
                "<400> InternalError.Algo.InvalidParameter: The image_url content type is not supported by the model",
                "https://www.alibabacloud.com/help/en/model-studio/vision",
                models=r"coder|qwen-max",
            ),
        ),
    ),
    Vendor(
        "doubao",
        ("doubao-seed-2-1-pro-260628", "doubao-seed-1-8", "kimi-k2.7-code"),
        (
            LENIENT,
            MOONSHOT_SCHEMAS.only(r"kimi"),
            rule(
                "efforts",
                "https://www.volcengine.com/docs/82379/1449737",
                parameters.only_values(
                    "reasoning_effort",
                    ("minimal", "low", "medium", "high"),
                    "The parameter `reasoning_effort` specified in the request are not valid: not one of {allowed}",
                ),
                models=r"doubao",
            ),
            rule(
                "thinking",
                "https://www.volcengine.com/docs/82379/1449737",
                parameters.only_values(
                    "thinking.type",
                    ("enabled", "disabled", "auto"),
                    "The parameter `thinking.type` specified in the request are not valid",
                ),
            ),
            KIMI_REASONING,
        ),
        ark_envelope,
    ),
    Vendor(
        "siliconflow",
        (
            "Qwen/Qwen3-235B-A22B",
            "Qwen/Qwen3-Coder-480B",
            "zai-org/GLM-4.6",
            "moonshotai/Kimi-K2.6",
            "deepseek-ai/DeepSeek-V4",
        ),
        (
            LENIENT,
            rule(
                "no thinking switch",
                "https://docs.siliconflow.com/en/api-reference/chat-completions/chat-completions",
                parameters.no_field(
                    "enable_thinking",
                    "Value error, current model does not support parameter `enable_thinking`.",
                ),
                models=r"coder|instruct",
            ),
            rule(
                "thinking budget",
                "https://docs.siliconflow.com/en/api-reference/chat-completions/chat-completions",
                parameters.whole_number(
                    "thinking_budget",
                    128,
                    32768,
                    "thinking_budget must be between 128 and 32768, got {value}",
                ),
            ),
            rule(
                "stop",
                "https://docs.siliconflow.com/en/api-reference/chat-completions/chat-completions",
                parameters.stop_sequences(4, "stop: at most 4 stop sequences are allowed"),
            ),
            QWEN_TEMPLATE,
            rule(
                "reasoning given back",
                "https://docs.siliconflow.com/en/userguide/capabilities/reasoning",
                messages.reasoning_given_back(
                    "thinking is enabled but reasoning_content is missing in assistant tool call message at index {n}",
                    thinks=_is_on("enable_thinking"),
                ),
                models=r"kimi",
            ),
        ),
        siliconflow_envelope,
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
            *_text_only(
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
            *_text_only(
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
            *_text_only(
                "messages.{n}: content type image_url is not supported",
                "https://docs.aws.amazon.com/bedrock/latest/userguide/inference-chat-completions.html",
            ),
        ),
    ),
)
