"""Vendor profiles, and the differences that several vendors share.

``registry.py`` selects a profile; ``codecs/translation/dialect.py`` documents the fields of a dialect; the profiles are
in ``hosted.py`` and ``servers.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from proxyd.codecs.translation.dialect import Dialect
from proxyd.providers.claude_platforms import ClaudePlatform

__all__ = [
    "ANTHROPIC_ONLY",
    "DEEPSEEK_REASONING",
    "GPT_OSS",
    "GRAMMAR_SOURCE",
    "KIMI_REASONING",
    "KIMI_SOURCE",
    "MINIMAX_REASONING",
    "MISTRAL_ORDER",
    "MOONSHOT_SCHEMAS",
    "MOONSHOT_SCHEMAS_SOURCE",
    "NO_EFFORT",
    "SEARCH_WAYS",
    "STRICT_TEMPLATE",
    "STRICT_TEMPLATE_SOURCE",
    "THINK_TAGS",
    "THINK_TAGS_SOURCE",
    "Preference",
    "Profile",
    "Variant",
    "levels",
]


#: Ways in which upstreams search the web (`proxyd.providers.upstream_search`).
SEARCH_WAYS = ("openrouter", "responses", "glm", "gemini", "dashscope", "kimi")


@dataclass(frozen=True, slots=True)
class Variant:
    """Differences of some models of a vendor.

    Args:
        pattern: regular expression searched in the model's name, any case. Later variants win.
        changes: dialect field -> value.
        formats: name of a format -> further changes there, after those of the profile.
    """

    pattern: str
    changes: Mapping[str, Any]
    formats: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Preference:
    """The format of models that need one, used where an entry names none.

    Args:
        pattern: regular expression searched in the model's name, any case.
        format: its name.
        why: the reason, for ``claude-proxy check``.
    """

    pattern: str
    format: str
    why: str


@dataclass(frozen=True, slots=True)
class Profile:
    """One vendor or server.

    Args:
        name: value of ``provider:`` in models.yaml.
        title: its name in documents.
        hosts: patterns of the host of ``api_base``, or of ``host:port``.
        dialect: of its newest models.
        variants: of its other models.
        formats: formats beside Chat Completions that it is known to offer -> what differs in its dialect there, after
            the variants.
        preferences: models that need one of these formats; the first match counts.
        auth: ``bearer`` or ``api-key``: the header that carries the key in translated mode.
        omit: top-level fields that its Anthropic endpoint does not take, removed in direct mode.
        direct_auth: ``bearer`` or ``x-api-key`` where its Anthropic endpoint takes only that header; None keeps the
            header that the client used.
        searches: name of a format -> how the upstream is asked there to search the web, one of `SEARCH_WAYS`.
        claude: how it serves Claude, where not at the addresses of Anthropic's API.
        model_folder: what stands before a model's name in the addresses of Gemini's API.
        signer: what stands before a model's name in signatures, where another host serves the same model and cannot
            read them.
        keeps_unsigned_thinking: its Anthropic endpoint sends thinking blocks without a signature and expects them back.
        sources: documentation and public threads behind the values.
        note: a remark for users.
    """

    name: str
    title: str
    hosts: tuple[str, ...] = ()
    dialect: Dialect = field(default_factory=Dialect)
    variants: tuple[Variant, ...] = ()
    formats: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    preferences: tuple[Preference, ...] = ()
    auth: str = "bearer"
    omit: tuple[str, ...] = ()
    direct_auth: str | None = None
    searches: Mapping[str, str] = field(default_factory=dict)
    claude: ClaudePlatform | None = None
    model_folder: str = ""
    signer: str = ""
    keeps_unsigned_thinking: bool = False
    sources: tuple[str, ...] = ()
    note: str = ""


def levels(*levels: str, **renamed: str) -> dict[str, str]:
    """Return a map of effort levels: those with our names, and those that the vendor renames."""
    return {level: level for level in levels} | renamed


#: Templates that raise on a second system message, or on two user messages in a row.
STRICT_TEMPLATE: dict[str, Any] = {"leading_system_only": True, "strict_alternation": True}
STRICT_TEMPLATE_SOURCE = "Qwen's, MiniMax's and Mistral's templates: vllm#41114, ollama#17774, crush#279"

#: Rules of Mistral's templates, on any server.
MISTRAL_ORDER: dict[str, Any] = {**STRICT_TEMPLATE, "text_after_tool_joins_it": True}

#: Kimi requires reasoning_content on every assistant message with tool calls while it thinks, on any server.
KIMI_REASONING: dict[str, Any] = {
    "reasoning_return": "field",
    "reasoning_field": "reasoning_content",
    "reasoning_placeholder": ".",
}
KIMI_SOURCE = "reasoning_content missing: new-api#3121, opencode#10996, deer-flow#3043"

#: DeepSeek requires it too, and accepts an empty one.
DEEPSEEK_REASONING: dict[str, Any] = {
    "reasoning_return": "field",
    "reasoning_field": "reasoning_content",
    "reasoning_with_calls_only": True,
    "reasoning_placeholder": "",
}

#: Moonshot's validator refuses the whole request for one invalid schema, also behind other hosts.
MOONSHOT_SCHEMAS: dict[str, Any] = {"schema_style": "moonshot"}
MOONSHOT_SCHEMAS_SOURCE = "MoonshotAI/walle, page mfjs-spec; kimi-cli#1595, kimi-code#2661, pi-hindsight#550"

GRAMMAR_SOURCE = (
    "schemas as grammars: llama.cpp#19716, lemonade#2691, openclaw#115598, lmstudio-bug-tracker#2236"
)

#: What Claude Code sends to Anthropic and other vendors' Anthropic endpoints ignore or refuse (unconfirmed which of the
#: two for most; where it is ignored, nothing is lost). DeepSeek alone documents that it reads ``output_config``.
ANTHROPIC_ONLY = ("container", "context_management", "mcp_servers")

#: Families that write their reasoning between tags where the server has no parser for it. Only tags at the start of a
#: response count, so a server that parses them loses nothing.
THINK_TAGS = Variant(
    r"deepseek|(^|[/-])r1\b|qwq|qwen|minimax|glm|kimi|magistral|nemotron|hunyuan|ernie|thinking|reason",
    {"think_tags": ("think",)},
)
#: MiniMax writes them again after text, and wants them back.
MINIMAX_REASONING: dict[str, Any] = {
    "think_tags": ("think",),
    "think_tags_repeat": True,
    "reasoning_return": "tags",
}
THINK_TAGS_SOURCE = (
    "reasoning between tags: MiniMax docs, ollama#14820, sglang#7117; MiniMax wants it back: MiniMax-M2#51"
)

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
