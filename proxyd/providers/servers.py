"""Profiles of self-hosted servers, and `GENERIC` for unknown ones.

They serve any model: variants by the model's name set what its template requires, and the default is the safe form.
"""

from __future__ import annotations

from typing import Any

from proxyd.codecs.translation.dialect import Dialect
from proxyd.providers.profile import (
    DEEPSEEK_REASONING,
    GPT_OSS,
    GRAMMAR_SOURCE,
    KIMI_REASONING,
    KIMI_SOURCE,
    MINIMAX_REASONING,
    MISTRAL_ORDER,
    MOONSHOT_SCHEMAS,
    MOONSHOT_SCHEMAS_SOURCE,
    STRICT_TEMPLATE,
    STRICT_TEMPLATE_SOURCE,
    THINK_TAGS,
    THINK_TAGS_SOURCE,
    Profile,
    Variant,
    levels,
)

__all__ = ["GENERIC", "SERVERS"]

#: Common to servers that run any model the user loads.
_LOCAL: dict[str, Any] = {**STRICT_TEMPLATE, "reasoning_return": "received", "schema_style": "grammar"}

SERVERS = (
    Profile(
        name="ollama",
        title="Ollama",
        hosts=("*:11434", "ollama.com", "*.ollama.com"),
        dialect=Dialect(
            **_LOCAL,
            efforts=levels("none", "low", "medium", "high"),
            client_effort=False,
            think_tags=("think",),
            text_tool_calls="always",
        ),
        variants=(GPT_OSS,),
        formats={
            "openai-responses": {
                "efforts": levels("none", "low", "medium", "high", "max"),
                "named_tool_choice": False,
                "required_word": "auto",
                "parallel_tool_calls": False,
            }
        },
        direct_auth="bearer",
        keeps_unsigned_thinking=True,
        sources=(
            "Ollama docs: OpenAI compatibility; ollama#14820",
            "an effort is 400 for models that do not think: openclaude#1371",
            "Responses: ollama, openai/responses.go (no tool_choice; encrypted_content is the thoughts as text)",
            STRICT_TEMPLATE_SOURCE,
            GRAMMAR_SOURCE,
        ),
        note="Thinking models think by default; `reasoning_effort` of models.yaml says how much.",
    ),
    Profile(
        name="vllm",
        title="vLLM",
        dialect=Dialect(
            **STRICT_TEMPLATE,
            schema_style="grammar",
            sampling=("temperature", "top_p", "top_k"),
            stop_limit=None,
            thinking_path="chat_template_kwargs.enable_thinking",
            thinking_on=True,
            thinking_off=False,
            effort_path=None,
            reasoning_return="field",
            reasoning_field="reasoning",
            think_tags=("think",),
            text_tool_calls="always",
            prefill_body={"continue_final_message": True, "add_generation_prompt": False},
        ),
        variants=(
            GPT_OSS,
            Variant(r"deepseek-v(3\.[1-9]|[4-9])|kimi", {"thinking_path": "chat_template_kwargs.thinking"}),
            Variant(
                r"mistral|magistral|devstral|ministral",
                {**MISTRAL_ORDER, "tool_id_style": "mistral", "thinking_path": None},
            ),
        ),
        formats={
            "openai-responses": {
                "reasoning_items": "content",
                "reasoning_item_ids": True,
                "images_in_tool_results": False,
            }
        },
        sources=(
            "Responses: vLLM, entrypoints/openai/responses/utils.py (reasoning goes back as text, with an id)",
            "vLLM docs: Reasoning outputs; Interleaved thinking; OpenAI-compatible server",
            "vllm#25054, vllm#9209",
            "a Mistral tokenizer takes no chat_template_kwargs: vllm#38560, free-claude-code#130",
            "vLLM, backend_xgrammar.py",
            STRICT_TEMPLATE_SOURCE,
        ),
        note="Tools need `--enable-auto-tool-choice --tool-call-parser` on the server.",
    ),
    Profile(
        name="sglang",
        title="SGLang",
        dialect=Dialect(
            **STRICT_TEMPLATE,
            schema_style="grammar",
            sampling=("temperature", "top_p", "top_k"),
            stop_limit=None,
            thinking_path="chat_template_kwargs.enable_thinking",
            thinking_on=True,
            thinking_off=False,
            effort_path=None,
            reasoning_return="field",
            reasoning_field="reasoning_content",
            think_tags=("think",),
            text_tool_calls="always",
        ),
        variants=(
            GPT_OSS,
            Variant(r"deepseek-v(3\.[1-9]|[4-9])|kimi", {"thinking_path": "chat_template_kwargs.thinking"}),
            Variant(r"mistral|magistral|devstral|ministral", MISTRAL_ORDER),
        ),
        sources=("SGLang docs: Reasoning parser", "sglang#7117", STRICT_TEMPLATE_SOURCE),
        note="Tools need `--tool-call-parser`, separate reasoning `--reasoning-parser`.",
    ),
    Profile(
        name="llamacpp",
        title="llama.cpp server",
        dialect=Dialect(
            **STRICT_TEMPLATE,
            schema_style="grammar",
            sampling=("temperature", "top_p", "top_k"),
            stop_limit=None,
            body_with_tools={"parallel_tool_calls": True},
            named_tool_choice=False,
            prefill_body={"continue_final_message": True, "add_generation_prompt": False},
            thinking_path="chat_template_kwargs.enable_thinking",
            thinking_on=True,
            thinking_off=False,
            effort_path=None,
            reasoning_return="field",
            reasoning_field="reasoning_content",
            think_tags=("think",),
            text_tool_calls="always",
        ),
        variants=(
            Variant(
                r"gpt-oss",
                {
                    "thinking_path": None,
                    "effort_path": "chat_template_kwargs.reasoning_effort",
                    "efforts": levels("low", "medium", "high"),
                },
            ),
            Variant(r"mistral|magistral|devstral|ministral", MISTRAL_ORDER),
        ),
        sources=(
            "llama.cpp: tools/server/README.md",
            "llama.cpp b10434, tried: an object as tool_choice counts as auto; a prefilled response is repeated",
            STRICT_TEMPLATE_SOURCE,
            GRAMMAR_SOURCE,
        ),
        note="Start the server with `--jinja`; its parallel tool calls are off unless asked for.",
    ),
    Profile(
        name="lmstudio",
        title="LM Studio",
        hosts=("*:1234",),
        dialect=Dialect(
            **_LOCAL,
            sampling=("temperature", "top_p", "top_k"),
            named_tool_choice=False,
            client_effort=False,
            efforts=levels("low", "medium", "high"),
            think_tags=("think",),
            text_tool_calls="always",
        ),
        variants=(GPT_OSS, Variant(r"mistral|magistral|devstral|ministral", MISTRAL_ORDER)),
        formats={
            "openai-responses": {
                "sampling": ("temperature", "top_p"),
                "reasoning_items": "none",
                "images_in_tool_results": False,
            }
        },
        sources=(
            "LM Studio docs: API changelog",
            "tool_choice takes words alone: lmstudio-bug-tracker#670",
            "Responses: lmstudio-bug-tracker#1064, #1106 (unknown items, and images without detail, are 400), pi#4193",
            STRICT_TEMPLATE_SOURCE,
            GRAMMAR_SOURCE,
        ),
    ),
)

