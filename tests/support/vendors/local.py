"""The servers that people run themselves."""

from __future__ import annotations

from typing import Any

from tests.support.vendors import messages, parameters, schemas
from tests.support.vendors.engine import Vendor, rule
from tests.support.vendors.shared import LENIENT, MISTRAL_ORDER, QWEN_TEMPLATE

__all__ = ["LOCAL"]

MISTRAL = r"mistral|devstral|ministral"
TEMPLATES = (
    QWEN_TEMPLATE,
    MISTRAL_ORDER.only(MISTRAL),
    rule(
        "alternating roles",
        "charmbracelet/crush#279",
        messages.alternating_roles(
            "After the optional system message, conversation roles must alternate user/assistant/user/assistant/..."
        ),
        models=MISTRAL,
    ),
)
GRAMMAR = rule("schemas", "ggml-org/llama.cpp#19716", schemas.grammar)


def vllm_envelope(status: int, message: str, param: str | None) -> Any:
    return {"error": {"message": message, "type": "BadRequestError", "param": param, "code": status}}


def llamacpp_envelope(status: int, message: str, param: str | None) -> Any:
    kind = "server_error" if status >= 500 else "invalid_request_error"
    return {"error": {"code": status, "message": message, "type": kind}}


def lmstudio_envelope(status: int, message: str, param: str | None) -> Any:
    return {"error": message}


def _is_guided(body: Any) -> str | None:
    """Grammars are made for forced tools only."""
    choice = body.get("tool_choice")
    return schemas.grammar(body) if isinstance(choice, dict) or choice == "required" else None


LOCAL = (
    Vendor(
        "ollama",
        ("qwen3.8-27b", "qwen2.5-coder:7b", "gpt-oss:20b", "devstral-2"),
        (
            LENIENT,
            GRAMMAR,
            rule(
                "no thinking",
                "ollama/ollama#14820",
                lambda body: (
                    f'"{body["model"]}" does not support thinking'
                    if body.get("reasoning_effort") not in (None, "none")
                    else None
                ),
                models=r"qwen2\.5|devstral",
            ),
            rule(
                "efforts",
                "https://docs.ollama.com/api/openai-compatibility",
                parameters.only_values(
                    "reasoning_effort",
                    ("none", "low", "medium", "high"),
                    'invalid reasoning value: "{value}" (must be "high", "medium", "low", or "none")',
                ),
            ),
        ),
        key_header="",
    ),
    Vendor(
        "vllm",
        ("Qwen/Qwen3.8-27B", "mistralai/Devstral-2-123B", "openai/gpt-oss-120b", "moonshotai/Kimi-K2.6"),
        (
            LENIENT,
            rule(
                "no template arguments",
                "vllm-project/vllm#38560",
                parameters.no_field(
                    "chat_template_kwargs", "chat_template is not supported for Mistral tokenizers."
                ),
                models=MISTRAL,
            ),
            rule(
                "tool ids",
                "vllm-project/vllm#12332",
                messages.tool_ids(
                    r"[A-Za-z0-9]{9}", "Tool call id was {id} but must be a-z, A-Z, 0-9, with a length of 9."
                ),
                models=MISTRAL,
            ),
            *TEMPLATES,
            rule(
                "schemas",
                "https://docs.vllm.ai/en/latest/features/structured_outputs/",
                _is_guided,
            ),
            rule(
                "efforts",
                "https://docs.vllm.ai/en/latest/api/vllm/entrypoints/openai/protocol/",
                parameters.only_values(
                    "reasoning_effort", ("low", "medium", "high"), "Input should be 'low', 'medium' or 'high'"
                ),
                models=r"gpt-oss",
            ),
        ),
        vllm_envelope,
        key_header="",
    ),
    Vendor(
        "sglang",
        ("Qwen/Qwen3.8-27B", "mistralai/Devstral-2-123B", "openai/gpt-oss-120b"),
        (
            LENIENT,
            *TEMPLATES,
            rule("schemas", "https://docs.sglang.ai/advanced_features/structured_outputs.html", _is_guided),
        ),
        vllm_envelope,
        key_header="",
    ),
    Vendor(
        "llamacpp",
        ("qwen3.8-27b", "devstral-2", "gpt-oss-20b"),
        (
            LENIENT,
            rule("schemas", "ggml-org/llama.cpp#19716", schemas.grammar),
            *(
                rule(each.name, each.source, each.finds, status=500, models=each.models or MISTRAL)
                for each in TEMPLATES
            ),
        ),
        llamacpp_envelope,
        key_header="",
    ),
    Vendor(
        "lmstudio",
        ("qwen3.8-27b", "devstral-2", "gpt-oss-20b"),
        (
            LENIENT,
            rule("schemas", "lmstudio-ai/lmstudio-bug-tracker#2236", schemas.grammar),
            rule(
                "named tool",
                "lmstudio-ai/lmstudio-bug-tracker#670",
                parameters.forced_choice(
                    "Invalid tool_choice type: 'object'. Supported string values: none, auto, required",
                    named_only=True,
                ),
            ),
            *TEMPLATES,
        ),
        lmstudio_envelope,
        key_header="",
    ),
)
