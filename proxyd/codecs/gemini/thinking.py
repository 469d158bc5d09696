"""Write whether and how much Gemini is to think: by level, or by budget for models before 3
(docs/spec/gemini.md#thinking). A request with both is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from proxyd.codecs.translation.dialect import Dialect
from proxyd.codecs.translation.thinking_params import Thinking, requested_thinking, write_thinking
from proxyd.codecs.translation.translation_notes import Notes

__all__ = ["BUDGET_PATH", "LEVEL_PATH", "write_thinking_config"]

#: Values of ``effort_path`` and ``budget_path`` in this protocol; None for models that have no such control.
LEVEL_PATH = "thinkingConfig.thinkingLevel"
BUDGET_PATH = "thinkingConfig.thinkingBudget"

#: Effort -> budget in tokens, as Google's OpenAI layer maps it (Gemini docs: OpenAI compatibility, Thinking).
_BUDGETS = {"minimal": 1024, "low": 1024, "medium": 8192}
_HIGH_BUDGET = 24576
#: Leaves the budget to the model.
_AUTOMATIC = -1


def write_thinking_config(
    payload: dict[str, Any], configured: str | None, dialect: Dialect, config: dict[str, Any], notes: Notes
) -> bool:
    """Write ``thinkingConfig`` into a ``generationConfig``.

    Args:
        configured: ``reasoning_effort`` of models.yaml.

    Returns:
        Whether the model will probably think.
    """
    wanted = requested_thinking(payload, configured, dialect, notes)
    if wanted.is_on is None and payload.get("thinking") is None and dialect.thinks_by_default:
        # As with Anthropic, a request without ``thinking`` asks for none. Its limit may leave no room for thoughts.
        wanted = Thinking(is_on=False)
    if dialect.budget_path is not None:
        thinks = _write_budget(wanted, dialect, config, notes)
    else:
        thinks = write_thinking(wanted, dialect, config, notes)
    thinking = config.get("thinkingConfig")
    if isinstance(thinking, dict):
        level = thinking.get("thinkingLevel")
        if isinstance(level, str):
            thinking["thinkingLevel"] = level.upper()  # as the official clients write it
    if wanted.is_on and _has_control(dialect) and dialect.reasoning_summary != "none":
        config["thinkingConfig"] = {**config.get("thinkingConfig", {}), "includeThoughts": True}
    return thinks


def _has_control(dialect: Dialect) -> bool:
    return dialect.effort_path is not None or dialect.budget_path is not None


def _write_budget(wanted: Thinking, dialect: Dialect, config: dict[str, Any], notes: Notes) -> bool:
    low, high = dialect.budget_range
    if wanted.is_on is None:
        return dialect.thinks_by_default
    if wanted.is_on:
        budget = wanted.budget
        if budget is None and wanted.effort is not None:
            budget = _BUDGETS.get(wanted.effort, _HIGH_BUDGET)
        budget = _AUTOMATIC if budget is None else min(max(budget, low), high)
    elif dialect.thinking_off is not None:
        budget = dialect.thinking_off
    else:
        budget = low
        notes.add("thinking", "lowered to the least budget", "the upstream cannot switch it off")
    thinking = config.get("thinkingConfig")
    config["thinkingConfig"] = {
        **(thinking if isinstance(thinking, Mapping) else {}),
        "thinkingBudget": budget,
    }
    return budget != 0
