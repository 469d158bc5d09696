"""The lower bound is below what real tokenizers count, for any mix of texts, and not useless."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxyd.codecs.translation.token_estimate import estimate_input_tokens
from proxyd.codecs.translation.token_lower_bound import least_input_tokens, least_text_tokens
from proxyd.codecs.translation.translated import run_to_end
from tests.support.effort import examples
from tests.support.paths import TRANSCRIPTS

TOKENS = TRANSCRIPTS / "tokens"


def bound_of(payload: dict[str, Any], enough: int = 10**9) -> int:
    return run_to_end(least_input_tokens(payload, enough))


ROWS: list[dict[str, Any]] = json.loads((TOKENS / "texts.json").read_text("utf-8"))
CONVERSATIONS = ("chinese", "code", "logs_and_languages")


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["kind"])
def test_bound_is_below_every_tokenizer(row: dict[str, Any]) -> None:
    assert least_text_tokens(row["text"]) <= min(row["tokens"].values())


@pytest.mark.parametrize(
    ("kind", "share"),
    [
        ("english prose", 0.85),
        ("python code", 0.5),
        ("log lines", 0.5),
        ("chinese, technical", 0.4),
        ("digits", 0.5),
    ],
)
def test_bound_is_not_useless(kind: str, share: float) -> None:
    (row,) = (row for row in ROWS if row["kind"] == kind)
    assert least_text_tokens(row["text"]) >= share * min(row["tokens"].values())


BLOCKS = st.lists(
    st.tuples(st.sampled_from(ROWS), st.sampled_from(["text", "result", "input", "tool"])), max_size=12
)


@given(mix=BLOCKS, repeats=st.integers(1, 20))
@settings(max_examples=examples(100), deadline=None)
def test_bound_is_below_every_tokenizer_for_any_mix(
    mix: list[tuple[dict[str, Any], str]], repeats: int
) -> None:
    content: list[dict[str, Any]] = []
    tools: list[dict[str, Any]] = []
    for number, (row, place) in enumerate(mix):
        text = row["text"]
        if place == "text":
            content += [{"type": "text", "text": text}] * repeats
        elif place == "result":
            content += [{"type": "tool_result", "tool_use_id": "t", "content": text}] * repeats
        elif place == "input":
            content += [
                {"type": "tool_use", "id": "t", "name": "Write", "input": {"content": text}}
            ] * repeats
        else:
            schema = {"type": "object", "properties": {}}
            tools += [{"name": f"t{number}", "description": text, "input_schema": schema}]
    payload = {"messages": [{"role": "user", "content": content}], "tools": tools}
    for tokenizer in ROWS[0]["tokens"]:
        count = sum(row["tokens"][tokenizer] * (1 if place == "tool" else repeats) for row, place in mix)
        assert bound_of(payload) <= 1 + count  # a chat template marks the role


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_bound_of_conversations(name: str) -> None:
    recorded = json.loads((TOKENS / f"{name}.json").read_text("utf-8"))
    request, counts = recorded["request"], recorded["input_tokens"]
    bound = bound_of(request)
    least = min(each[-1] for each in counts.values())
    assert 0.2 * least <= bound <= least
    assert bound <= estimate_input_tokens(request)


LONG = "some words " * 1000


@pytest.mark.parametrize(
    "fields",
    [
        {"messages": [{"role": "assistant", "content": [{"type": "thinking", "thinking": LONG}]}]},
        {"messages": [{"role": "user", "content": [{"type": "image", "source": {"data": LONG}}]}]},
        {"messages": [{"role": "user", "content": [{"type": "unknown", "text": LONG}]}]},
        {"messages": [{"role": "system", "content": LONG, "clear_at": "next_user_message"}]},
        {"tools": [{"name": "T", "description": LONG, "input_schema": {}, "defer_loading": True}]},
        {"tools": [{"type": "web_search_20250305", "name": "T", "description": LONG}]},
        {
            "messages": [{"role": "user", "content": LONG}],
            "context_management": {"edits": [{"type": "clear_tool_uses_20250919"}]},
        },
    ],
)
def test_what_an_upstream_may_leave_out_counts_nothing(fields: dict[str, Any]) -> None:
    assert bound_of(fields) <= 1


def test_edits_of_thinking_leave_the_bound() -> None:
    edits = {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]}
    payload = {"messages": [{"role": "user", "content": LONG}], "context_management": edits}
    assert bound_of(payload) == 2001


@pytest.mark.parametrize(
    "payload",
    [
        {},
        {"messages": 3, "system": 4, "tools": 5, "context_management": 6},
        {
            "messages": [
                None,
                {"content": [None, {"type": "text"}, {"type": "tool_use", "input": {"a": [float("nan")]}}]},
            ]
        },
        {"tools": [None, {"description": 3, "input_schema": {}}], "context_management": {"edits": 3}},
    ],
)
def test_malformed_payloads(payload: dict[str, Any]) -> None:
    assert bound_of(payload) == 1


def test_long_text_is_counted_in_slices_until_it_is_enough() -> None:
    """The event loop is not blocked, and a cut inside a word adds none."""
    words = "internationalisation " * 20_000
    payload = {"messages": [{"role": "user", "content": words}]}
    assert 19_000 <= bound_of(payload) <= 20_001
    assert len(list(least_input_tokens(payload, 10**9))) >= 10
    assert list(least_input_tokens(payload, 1)) == []
    assert bound_of(payload, 1) > 1
