"""How much each family of models is asked to think."""

from __future__ import annotations

from typing import Any

import pytest

from proxyd.codecs.formats import GEMINI
from proxyd.codecs.gemini.thinking import write_thinking_config
from proxyd.codecs.translation.translation_notes import Notes
from proxyd.providers.registry import PROFILES, dialect_for

ADAPTIVE = {"thinking": {"type": "adaptive"}}
OFF: dict[str, Any] = {"thinking": {"type": "disabled"}}


def config(
    model: str, payload: dict[str, Any], configured: str | None = None, **quirks: Any
) -> tuple[Any, bool]:
    made: dict[str, Any] = {}
    dialect = dialect_for(PROFILES["gemini"], model, quirks, GEMINI)
    thinks = write_thinking_config(payload, configured, dialect, made, Notes())
    return made.get("thinkingConfig"), thinks


def effort(level: str) -> dict[str, Any]:
    return {**ADAPTIVE, "output_config": {"effort": level}}


@pytest.mark.parametrize(
    ("model", "payload", "expected"),
    [
        ("gemini-3-pro-preview", effort("high"), {"thinkingLevel": "HIGH", "includeThoughts": True}),
        ("gemini-3-pro-preview", effort("medium"), {"thinkingLevel": "LOW", "includeThoughts": True}),
        ("gemini-3-flash-preview", effort("medium"), {"thinkingLevel": "MEDIUM", "includeThoughts": True}),
        ("gemini-3-flash-preview", effort("max"), {"thinkingLevel": "HIGH", "includeThoughts": True}),
        ("gemini-3-flash-preview", ADAPTIVE, {"includeThoughts": True}),
        ("gemini-3-flash-preview", OFF, {"thinkingLevel": "MINIMAL"}),
        ("gemini-3-flash-preview", {}, {"thinkingLevel": "MINIMAL"}),
        ("gemini-3-pro-preview", {}, {"thinkingLevel": "LOW"}),
        ("gemini-4-pro", effort("high"), {"thinkingLevel": "HIGH", "includeThoughts": True}),
        ("gemini-flash-latest", effort("low"), {"thinkingLevel": "LOW", "includeThoughts": True}),
        ("gemini-2.5-flash", effort("low"), {"thinkingBudget": 1024, "includeThoughts": True}),
        ("gemini-2.5-flash", effort("medium"), {"thinkingBudget": 8192, "includeThoughts": True}),
        ("gemini-2.5-flash", effort("xhigh"), {"thinkingBudget": 24576, "includeThoughts": True}),
        ("gemini-2.5-flash", ADAPTIVE, {"thinkingBudget": -1, "includeThoughts": True}),
        (
            "gemini-2.5-flash",
            {"thinking": {"type": "enabled", "budget_tokens": 31999}},
            {"thinkingBudget": 24576, "includeThoughts": True},
        ),
        (
            "gemini-2.5-flash-lite",
            {"thinking": {"type": "enabled", "budget_tokens": 100}},
            {"thinkingBudget": 512, "includeThoughts": True},
        ),
        ("gemini-2.5-flash-lite", OFF, {"thinkingBudget": 0}),
        ("gemini-2.5-flash", {}, {"thinkingBudget": 0}),
        ("gemini-2.5-pro", OFF, {"thinkingBudget": 128}),
        ("gemini-2.0-flash", effort("high"), None),
        ("gemini-2.0-flash", {}, None),
    ],
)
def test_level_or_budget(model: str, payload: dict[str, Any], expected: Any) -> None:
    made, _ = config(model, payload)
    assert made == expected
    assert made is None or not made.keys() >= {"thinkingLevel", "thinkingBudget"}


@pytest.mark.parametrize("model", ["gemini-3-pro", "gemini-2.5-pro"])
def test_a_kind_of_thinking_that_nobody_knows_is_left_to_the_model(model: str) -> None:
    assert config(model, {"thinking": {"type": "new"}}) == (None, True)


def test_the_entry_decides_before_the_client() -> None:
    assert config("gemini-2.5-pro", effort("high"), "low")[0]["thinkingBudget"] == 1024
    assert config("gemini-3-flash", effort("high"), "none")[0] == {"thinkingLevel": "MINIMAL"}


def test_whether_it_thinks() -> None:
    assert config("gemini-2.5-flash", OFF)[1] is False
    assert config("gemini-2.5-pro", OFF)[1] is True
    assert config("gemini-2.0-flash", {})[1] is False


def test_thoughts_are_not_asked_for_where_they_are_refused() -> None:
    made, _ = config("gemini-3-pro", effort("high"), reasoning_summary="none")
    assert made == {"thinkingLevel": "HIGH"}
    assert config("gemini-3-pro", effort("high"), effort_path=None)[0] is None
    assert config("gemini-2.5-pro", effort("high"), budget_path=None)[0] is None
