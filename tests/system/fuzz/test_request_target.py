"""The fuzzing target for requests on its seeds, on the requests of all transcripts, and on what hypothesis makes up."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.effort import examples
from tests.support.paths import TRANSCRIPTS
from tests.system.fuzz.request_target import SEEDS, check

FINDINGS = sorted((Path(__file__).parent / "findings").glob("request-*.bin"))
REQUESTS = sorted(TRANSCRIPTS.rglob("*.request.json"))

#: Names that mean something in a request, and values that do.
_NAMES = st.sampled_from(
    [
        "model", "messages", "role", "content", "type", "text", "system", "tools", "tool_choice", "name", "input", "id",
        "input_schema", "properties", "tool_use_id", "thinking", "signature", "max_tokens", "stream", "metadata",
        "source", "data", "media_type", "url", "cache_control", "output_config", "stop_sequences", "is_error", "$ref",
        "anyOf", "required", "items", "enum", "budget_tokens",
    ]
)  # fmt: skip
_WORDS = st.sampled_from(
    [
        "user", "assistant", "system", "text", "image", "document", "tool_use", "tool_result", "thinking",
        "redacted_thinking", "base64", "url", "object", "string", "auto", "any", "tool", "none", "enabled", "disabled",
        "web_search_20250305", "#/$defs/x", "", "m", "claude-x", "\ud83d",
    ]
)  # fmt: skip
_VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | _WORDS | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_NAMES, inner, max_size=6),
    max_leaves=30,
)


@pytest.mark.parametrize(
    "data", [*SEEDS, *(path.read_bytes() for path in FINDINGS)], ids=lambda data: data[2:22]
)
def test_seeds_and_findings(data: bytes) -> None:
    for variant in range(80):
        check(bytes([variant, variant % 4]) + data[2:])


def test_the_requests_of_the_transcripts() -> None:
    assert len(REQUESTS) > 20
    for number, path in enumerate(REQUESTS):
        check(bytes([number % 256, number % 4]) + path.read_bytes())


@settings(max_examples=examples(300), deadline=None)
@given(st.binary(min_size=2, max_size=2), st.dictionaries(_NAMES, _VALUES, max_size=8))
def test_any_json(head: bytes, payload: dict[str, Any]) -> None:
    check(head + json.dumps(payload).encode())


@settings(max_examples=examples(100), deadline=None)
@given(st.binary(min_size=2, max_size=2), st.sampled_from(SEEDS), st.integers(0, 2000), st.binary(max_size=4))
def test_any_bytes(head: bytes, seed: bytes, at: int, put: bytes) -> None:
    body = seed[2:]
    at %= len(body)
    check(head + body[:at] + put + body[at + len(put) :])
