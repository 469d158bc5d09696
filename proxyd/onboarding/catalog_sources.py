"""Read the tables from which catalog.yaml is made: OpenRouter's list of models, and LiteLLM's table of all vendors."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from proxyd.config.catalog import KnownModel
from proxyd.config.routes import Pricing
from proxyd.onboarding.model_list import read_models

__all__ = ["LITELLM_URL", "OPENROUTER_URL", "read_litellm", "read_openrouter", "read_table"]

OPENROUTER_URL = "https://openrouter.ai/api/v1/models"
LITELLM_URL = "https://raw.githubusercontent.com/BerriAI/litellm/main/model_prices_and_context_window.json"

#: LiteLLM's name of a vendor -> our profile.
_PROFILES = {
    "anthropic": "anthropic",
    "cerebras": "cerebras",
    "dashscope": "dashscope",
    "deepseek": "deepseek",
    "gemini": "gemini",
    "groq": "groq",
    "minimax": "minimax",
    "mistral": "mistral",
    "moonshot": "moonshot",
    "openai": "openai",
    "volcengine": "doubao",
    "xai": "xai",
    "zai": "zhipu",
}
#: Models for other things than a conversation with tools.
_OTHER = re.compile(
    r"^ft:|audio|search|deep-research|computer-use|tts|image|robotics|lyria|live|realtime|embed|transcribe|voxtral"
    r"|container|learnlm|cyber|daybreak|rosalind|experimental|-fim|router",
)


def read_table(payload: Any, date: str) -> list[KnownModel]:
    """Read a table of either form.

    Raises:
        ValueError: it has neither form, or no model.
    """
    if isinstance(payload, dict) and "data" not in payload:
        return read_litellm(payload, date)
    return read_openrouter(payload, date)


def read_openrouter(payload: Any, date: str) -> list[KnownModel]:
    """Return the models of OpenRouter's list that take tools.

    Raises:
        ValueError: it is no list of models.
    """
    return [
        KnownModel(
            vendor="openrouter",
            model=model.name,
            max_input_tokens=model.max_input_tokens,
            max_tokens=model.max_tokens,
            pricing=model.pricing,
            thinking=model.thinking,
            vision=model.vision,
            tools=model.tools,
            source=OPENROUTER_URL,
            date=date,
        )
        for model in read_models(payload)
        if model.tools is not False
    ]


def read_litellm(payload: Mapping[str, Any], date: str) -> list[KnownModel]:
    """Return the current models of the known vendors that hold conversations with tools.

    Args:
        date: of the table; models whose last day is before it are left out.

    Raises:
        ValueError: it has no such model.
    """
    found: dict[tuple[str, str], KnownModel] = {}
    for key, row in payload.items():
        if not isinstance(row, dict):
            continue
        vendor = _PROFILES.get(row.get("litellm_provider", ""))
        if vendor is None or row.get("mode") not in ("chat", "responses") or _OTHER.search(key):
            continue
        last_day = row.get("deprecation_date")
        if isinstance(last_day, str) and last_day <= date:
            continue
        if row.get("supports_function_calling") is not True or not isinstance(
            row.get("max_input_tokens"), int
        ):
            continue
        name = key.removeprefix(f"{row['litellm_provider']}/")
        found[vendor, name] = _known(vendor, name, row, date)
    if not found:
        raise ValueError("expected LiteLLM's table of models or OpenRouter's list; found no model in it")
    return list(found.values())


def _known(vendor: str, name: str, row: Mapping[str, Any], date: str) -> KnownModel:
    source = row.get("source")
    output = row.get("max_output_tokens")
    return KnownModel(
        vendor=vendor,
        model=name,
        max_input_tokens=row["max_input_tokens"],
        max_tokens=output if isinstance(output, int) else None,
        pricing=_pricing(row),
        # The table marks what a model can do, and says nothing of what it cannot.
        thinking=True if row.get("supports_reasoning") is True else None,
        vision=row.get("supports_vision") if isinstance(row.get("supports_vision"), bool) else None,
        tools=True,
        source=source if isinstance(source, str) and source.startswith("https://") else LITELLM_URL,
        date=date,
    )


def _pricing(row: Mapping[str, Any]) -> Pricing | None:
    """Return the prices of the shortest prompts; None where the table has none, or marks an unknown one by 0."""
    fields = {
        "input": "input_cost_per_token",
        "output": "output_cost_per_token",
        "cache_read": "cache_read_input_token_cost",
        "cache_write": "cache_creation_input_token_cost",
    }
    prices = {
        name: round(row[field] * 1_000_000, 6)
        for name, field in fields.items()
        if isinstance(row.get(field), (int, float)) and row[field] > 0
    }
    return Pricing(**prices) if "input" in prices and "output" in prices else None
