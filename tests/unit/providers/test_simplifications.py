"""Ladder of simplifications: order, scope, and the refusals that end it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxyd import jsonio
from proxyd.config.routes import ModelRoute
from proxyd.providers.learned_quirks import MAX_CHANGES_PER_CALL, LearnedQuirks
from proxyd.providers.registry import PROFILES, dialect_for
from proxyd.providers.simplifications import simplification

TOOL = {
    "type": "function",
    "function": {
        "name": "Read",
        "parameters": {"type": "object", "properties": {"a": {"type": "string", "maxLength": 9}}},
    },
}
FULL: dict[str, Any] = {
    "model": "m",
    "messages": [
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]},
        {"role": "user", "content": "u"},
        {"role": "assistant", "content": "a", "reasoning_content": "r"},
        {"role": "system", "content": "s"},
    ],
    "tools": [TOOL],
    "tool_choice": "required",
    "parallel_tool_calls": False,
    "temperature": 0.5,
    "reasoning_effort": "high",
    "response_format": {"type": "json_schema"},
}
ROUTE = ModelRoute(model_id="m", model_name="x", api_base="http://127.0.0.1:1/v1")


def refusal(message: str) -> bytes:
    return jsonio.dumps({"error": {"message": message, "type": "invalid_request_error"}})


def ladder(
    message: str, sent: dict[str, Any], tries: int, settled: dict[str, Any] | None = None
) -> list[set[str]]:
    """The names of the quirks of each step of a vendor that refuses everything with one message."""
    steps: list[set[str]] = []
    known: dict[str, Any] = {}
    for left in range(tries, 0, -1):
        change = simplification(400, refusal(message), sent, known, settled or {}, left)
        if change is None:
            break
        steps.append(set(change.quirks))
        known.update(change.quirks)
    return steps


def test_rungs_are_ordered_by_loss() -> None:
    assert ladder("Provider returned error", FULL, 9) == [
        {"schema_style"},
        {"schema_style"},
        {"parallel_tool_calls", "sampling"},
        {"effort_path"},
        {"response_format"},
        {"named_tool_choice", "required_word"},
        {"leading_system_only", "strict_alternation"},
        {"reasoning_return"},
        {"vision"},
    ]


def test_the_last_try_takes_all_rungs_that_remain() -> None:
    steps = ladder("Provider returned error", FULL, 3)
    assert len(steps) == 3
    assert set().union(*steps) == set().union(*ladder("Provider returned error", FULL, 8))


@pytest.mark.parametrize(
    ("message", "first"),
    [
        ("Invalid tools", [{"schema_style"}, {"schema_style"}, {"named_tool_choice", "required_word"}]),
        (
            "messages[1] makes no sense",
            [{"leading_system_only", "strict_alternation"}, {"reasoning_return"}, {"vision"}],
        ),
    ],
)
def test_a_refusal_about_one_part_leaves_the_others(message: str, first: list[set[str]]) -> None:
    assert ladder(message, FULL, len(first)) == first


def test_schemas_that_are_simple_already_are_no_rung() -> None:
    simple = {
        "type": "function",
        "function": {"name": "Read", "parameters": {"type": "object", "properties": {}}},
    }
    assert (
        ladder("no", {"model": "m", "messages": [{"role": "user", "content": "u"}], "tools": [simple]}, 3)
        == []
    )


def test_quirks_of_the_entry_stay() -> None:
    assert ladder("Provider returned error", FULL, 8, {"schema_style": "full"})[0] == {
        "parallel_tool_calls",
        "sampling",
    }


@pytest.mark.parametrize(
    "message",
    [
        "",
        "Invalid API key provided",
        "Your credit balance is too low",
        "The model `x` does not exist",
        "This model's maximum context length is 8192 tokens, however you requested 9000 tokens",
        "Content Exists Risk",
        "The response was filtered due to the prompt triggering our content management policy",
        "Input data may contain inappropriate content",
        "Rate limit reached",
    ],
)
def test_refusals_that_no_simplification_changes(message: str) -> None:
    assert ladder(message, FULL, 3) == []


@pytest.mark.parametrize(
    ("status", "message", "simplifies"),
    [
        (422, "Unprocessable", True),
        (500, "Failed to initialize samplers: failed to parse grammar", True),
        (500, "CUDA error: out of memory", False),
        (401, "no", False),
        (403, "no", False),
        (404, "no", False),
        (429, "no", False),
        (503, "no", False),
    ],
)
def test_statuses(status: int, message: str, simplifies: bool) -> None:
    found = simplification(status, refusal(message), FULL, {}, {}, 3)
    assert (found is not None) is simplifies


@given(st.text(max_size=200), st.integers(1, 4))
def test_steps_are_quirks_and_never_drop_tools_or_text(message: str, tries: int) -> None:
    for step in ladder(message, FULL, tries):
        assert "max_tools" not in step
        change = dict.fromkeys(step)
        assert change


def test_every_step_is_a_valid_quirk() -> None:
    known: dict[str, Any] = {}
    for left in range(9, 0, -1):
        change = simplification(400, refusal("no"), FULL, known, {}, left)
        assert change is not None
        known.update(change.quirks)
    assert dialect_for(PROFILES["generic"], "m", known).schema_style == "plain"


def test_a_vendor_that_refuses_everything_teaches_nothing() -> None:
    learned = LearnedQuirks()
    tries = 0
    while (more := learned.after(400, refusal("no"), FULL, ROUTE)) is not None:
        learned, tries = more, tries + 1
    assert tries == MAX_CHANGES_PER_CALL
    assert learned.to_keep(refusal("no")).lines == ()


def test_only_what_helped_is_kept() -> None:
    first = LearnedQuirks().after(400, refusal("no"), FULL, ROUTE)
    assert first is not None
    second = first.after(400, refusal("no"), FULL, ROUTE)  # the same refusal: the first step did not help
    assert second is not None
    kept = second.to_keep()
    assert "schema_style" in second.quirks
    assert kept.quirks["schema_style"] == "plain"
    assert kept.quirks
    other = first.after(400, refusal("now another"), FULL, ROUTE)
    assert other is not None
    assert {"schema_style"} < set(other.to_keep().quirks)
    assert set(other.to_keep(refusal("now another")).quirks) == {"schema_style"}
