"""What a vendor profile is, and the differences that several vendors share.

How one is chosen: ``quirks.py``; what each field of a dialect means: ``codecs/dialect.py``; the profiles:
``hosted.py`` and ``servers.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from proxyd.codecs.openai.dialect import Dialect

__all__ = [
    "ANTHROPIC_ONLY",
    "DEEPSEEK_REASONING",
    "GPT_OSS",
    "GRAMMAR_SOURCE",
    "KIMI_REASONING",
    "KIMI_SOURCE",
    "MISTRAL_ORDER",
    "MOONSHOT_SCHEMAS",
    "MOONSHOT_SCHEMAS_SOURCE",
    "NO_EFFORT",
    "STRICT_TEMPLATE",
    "STRICT_TEMPLATE_SOURCE",
    "Profile",
    "Variant",
    "levels",
]


@dataclass(frozen=True, slots=True)
class Variant:
    """What differs for some models of a vendor.

    Args:
        pattern: regular expression searched in the model's name, any case. Later variants win.
        changes: dialect field -> value.
    """

    pattern: str
    changes: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Profile:
    """One vendor or server.

    Args:
        name: what ``provider:`` in models.yaml says.
        title: what people call it.
        hosts: patterns of the host of ``api_base``, or of ``host:port``.
        dialect: for its newest models.
        variants: for the others.
        auth: ``bearer`` or ``api-key``: the header that carries the key in translated mode.
        omit: top-level fields that its Anthropic endpoint does not take, cut out in direct mode.
        direct_auth: ``bearer`` or ``x-api-key`` where its Anthropic endpoint takes the key in that form alone; None
            sends it in the form the client used.
        keeps_unsigned_thinking: its Anthropic endpoint sends thinking blocks without a signature, and wants them back.
        sources: pages and public threads that the rest was taken from.
        note: what a user should know.
    """

    name: str
    title: str
    hosts: tuple[str, ...] = ()
    dialect: Dialect = field(default_factory=Dialect)
    variants: tuple[Variant, ...] = ()
    auth: str = "bearer"
    omit: tuple[str, ...] = ()
    direct_auth: str | None = None
    keeps_unsigned_thinking: bool = False
    sources: tuple[str, ...] = ()
    note: str = ""


def levels(*levels: str, **renamed: str) -> dict[str, str]:
    """Levels under our own names, and those that the vendor calls otherwise."""
    return {level: level for level in levels} | renamed


#: Templates that raise on a second system message, or on two user messages in a row.
STRICT_TEMPLATE: dict[str, Any] = {"leading_system_only": True, "strict_alternation": True}
STRICT_TEMPLATE_SOURCE = "Qwen's, MiniMax's and Mistral's templates: vllm#41114, ollama#17774, crush#279"

#: Mistral's rules hold wherever its templates are served.
MISTRAL_ORDER: dict[str, Any] = {**STRICT_TEMPLATE, "text_after_tool_joins_it": True}

#: Kimi wants reasoning_content on every assistant message with tool calls while it thinks, wherever it is
#: served.
KIMI_REASONING: dict[str, Any] = {
    "reasoning_return": "field",
    "reasoning_field": "reasoning_content",
    "reasoning_placeholder": ".",
}
KIMI_SOURCE = "reasoning_content missing: new-api#3121, opencode#10996, deer-flow#3043"

#: So does DeepSeek, which takes an empty one.
DEEPSEEK_REASONING: dict[str, Any] = {
    "reasoning_return": "field",
    "reasoning_field": "reasoning_content",
    "reasoning_with_calls_only": True,
    "reasoning_placeholder": "",
}

#: Moonshot's validator refuses all tools for one schema that it does not take, and it stands behind others' hosts too.
MOONSHOT_SCHEMAS: dict[str, Any] = {"schema_style": "moonshot"}
MOONSHOT_SCHEMAS_SOURCE = "MoonshotAI/walle, page mfjs-spec; kimi-cli#1595, kimi-code#2661, pi-hindsight#550"

GRAMMAR_SOURCE = (
    "schemas as grammars: llama.cpp#19716, lemonade#2691, openclaw#115598, lmstudio-bug-tracker#2236"
)

#: What Claude Code sends to Anthropic and other vendors' Anthropic endpoints ignore or refuse (unconfirmed which of the
#: two for most; where it is ignored, nothing is lost). DeepSeek alone documents that it reads ``output_config``.
ANTHROPIC_ONLY = ("container", "context_management", "mcp_servers")

NO_EFFORT: dict[str, Any] = {"effort_path": None}

GPT_OSS = Variant(
    r"gpt-oss",
    {
        "thinking_path": None,
        "effort_path": "reasoning_effort",
        "efforts": levels("low", "medium", "high"),
        "client_effort": True,
    },
)
