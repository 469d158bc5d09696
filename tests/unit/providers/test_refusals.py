"""Refusals in many words: each teaches within one call what the server takes, and nothing of the user is lost."""

from __future__ import annotations

import json
from typing import Any

import pytest

from proxyd.codecs.openai.request import run_to_end, translation
from proxyd.codecs.translation.translated import RequestOptions
from proxyd.config.routes import ModelRoute
from proxyd.providers.learned_quirks import LearnedQuirks
from proxyd.providers.refusals import Refusal, count_limit
from proxyd.providers.registry import dialect_for, profile_for
from tests.captures import captures, versions
from tests.support.vendors.reported import REPORTS
from tests.support.vendors.reports import OURS, Report, request_of

CAPTURES = captures(versions()[0])


def body_for(report: Report, request: dict[str, Any], route: ModelRoute) -> dict[str, Any]:
    quirks = {**report.quirks, **route.quirks}
    dialect = dialect_for(profile_for(route.api_base, "generic"), report.model, quirks)
    options = RequestOptions(model=report.model, stream=dialect.stream, max_tokens=route.max_tokens)
    sent: dict[str, Any] = json.loads(run_to_end(translation(request, dialect, options)).written())
    return sent


@pytest.mark.parametrize("report", REPORTS, ids=[report.name for report in REPORTS])
def test_refusal_teaches(report: Report) -> None:
    entry = ModelRoute(
        model_id="m", model_name=report.model, api_base="https://v.example/v1", provider="generic"
    )
    request = request_of(report, CAPTURES)
    learned, lines = LearnedQuirks(), []
    first = sent = body_for(report, request, entry)
    assert report.refuses(sent), "this request is not refused"
    error = json.dumps(report.envelope(report.words), ensure_ascii=False).encode()
    while report.refuses(sent):
        more = learned.after(report.status, error, sent, entry)
        assert more is not None, f"refused for good, after {lines}"
        learned, lines = more, [*lines, more.lines[-1]]
        assert len(lines) < report.most_tries
        sent = body_for(report, request, learned.applied_to(entry))
    assert len(sent.get("tools", ())) == len(first.get("tools", ())) or any(
        line.startswith(
            ("quirks: {max_tools", "quirks: {declares_called_tools", "quirks: {named_tool_choice")
        )
        for line in lines
    )
    for message in request["messages"]:
        content = message["content"]
        for block in [{"type": "text", "text": content}] if isinstance(content, str) else content:
            if block["type"] == "text":
                assert json.dumps(block["text"].strip())[1:-1] in json.dumps(
                    sent["messages"], ensure_ascii=True
                )


def test_reports_have_sources() -> None:
    assert all(report.source == OURS or report.source.startswith("https://") for report in REPORTS)
    assert sum(report.source != OURS for report in REPORTS) >= 20


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("array too long. Expected an array with maximum length 128, but got 135", 128),
        ("at most 4", 4),
        ("maximum number of items is 20", 20),
        ("the maximum allowed is 16", 16),
        ("最多支持 64 个", 64),
        ("not supported", None),
    ],
)
def test_count_limit(text: str, limit: int | None) -> None:
    assert count_limit(text) == limit


@pytest.mark.parametrize(
    ("text", "name", "is_named"),
    [
        ("Argument not supported on this model: reasoningEffort", "reasoning_effort", True),
        ("parallel tool calls are not supported", "parallel_tool_calls", True),
        ("unknown field `a`, expected one of `stream_options`, `stop`", "stream_options", False),
        ("the stream-options-like field", "stream_options", False),
    ],
)
def test_names_in_any_spelling(text: str, name: str, is_named: bool) -> None:
    assert Refusal(400, text, "", {name: 1}, {}).names(name) is is_named
