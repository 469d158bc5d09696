"""Rules that several vendors have in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.support.vendors import messages, parameters, schemas
from tests.support.vendors.engine import Body, Rule, rule

__all__ = [
    "KIMI_REASONING",
    "LENIENT",
    "MISTRAL_ORDER",
    "MOONSHOT_SCHEMAS",
    "OPENAI_SCHEMAS",
    "QWEN_TEMPLATE",
    "STRICT",
    "deepseek_reasoning",
    "is_on",
    "text_only",
    "thinks_unless",
]

CHAT_COMPLETIONS = (
    "https://github.com/openai/openai-python/blob/main/src/openai/types/chat/completion_create_params.py"
)

STRICT = rule("chat completions", CHAT_COMPLETIONS, parameters.chat_completions(other_fields=False))

LENIENT = rule("chat completions", CHAT_COMPLETIONS, parameters.chat_completions(other_fields=True))

OPENAI_SCHEMAS = rule("schemas", "ogx-ai/ogx#3602", schemas.openai)

MFJS = "https://github.com/MoonshotAI/walle/blob/main/docs/walle.md"

MOONSHOT_SCHEMAS = rule("schemas", MFJS, schemas.moonshot)


def thinks_unless(path: str, off: Any) -> Any:
    """Whether a model that thinks by default was left to it."""
    return lambda body: parameters.at_path(body, path) != off


def is_on(path: str) -> Any:
    """Whether a model that must be asked to think was asked."""
    return lambda body: parameters.at_path(body, path) is True


KIMI_REASONING = rule(
    "reasoning given back",
    "anomalyco/opencode#10996",
    messages.reasoning_given_back(
        "thinking is enabled but reasoning_content is missing in assistant tool call message at index {n}",
        thinks=thinks_unless("thinking.type", "disabled"),
    ),
    models=r"kimi-(k2\.[5-9]|k3|k2-thinking)",
)

DEEPSEEK_WORDS = "The `reasoning_content` in the thinking mode must be passed back to the API."


def deepseek_reasoning(thinks: Callable[[Body], bool]) -> Rule:
    """DeepSeek's models on the hosts of others."""
    return rule(
        "reasoning given back",
        "anomalyco/opencode#24722",
        messages.reasoning_given_back(DEEPSEEK_WORDS, thinks=thinks),
        models=r"deepseek",
    )


QWEN_TEMPLATE = rule(
    "one system message",
    "vllm-project/vllm#41114",
    messages.leading_system("System message must be at the beginning."),
    models=r"qwen|minimax",
)

MISTRAL_ORDER = rule("order of roles", "yetone/avante.nvim#2695", messages.mistral_order)


def text_only(words: str, source: str, models: str = "") -> tuple[Rule, ...]:
    return (
        rule("no images", source, messages.no_parts("image_url", words), models=models),
        rule(
            "no files", source, messages.no_parts("file", words.replace("image_url", "file")), models=models
        ),
    )