GENERIC = Profile(
    name="generic",
    title="Any other",
    variants=(
        THINK_TAGS,
        Variant(r"qwen|minimax", STRICT_TEMPLATE),
        Variant(r"minimax", MINIMAX_REASONING),
        Variant(r"gemini", {"tool_message_names": True}),
        Variant(r"gemini-3-pro", {"efforts": levels("low", "high", none="low")}),
        Variant(r"mistral|magistral|devstral|ministral", {**MISTRAL_ORDER, "tool_id_style": "mistral"}),
        Variant(r"kimi", {**KIMI_REASONING, **MOONSHOT_SCHEMAS}),
        Variant(r"deepseek-v(3\.[1-9]|[4-9])", DEEPSEEK_REASONING),
        Variant(
            r"glm-(5\.[3-9]|[6-9])", {"efforts": levels("low", "high", "max", medium="high", xhigh="max")}
        ),
    ),
    sources=(
        "protocol of OpenAI's Chat Completions",
        STRICT_TEMPLATE_SOURCE,
        MOONSHOT_SCHEMAS_SOURCE,
        KIMI_SOURCE,
        THINK_TAGS_SOURCE,
        "what DeepSeek's and GLM's models want wherever they are served: see there",
    ),
    note="Reasoning goes back in the field it came in.",
)
