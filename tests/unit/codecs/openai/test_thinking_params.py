"""Thinking that the transcripts do not cover: levels, switches and budgets of the dialect."""

from __future__ import annotations

from typing import Any

import pytest

from proxyd.codecs.openai.dialect import Dialect
from proxyd.codecs.openai.request import RequestOptions, Translated, to_openai_request


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
        ({"output_config": {"effort": "high"}}, {"effort_path": None}, {}),
        (
            {"output_config": {"effort": "low"}},
            {"efforts": {"high": "h", "max": "m"}},
            {"reasoning_effort": "h"},
        ),
        ({"output_config": {"effort": "high"}}, {"efforts": {}}, {}),
        ({"output_config": {"effort": "high"}}, {"client_effort": False}, {}),
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
