"""Profiles of the vendors that run their models themselves, and have no module of their own.

To add one, add a `Profile` here, a transcript of its request and of its stream, and run
``python docs/generate_providers.py``. Sources were read from July to November 2026.
"""

from __future__ import annotations

from proxyd.codecs.translation.dialect import Dialect
from proxyd.providers.profile import (
    DEEPSEEK_REASONING,
    GPT_OSS,
    KIMI_REASONING,
    MISTRAL_ORDER,
    MOONSHOT_SCHEMAS,
    NO_EFFORT,
    STRICT_TEMPLATE,
    STRICT_TEMPLATE_SOURCE,
    THINK_TAGS,
    Profile,
    Variant,
    levels,
)

__all__ = ["HOSTED"]

HOSTED = (
    Profile(
        name="anthropic",
        title="Anthropic",
        hosts=("api.anthropic.com",),
        sources=("platform.claude.com, Messages API reference",),
        note="For direct routes; it is what direct mode is measured against.",
    ),
    Profile(
        name="openrouter",
        searches={"openai-chat": "openrouter"},
        title="OpenRouter",
        hosts=("openrouter.ai", "*.openrouter.ai"),
        dialect=Dialect(
            files=True,
            sampling=("temperature", "top_p", "top_k"),
            thinking_path="reasoning.enabled",
            thinking_on=True,
            effort_path="reasoning.effort",
            efforts=levels("none", "minimal", "low", "medium", "high", "xhigh"),
            reasoning_return="details",
            reasoning_field="reasoning",
        ),
        variants=(
            Variant(r"^(anthropic|google|qwen|alibaba)/", {"cache_control": True}),
            THINK_TAGS,
            Variant(r"^(qwen|minimax)/", STRICT_TEMPLATE),
            Variant(r"^mistralai/", MISTRAL_ORDER),
            Variant(r"deepseek-v(3\.[1-9]|[4-9])", DEEPSEEK_REASONING),
            Variant(r"kimi", {**KIMI_REASONING, **MOONSHOT_SCHEMAS, "reasoning_with_calls_only": True}),
        ),
        formats={"openai-responses": {"reasoning_item_ids": True, "images_in_tool_results": False}},
        sources=(
            "OpenRouter docs: Reasoning tokens; Prompt caching; Errors and debugging",
            "Responses: SDK models OpenResponsesReasoning (id is required), OpenResponsesFunctionCallOutput (a text); "
            "answers of the assistant as texts: cherry-studio#10477, codex#12114",
            "Kimi behind OpenRouter: earendil-works/pi#987",
            STRICT_TEMPLATE_SOURCE,
        ),
        note="`cache_control` is passed on to Anthropic, Google and Qwen models.",
    ),
    Profile(
        name="xai",
        searches={"openai-responses": "responses"},
        title="xAI Grok",
        hosts=("api.x.ai", "*.api.x.ai"),
        dialect=Dialect(stop_limit=0, schema_style="xai", reasoning_return="none", **NO_EFFORT),
        variants=(
            Variant(r"grok-[23]|non-reasoning", {"stop_limit": 4}),
            Variant(
                r"grok-3-mini",
                {"effort_path": "reasoning_effort", "efforts": levels("low", "high"), "stop_limit": 0},
            ),
            Variant(
                r"grok-(4\.[3-9]|[5-9])(?!.*non-reasoning)",
                {
                    "effort_path": "reasoning_effort",
                    "efforts": levels("none", "low", "medium", "high"),
                },
            ),
        ),
        formats={"openai-responses": {"prompt_cache_key": True, "images_in_tool_results": False}},
        sources=(
            "docs.x.ai: Best practices guide; Troubleshooting reasoning (order of items, encrypted content)",
            "docs.cloud.google.com: Reasoning for Grok models",
            "@ai-sdk/xai release notes",
            "no bounds on lengths in schemas: openclaw#32080",
        ),
    ),
    Profile(
        name="groq",
        title="Groq",
        hosts=("api.groq.com",),
        dialect=Dialect(
            max_tokens_field="max_completion_tokens",
            vision=False,
            response_format="none",
            reasoning_return="none",
            **NO_EFFORT,
        ),
        variants=(
            GPT_OSS,
            Variant(
                r"qwen3",
                {
                    "effort_path": "reasoning_effort",
                    "efforts": {"none": "none", "medium": "default"},
                    "body": {"reasoning_format": "parsed"},
                },
            ),
            Variant(r"llama-4|scout|maverick", {"vision": True}),
        ),
        sources=("console.groq.com/docs: OpenAI compatibility; Reasoning",),
        note="Structured outputs do not stream there, so schemas become instructions.",
    ),
    Profile(
        name="mistral",
        title="Mistral",
        hosts=("api.mistral.ai", "*.mistral.ai"),
        dialect=Dialect(
            **MISTRAL_ORDER,
            stream_options=False,
            sampling=("temperature", "top_p"),
            stop_limit=None,
            prompt_cache_key=True,
            images_in_tool_results=True,
            prefill_message={"prefix": True},
            required_word="any",
            tool_id_style="mistral",
            efforts=levels("none", "high"),
            client_effort=False,
            reasoning_return="chunks",
        ),
        variants=(
            Variant(r"codestral", {"vision": False}),
            Variant(r"magistral", {**NO_EFFORT, "body": {"prompt_mode": "reasoning"}}),
        ),
        sources=(
            "mistralai Python SDK 3.7.0, ChatCompletionRequest, ThinkChunk, ToolMessage",
            "order of roles, code 3230: avante.nvim#2695, hermes-agent#20154",
            "stream_options is 422: avante.nvim#2347; unknown message fields are 422: crush#1590",
            "tool ids: ironclaw#1241",
        ),
        note="`reasoning_effort` is sent only where models.yaml sets it: most models refuse it.",
    ),
    Profile(
        name="cerebras",
        title="Cerebras",
        hosts=("api.cerebras.ai",),
        dialect=Dialect(
            max_tokens_field="max_completion_tokens",
            vision=False,
            required_word="auto",
            named_tool_choice=False,
            parallel_tool_calls=False,
            reasoning_return="none",
            **NO_EFFORT,
        ),
        variants=(
            GPT_OSS,
            Variant(
                r"glm",
                {"effort_path": "reasoning_effort", "efforts": levels("none"), "think_tags": ("think",)},
            ),
            Variant(r"qwen", {**STRICT_TEMPLATE, "think_tags": ("think",)}),
        ),
        sources=("inference-docs.cerebras.ai: Reasoning", "req_llm, Cerebras"),
    ),
    Profile(
        name="bedrock",
        title="Amazon Bedrock (OpenAI endpoint)",
        hosts=("bedrock-runtime.*.amazonaws.com", "bedrock-mantle.*.api.aws"),
        dialect=Dialect(
            max_tokens_field="max_completion_tokens",
            vision=False,
            tool_id_style="openai",
            reasoning_return="none",
            think_tags=("reasoning",),
            **NO_EFFORT,
        ),
        variants=(
            GPT_OSS,
            Variant(r"qwen|minimax", STRICT_TEMPLATE),
            Variant(r"mistral|ministral", MISTRAL_ORDER),
        ),
        sources=("AWS docs: Invoke a model with the OpenAI Chat Completions API",),
        note="Open-weight and OpenAI models only; the key is a Bedrock API key. Claude on Bedrock is not supported: it "
        "has another API (`invoke-with-response-stream`), whose frames are no server-sent events.",
    ),
)
