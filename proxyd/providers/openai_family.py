"""OpenAI's profile, and those of platforms that serve its models under the same rules."""

from __future__ import annotations

from typing import Any

from proxyd.codecs.translation.dialect import Dialect
from proxyd.providers.profile import (
    DEEPSEEK_REASONING,
    KIMI_REASONING,
    MISTRAL_ORDER,
    MOONSHOT_SCHEMAS,
    NO_EFFORT,
    THINK_TAGS,
    Preference,
    Profile,
    Variant,
    levels,
)

__all__ = ["OPENAI_FAMILY"]

#: OpenAI's model families, newest behaviour as default; also behind Azure and GitHub Models.
_OPENAI_REASONING: dict[str, Any] = {
    "max_tokens_field": "max_completion_tokens",
    "system_role": "developer",
    "sampling": (),
    "stop_limit": 0,
    "effort_path": "reasoning_effort",
    "efforts": levels("none", "low", "medium", "high", "xhigh"),
    "reasoning_return": "none",
}
#: What the newest models take in the Responses API, and what those before gpt-5.3-codex do not.
_OPENAI_RESPONSES: dict[str, Any] = {"stream_options": True, "message_phases": True}
_WITHOUT_PHASES: dict[str, dict[str, Any]] = {"openai-responses": {"message_phases": False}}
_OPENAI_VARIANTS = (
    Variant(
        r"(^|/)(gpt-3|gpt-4|chatgpt-4)|gpt-5[\w.-]*-chat",
        {"system_role": "system", "sampling": ("temperature", "top_p"), "stop_limit": 4, **NO_EFFORT},
        {"openai-responses": {"message_phases": False, "reasoning_items": "none"}},
    ),
    Variant(
        r"(^|/)o\d",
        {
            **_OPENAI_REASONING,
            "efforts": levels("low", "medium", "high"),
            "parallel_tool_calls": False,
        },
        _WITHOUT_PHASES,
    ),
    Variant(
        r"(^|/)gpt-5(-mini|-nano|-codex)?(-\d{4}|$)",
        {**_OPENAI_REASONING, "efforts": levels("low", "medium", "high", none="minimal")},
        _WITHOUT_PHASES,
    ),
    Variant(
        r"(^|/)gpt-5\.1",
        {**_OPENAI_REASONING, "efforts": levels("none", "low", "medium", "high")},
        _WITHOUT_PHASES,
    ),
    Variant(r"(^|/)gpt-5\.2", {}, _WITHOUT_PHASES),
    Variant(r"gpt-5-pro", {**_OPENAI_REASONING, "efforts": levels("high")}, _WITHOUT_PHASES),
    Variant(r"(^|/)gpt-5\.[4-9](?![\w.-]*-chat)", {"body_with_tools": {"reasoning_effort": "none"}}),
)
_OPENAI = Dialect(
    **_OPENAI_REASONING,
    files=True,
    service_tier=True,
    prompt_cache_key=True,
    max_tools=128,
    tool_id_style="openai",
)
_OPENAI_SOURCES = (
    "openai Python SDK 3.54.0, CompletionCreateParamsBase and FunctionDefinition",
    "stop refused from gpt-5 on: smolagents#1662, smolagents#1893",
    "efforts per model: learn.microsoft.com, ReasoningEffort type",
    "from gpt-5.4 on Chat Completions takes tools or reasoning, not both: litellm#34569, goose#11413, pipecat#4043",
)

#: From gpt-5.4 on.
_NEEDS_RESPONSES = Preference(
    r"(^|/)gpt-(5\.[4-9]|[6-9])(?![\w.-]*-chat)",
    "openai-responses",
    "Chat Completions takes tools or reasoning of this model, not both",
)
_RESPONSES_SOURCES = (
    "openai Python SDK 3.57.0, ResponseCreateParams, ResponseStreamEvent, ResponseOutputMessage (phase)",
    "summaries for verified organisations alone: software-agent-sdk#987, windmill#10147",
    "reasoning of another account: codex#8145, sub2api#2863",
)

OPENAI_FAMILY = (
    Profile(
        name="openai",
        searches={"openai-responses": "responses"},
        title="OpenAI",
        hosts=("api.openai.com",),
        dialect=_OPENAI,
        variants=_OPENAI_VARIANTS,
        formats={"openai-responses": _OPENAI_RESPONSES},
        preferences=(_NEEDS_RESPONSES,),
        sources=(*_OPENAI_SOURCES, *_RESPONSES_SOURCES),
        note="Reasoning is not visible in Chat Completions, so none goes back. From gpt-5.4 on it takes tools or "
        "reasoning, so these models are called over Responses where the entry names no format; with "
        "`format: openai-chat`, requests with tools say `reasoning_effort: none`.",
    ),
    Profile(
        name="azure",
        searches={"openai-responses": "responses"},
        title="Azure OpenAI",
        hosts=("*.openai.azure.com", "*.cognitiveservices.azure.com", "*.services.ai.azure.com"),
        dialect=_OPENAI,
        variants=(
            *_OPENAI_VARIANTS,
            # Models of others, in Azure AI Foundry.
            Variant(
                r"kimi|deepseek|mistral|ministral|codestral|llama|grok|phi-|qwen|cohere|command",
                {
                    "max_tokens_field": "max_tokens",
                    "system_role": "system",
                    "sampling": ("temperature", "top_p"),
                    "stop_limit": 4,
                    "files": False,
                    "service_tier": False,
                    "prompt_cache_key": False,
                    **NO_EFFORT,
                },
            ),
            THINK_TAGS,
            Variant(r"mistral|ministral|codestral", {**MISTRAL_ORDER, "tool_id_style": "mistral"}),
            Variant(r"deepseek-v(3\.[1-9]|[4-9])", DEEPSEEK_REASONING),
            Variant(r"kimi", {**KIMI_REASONING, **MOONSHOT_SCHEMAS}),
        ),
        formats={"openai-responses": _OPENAI_RESPONSES},
        auth="api-key",
        sources=(*_OPENAI_SOURCES, *_RESPONSES_SOURCES, "Microsoft Q&A 1533887"),
        note="`model_name` is the name of the deployment: name it after its model, or set quirks. Responses are at "
        "`https://RESOURCE.openai.azure.com/openai/v1`.",
    ),
    Profile(
        name="github",
        title="GitHub Models",
        hosts=("models.github.ai", "models.inference.ai.azure.com"),
        dialect=Dialect(
            max_tools=128,
            tool_id_style="openai",
            reasoning_return="none",
            **NO_EFFORT,
        ),
        variants=(
            Variant(r"(^|/)gpt-5", _OPENAI_REASONING),
            *_OPENAI_VARIANTS,
            Variant(r"mistral|ministral|codestral", {**MISTRAL_ORDER, "tool_id_style": "mistral"}),
        ),
        sources=("docs.github.com: REST API endpoints for models inference", *_OPENAI_SOURCES),
    ),
)
