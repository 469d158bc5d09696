"""Profiles of Gemini, at Google's API and on Vertex AI."""

from __future__ import annotations

from base64 import b64encode
from typing import Any

from proxyd.codecs.gemini.thinking import BUDGET_PATH
from proxyd.codecs.translation.dialect import Dialect
from proxyd.providers.claude_platforms import VERTEX
from proxyd.providers.profile import (
    NO_EFFORT,
    Profile,
    Variant,
    levels,
)

__all__ = ["GOOGLE"]

#: Gemini's own API: models before 3 take any temperature, and images beside results alone.
_GEMINI_BEFORE_3: dict[str, dict[str, Any]] = {
    "gemini": {"sampling": ("temperature", "top_p", "top_k"), "images_in_tool_results": False}
}


def _budget(least: int, most: int, *, off: int | None) -> dict[str, dict[str, Any]]:
    """Return the switches of a Gemini model that takes a budget in place of a level; `off` None: it always thinks."""
    return {
        "gemini": {
            "effort_path": None,
            "budget_path": BUDGET_PATH,
            "budget_range": (least, most),
            "thinking_off": off,
        }
    }


#: For calls that the model has not made.
_GEMINI_PLACEHOLDER = "skip_thought_signature_validator"
#: Gemini's models, at AI Studio and at Vertex AI.
_GEMINI = Dialect(
    leading_system_only=True,
    parallel_tool_calls=False,
    tool_names_start_with_letter=True,
    tool_message_names=True,
    schema_style="gemini",
    efforts=levels("low", "medium", "high", none="minimal"),
    reasoning_return="none",
    thought_signatures=True,
    thought_signature_placeholder=_GEMINI_PLACEHOLDER,
    think_tags=("thought",),
)
_GEMINI_VARIANTS = (
    Variant(r"gemini-(1|2\.0)", NO_EFFORT, {"gemini": {"thinks_by_default": False}}),
    Variant(
        r"gemma-[123]",
        {**NO_EFFORT, "thought_signature_placeholder": None},
        {"gemini": {**_GEMINI_BEFORE_3["gemini"], "thinks_by_default": False, "system_role": "user"}},
    ),
    Variant(r"gemini-[12]", {"thought_signature_placeholder": None}, _GEMINI_BEFORE_3),
    Variant(
        r"gemini-3[\d.]*-pro|gemini-3\.[7-9]",
        {"efforts": levels("low", "medium", "high", none="low")},
    ),
    Variant(r"gemini-3-pro", {"efforts": levels("low", "high", none="low")}),
    Variant(r"gemini-2\.5", {"efforts": levels("none", "low", "medium", "high")}, _budget(0, 24576, off=0)),
    Variant(r"gemini-2\.5-flash-lite", {}, _budget(512, 24576, off=0)),
    Variant(
        r"gemini-2\.5-pro",
        {"efforts": levels("low", "medium", "high")},
        _budget(128, 32768, off=None),
    ),
)
_GEMINI_API: dict[str, dict[str, Any]] = {
    "gemini": {"thinks_by_default": True, "sampling": ("top_p", "top_k")}
}
_GEMINI_SOURCES = (
    "continue#8865",
    "gemini-3-pro takes low and high alone: opencode-gemini-auth#14; results without a name are refused: "
    "inference-gateway#181, hermes-agent#19728",
    "google-genai 3.6.1, types; Gemini docs: Gemini 3 Developer Guide (temperature), Thinking (budgets)",
)

GOOGLE = (
    Profile(
        name="gemini",
        searches={"gemini": "gemini"},
        title="Gemini",
        hosts=("generativelanguage.googleapis.com",),
        dialect=_GEMINI,
        variants=_GEMINI_VARIANTS,
        formats=_GEMINI_API,
        sources=(
            "Gemini docs: OpenAI compatibility; Thought signatures; Function calling (Schema)",
            *_GEMINI_SOURCES,
            "Gemma takes no signatures: hermes-agent#84707; no system instruction: rig#788",
        ),
        note="Chat Completions at `/v1beta/openai`: schemas are narrowed to Gemini's subset; thought signatures go "
        "back with their calls. `format: gemini` at `/v1beta` is Gemini's own API, with whole schemas, thoughts and "
        "images in results.",
    ),
    Profile(
        name="vertex",
        searches={"gemini": "gemini"},
        title="Google Vertex AI",
        hosts=(
            "aiplatform.googleapis.com",
            "*-aiplatform.googleapis.com",
            "aiplatform.*.rep.googleapis.com",
        ),
        dialect=_GEMINI,
        variants=(
            # Models of others at the same address.
            Variant(
                r"^(?!google/|models/|tunedModels/)[\w.-]+/",
                {
                    "thought_signatures": False,
                    "thought_signature_placeholder": None,
                    "think_tags": ("think",),
                },
            ),
            *_GEMINI_VARIANTS,
            # Bytes in base64.
            Variant(
                r"gemini-(?![12]\b)",
                {},
                {
                    "gemini": {
                        "thought_signature_placeholder": b64encode(_GEMINI_PLACEHOLDER.encode()).decode()
                    }
                },
            ),
        ),
        formats=_GEMINI_API,
        omit=("container", "mcp_servers", "output_config", "service_tier", "speed"),
        direct_auth="bearer",
        claude=VERTEX,
        model_folder="publishers/google/models/",
        signer="vertex/",
        sources=(
            "Vertex AI docs: Call Vertex AI models by using the OpenAI library; REST, publishers.models",
            *_GEMINI_SOURCES,
            "thought signatures of AI Studio are refused, placeholders are base64: LiteLLM 1.110",
            "Claude: anthropic Python SDK 2.12, lib/vertex; fields that are refused: Kong/developer.konghq.com#5952; "
            "betas: LiteLLM 1.110, claude-code#12429, claude-code#34802, claude-code#21625",
        ),
        note="`api_base` names project and location: `https://LOCATION-aiplatform.googleapis.com/v1/projects/PROJECT/"
        "locations/LOCATION`. There `format: gemini` calls Gemini, `direct: true` calls Claude; with "
        "`/endpoints/openapi` behind it, it is Chat Completions. `access_token` is the credential "
        "([keys.md](keys.md#google)).",
    ),
)
