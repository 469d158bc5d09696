"""Vendors in China."""

from __future__ import annotations

from typing import Any

from tests.support.vendors import messages, parameters, schemas
from tests.support.vendors.engine import Vendor, rule
from tests.support.vendors.shared import (
    KIMI_REASONING,
    LENIENT,
    MOONSHOT_SCHEMAS,
    QWEN_TEMPLATE,
    deepseek_reasoning,
    is_on,
    text_only,
    thinks_unless,
)

__all__ = ["HOSTED_CHINA"]


def zhipu_envelope(status: int, message: str, param: str | None) -> Any:
    return {"error": {"code": "1210", "message": message}}


def ark_envelope(status: int, message: str, param: str | None) -> Any:
    return {
        "error": {"code": "InvalidParameter", "message": message, "param": param or "", "type": "BadRequest"}
    }


def siliconflow_envelope(status: int, message: str, param: str | None) -> Any:
    return {"code": 20015, "message": message, "data": None}


HOSTED_CHINA = (
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
            *text_only(
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
                    when=thinks_unless("thinking.type", "disabled"),
                ),
            ),
            rule(
                "reasoning given back",
                "anomalyco/opencode#24722",
                messages.reasoning_given_back(
                    "The `reasoning_content` in the thinking mode must be passed back to the API.",
                    thinks=thinks_unless("thinking.type", "disabled"),
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
                    when=thinks_unless("thinking.type", "disabled"),
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
            *text_only(
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
            *text_only(
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
            *text_only("invalid params, content type is not supported (2013)", "MiniMax-AI/MiniMax-M2#51"),
        ),
    ),
    Vendor(
        "dashscope",
        ("qwen3.8-plus", "qwen3-coder-plus", "qwen3-vl-plus", "qwen-max", "kimi-k2.6", "deepseek-v4-pro"),
        (
            LENIENT,
            MOONSHOT_SCHEMAS.only(r"kimi"),
            deepseek_reasoning(is_on("enable_thinking")),
            QWEN_TEMPLATE,
            rule(
                "forced tool while thinking",
                "https://www.alibabacloud.com/help/en/model-studio/deep-thinking",
                parameters.forced_choice(
                    "<400> InternalError.Algo.InvalidParameter: The tool_choice parameter does not support being set "
                    "to required or object in thinking mode",
                    when=is_on("enable_thinking"),
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
            *text_only(
                "<400> InternalError.Algo.InvalidParameter: The image_url content type is not supported by the model",
                "https://www.alibabacloud.com/help/en/model-studio/vision",
                models=r"coder|qwen-max",
            ),
        ),
    ),
    Vendor(
        "doubao",
        ("doubao-seed-2-1-pro-260628", "doubao-seed-1-8", "kimi-k2.7-code", "deepseek-v4-pro"),
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
            deepseek_reasoning(thinks_unless("thinking.type", "disabled")),
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
            deepseek_reasoning(is_on("enable_thinking")),
            QWEN_TEMPLATE,
            rule(
                "reasoning given back",
                "https://docs.siliconflow.com/en/userguide/capabilities/reasoning",
                messages.reasoning_given_back(
                    "thinking is enabled but reasoning_content is missing in assistant tool call message at index {n}",
                    thinks=is_on("enable_thinking"),
                ),
                models=r"kimi",
            ),
        ),
        siliconflow_envelope,
    ),
)
