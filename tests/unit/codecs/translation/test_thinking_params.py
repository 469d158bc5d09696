"""Thinking by client state and model (tests/transcripts/thinking), and dialects that no profile has."""

from __future__ import annotations

from typing import Any

import pytest

from proxyd.codecs.openai.request import to_openai_request
from proxyd.codecs.translation.dialect import Dialect
from proxyd.codecs.translation.translated import RequestOptions, Translated
from proxyd.providers.registry import PROFILES, dialect_for
from tests.captures import captures, versions
from tests.support.rows import check_rows
from tests.support.thinking_matrix import MODELS, STATES, expected, thinking_fields


def translate(messages: list[Any], dialect: Dialect | None = None, **fields: Any) -> Translated:
    return to_openai_request(
        {"messages": messages, **fields}, dialect or Dialect(), RequestOptions("m", True)
    )


@pytest.mark.parametrize(
    ("fields", "dialect", "expected"),
    [
        ({"thinking": {"type": "disabled"}}, {"effort_path": None}, {}),
        ({"thinking": {"type": "between_tools"}}, {}, {"reasoning_effort": "minimal"}),
        ({"thinking": {"type": "odd"}}, {}, {}),
        ({"thinking": "on"}, {}, {}),
        ({"thinking": {"type": "enabled"}}, {}, {}),
        ({"output_config": {"effort": "odd"}}, {}, {}),
        ({"output_config": {"effort": "high"}}, {}, {"reasoning_effort": "minimal"}),
        ({"output_config": {"effort": "high"}}, {"effort_path": None}, {}),
        ({"thinking": {"type": "odd"}, "output_config": {"effort": "low"}}, {}, {"reasoning_effort": "low"}),
        (
            {"thinking": {"type": "adaptive"}, "output_config": {"effort": "low"}},
            {"efforts": {"high": "h", "max": "m"}},
            {"reasoning_effort": "h"},
        ),
        ({"thinking": {"type": "adaptive"}, "output_config": {"effort": "high"}}, {"efforts": {}}, {}),
        ({"thinking": {"type": "disabled"}}, {"efforts": {}}, {}),
        (
            {"thinking": {"type": "disabled"}},
            {"efforts": {"low": "l", "max": "m"}},
            {"reasoning_effort": "l"},
        ),
        ({"output_config": {"effort": "high"}}, {"client_effort": False}, {}),
        ({}, {"thinks_by_default": True}, {}),
        (
            {},
            {"thinks_by_default": True, "thinking_path": "think", "thinking_on": True, "thinking_off": False},
            {"think": False},
        ),
        (
            {"thinking": {"type": "adaptive"}},
            {"thinking_path": "a.b", "thinking_on": {"c": 1}},
            {"a": {"b": {"c": 1}}},
        ),
        (
            {"thinking": {"type": "enabled", "budget_tokens": 9}},
            {"efforts": {}, "budget_path": "b"},
            {"b": 1024},
        ),
    ],
)
def test_thinking(fields: dict[str, Any], dialect: dict[str, Any], expected: dict[str, Any]) -> None:
    body = translate([{"role": "user", "content": "hi"}], Dialect(**dialect), **fields).body
    for known in ("model", "messages", "stream", "stream_options"):
        body.pop(known)
    assert body == expected


def test_budget_and_effort_are_sent_together() -> None:
    dialect = Dialect(budget_path="thinking_budget")
    body = translate(
        [{"role": "user", "content": "hi"}], dialect, thinking={"type": "enabled", "budget_tokens": 5000}
    ).body
    assert (body["reasoning_effort"], body["thinking_budget"]) == ("medium", 5000)


# -- client state x model


def test_matrix() -> None:
    wanted = expected()

    def check(row: tuple[str, str]) -> None:
        profile, model = row
        found = {state: thinking_fields(profile, model, fields) for state, fields in STATES.items()}
        assert found == wanted[f"{profile} {model}"]

    check_rows(MODELS, check)


def test_effort_alone_is_off() -> None:
    """Whatever the effort: Claude Code keeps it when the user switches thinking off."""

    def check(row: tuple[str, str]) -> None:
        off = thinking_fields(*row, {"thinking": {"type": "disabled"}})
        for effort in ("minimal", "low", "medium", "high", "xhigh", "max"):
            assert thinking_fields(*row, {"output_config": {"effort": effort}}) == off

    check_rows(MODELS, check)


@pytest.mark.parametrize("version", versions())
@pytest.mark.parametrize("name", ["thinking_off", "web_search"])
def test_unthinking_calls_of_claude_code(name: str, version: str) -> None:
    """Thinking switched off by the user, and a side call, from recorded requests of the real client."""
    capture = captures(version)[name].body
    assert "thinking" not in capture
    explicit = {**capture, "thinking": {"type": "disabled"}}

    def check(row: tuple[str, str]) -> None:
        profile, model = row
        options, dialect = RequestOptions(model, True), dialect_for(PROFILES[profile], model, {})
        assert (
            to_openai_request(capture, dialect, options).body
            == to_openai_request(explicit, dialect, options).body
        )

    check_rows(MODELS, check)


def test_configured_effort_takes_precedence() -> None:
    options = RequestOptions("m", True, reasoning_effort="high")
    payload = {"messages": [{"role": "user", "content": "hi"}], "output_config": {"effort": "low"}}
    assert to_openai_request(payload, Dialect(), options).body["reasoning_effort"] == "high"


def test_off_that_cannot_be_asked_for_is_noted() -> None:
    messages = [{"role": "user", "content": "hi"}]
    notes = translate(messages, Dialect(efforts={"low": "low"}), output_config={"effort": "max"}).notes
    assert [note.what for note in notes] == ["lowered to the least effort"]
