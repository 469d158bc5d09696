"""Short lines for terminals of 80 and 100 columns, and logfmt."""

from __future__ import annotations

import json
import os
import pty
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog import DropEvent

from proxyd.codecs.anthropic.usage import Usage
from proxyd.config.routes import Pricing
from proxyd.logs import setup
from proxyd.logs.console import ConsoleRenderer, clock_time, columns_of, render_logfmt
from proxyd.telemetry.access_log import call_facts, log_calls
from tests.support.log_text import logging_to_text
from tests.support.observing import finished

ID = "req_b3Qm0u4Xn1abcdefghijkl"
URL = "https://api.moonshot.ai/v1/chat/completions"
PRICED = {"usage": Usage(21_400, 240, 21_500, 0, None), "pricing": Pricing(1, 10, 0.1, None)}
REFUSED = {
    "outcome": "refused",
    "status": 429,
    "error_type": "rate_limit_error",
    "error": "rate limit reached for this organisation on tokens per minute",
    "address": URL,
}


def line_of(columns: int = 100, *, colors: bool = False, **fields: Any) -> str:
    record = finished(**{"request_id": ID, "model": "kimi", "route": "kimi", **fields})
    event = {"event": "call.finished", "timestamp": "12:04:31", "level": "info", **call_facts(record)}
    return ConsoleRenderer(lambda: columns, colors=colors)(None, "info", event)


@pytest.mark.parametrize(
    ("fields", "columns", "expected"),
    [
        (PRICED, 100, "12:04:31 ✓ kimi  main  2.0 s  42.9k in (50% cached), 240 out  $0.0260"),
        (PRICED, 80, "12:04:31 ✓ kimi  main  2.0 s  42.9k in (50% cached), 240 out  $0.0260"),
        (
            {**PRICED, "retries": 2, "fallback_from": "kimi", "route": "qwen"},
            100,
            "12:04:31 ✓ kimi  main  2.0 s  42.9k in (50% cached), 240 out  $0.0260  after 2 retries, by qwen",
        ),
        (
            {"usage": Usage(5, 1_234_567, 0, 0, None, True), "outcome": "client_gone", "kind": "subagent"},
            80,
            "12:04:31 – kimi  subagent  2.0 s  5 in, ~1.23M out  client left",
        ),
        (
            REFUSED,
            100,
            "12:04:31 ✗ kimi 429 rate limit reached for this organisatio…  api.moonshot.ai  2.0 s  req_b3Qm0u4Xn1",
        ),
        (REFUSED, 80, "12:04:31 ✗ kimi 429 rate limit reached for thi…  api.moonshot.ai  req_b3Qm0u4Xn1"),
        (
            {**REFUSED, "error": "too fast", "retries": 1},
            100,
            "12:04:31 ✗ kimi 429 too fast  api.moonshot.ai/v1/chat/completions  1 retry  2.0 s  req_b3Qm0u4Xn1",
        ),
        (
            {
                "outcome": "refused",
                "status": 502,
                "error": "could not connect to http://localhost:8000/v1/chat/completions: connection refused; no "
                "server listens there: start it",
                "address": "http://localhost:8000/v1/chat/completions",
                "retries": 2,
            },
            100,
            "12:04:31 ✗ kimi 502 could not connect: connection refused; no serve…  localhost:8000  req_b3Qm0u4Xn1",
        ),
        (
            {"outcome": "failed", "error": "the upstream\nclosed the stream before finishing"},
            80,
            "12:04:31 ✗ kimi failed the upstream closed the stream before fi…  req_b3Qm0u4Xn1",
        ),
    ],
)
def test_call(fields: dict[str, Any], columns: int, expected: str) -> None:
    assert line_of(columns, **fields) == expected


_TEXTS = st.text(max_size=200)


@given(
    st.integers(60, 100),
    st.fixed_dictionaries(
        {
            "outcome": st.sampled_from(["ok", "client_gone", "refused", "failed", "crashed"]),
            "model": _TEXTS,
            "route": _TEXTS,
            "fallback_from": st.none() | _TEXTS,
            "error": st.none() | _TEXTS,
            "error_type": st.none() | _TEXTS,
            "address": st.none() | _TEXTS,
            "retries": st.integers(0, 3),
            "status": st.integers(0, 599),
        }
    ),
)
def test_line_of_any_call_fits(columns: int, fields: dict[str, Any]) -> None:
    line = line_of(columns, **fields)
    assert len(line) <= columns
    assert "\n" not in line
    if fields["outcome"] not in ("ok", "client_gone"):
        assert line.endswith((ID, ID[:14])), line
    colored = line_of(columns, colors=True, **fields)
    assert re.sub(r"\x1b\[\d+m", "", colored) == line


@pytest.mark.parametrize(
    ("fields", "color"),
    [
        ({}, "32m✓"),
        (REFUSED, "31m✗"),
        ({"outcome": "client_gone"}, "2m–"),
        ({"retries": 1}, "33mafter 1 retry"),
    ],
)
def test_colors_have_meanings(fields: dict[str, Any], color: str) -> None:
    assert f"\x1b[{color}\x1b[0m" in line_of(colors=True, **fields)
    assert "\x1b" not in line_of(**fields)


@pytest.mark.parametrize(
    ("error", "shown"),
    [
        (f"could not connect to {URL}: connection refused", "could not connect: connection refused"),
        (f"Incorrect API key. ({URL} answered 401)", "Incorrect API key."),
        (f"{URL} answered with a page", "answered with a page"),
        (f"the stream was cut ({URL})", "the stream was cut"),
        (f"silence of {URL}", "silence of https://api.moonshot.ai/v1/c…"),
    ],
)
def test_cause_does_not_repeat_the_address(error: str, shown: str) -> None:
    line = line_of(**{**REFUSED, "error": error})
    assert f"429 {shown}  api.moonshot.ai" in line


def test_request_that_became_no_call_is_one_line() -> None:
    with logging_to_text("info", "console") as log:
        logger = setup.get_logger("api")
        fields = {"request_id": ID, "method": "POST", "path": "/v1/messages", "status": 404}
        logger.info("request.refused", **fields, model="nope", reason="model: 'nope' is not in models.yaml")
        logger.info("request.refused", **{**fields, "path": "/v1/x"}, reason="there is nothing at /v1/x")
        lines = [line[9:] for line in log.lines()]
    assert lines == [
        f"✗ nope 404 model: 'nope' is not in models.yaml  {ID}",
        f"✗ POST /v1/x 404 there is nothing at /v1/x  {ID}",
    ]


def test_warnings_are_sentences_that_fit() -> None:
    what = "models.yaml: models[10].api_key: " + "model 'coder' has no key: DEEPSEEK_API_KEY is not set; " * 4
    event = {"event": "config.warning", "timestamp": "12:04:31", "level": "warning", "what": what}
    for colors in (False, True):
        text = ConsoleRenderer(lambda: 80, colors=colors)(None, "warning", {**event})
        lines = re.sub(r"\x1b\[\d+m", "", text).splitlines()
        assert len(lines) > 2
        assert all(len(line) <= 80 for line in lines)
        assert lines[0].startswith("12:04:31 ! models.yaml: models[10].api_key: model 'coder' has no key:")
        assert all(line.startswith(" " * 11 + line.strip()[0]) for line in lines[1:])
        assert " ".join(line[11:] for line in lines) == what.strip()


def test_rejected_file_is_reported_with_its_faults() -> None:
    event = {
        "event": "config.rejected",
        "timestamp": "12:04:31",
        "level": "error",
        "faults": ["a.yaml:1:2: b", "c"],
    }
    text = ConsoleRenderer(lambda: 100, colors=False)(None, "error", event)
    assert text.splitlines() == [
        "12:04:31 ✗ models.yaml is rejected, the one before stays in force:",
        "           a.yaml:1:2: b",
        "           c",
    ]


@pytest.mark.parametrize(
    ("state", "line"),
    [
        ("open", "12:04:31 ! localhost:1 failed 5 times in a row: paused for 30 s"),
        ("closed", "12:04:31   localhost:1 works again"),
    ],
)
def test_pause_of_an_upstream(state: str, line: str) -> None:
    event = {
        "event": "circuit.changed",
        "timestamp": "12:04:31",
        "level": "info" if state == "closed" else "warning",
        "origin": "http://localhost:1",
        "state": state,
        "failures": 5,
        "open_for_s": 30,
        "cause": "could not connect",
    }
    assert ConsoleRenderer(lambda: 100, colors=False)(None, "info", event) == line


def test_call_refused_in_a_pause_has_its_cause() -> None:
    paused = "api.moonshot.ai failed 5 times in a row and is left alone; try again in 30 s"
    error = f"{paused}; the last failure: {URL} answered 502"
    line = line_of(**{**REFUSED, "status": 529, "error": error})
    assert "529 paused: answered 502  api.moonshot.ai" in line


def test_word_longer_than_a_line_is_kept_whole() -> None:
    event = {"event": "a.b", "timestamp": "12:04:31", "level": "info", "path": "/x" * 60, "count": 3}
    text = ConsoleRenderer(lambda: 80, colors=False)(None, "info", event)
    assert text.splitlines() == ["12:04:31   a.b", " " * 11 + "path=" + "/x" * 60, " " * 11 + "count=3"]


def test_without_unicode_marks_are_ascii() -> None:
    renderer = ConsoleRenderer(lambda: 100, colors=False, is_unicode=False)
    event = {"event": "call.finished", "timestamp": "12:04:31", **call_facts(finished(**REFUSED))}
    assert renderer(None, "info", event).isascii()


@pytest.mark.parametrize(
    "event",
    [
        {"event": "upstream.retry"},
        {"event": "call.fallback"},
        {"event": "request.retried_without_param"},
        {"event": "circuit.changed", "state": "trial"},
    ],
)
def test_retries_have_no_lines_of_their_own(event: dict[str, Any]) -> None:
    with pytest.raises(DropEvent):
        ConsoleRenderer(lambda: 100, colors=False)(None, "info", event)


def test_other_events_have_all_fields() -> None:
    with logging_to_text("info", "console") as log:
        logger = setup.get_logger("part")
        logger.warning("thing.happened", key="sk-secret-123456789", count=3, items=["a", "b\x1b"])
        try:
            raise OSError("no\x1broom")
        except OSError:
            logger.error("thing.failed", exc_info=True)
        warning, failure, *trace = log.lines()
    assert warning[9:] == r'! thing.happened key=*** count=3 items=["a", "b\u001b"]'
    assert "✗ thing.failed" in failure
    assert trace[-1] == "OSError: no\\x1broom"


def test_debug_level_shows_all_fields_of_a_call() -> None:
    with logging_to_text("debug", "console") as log:
        log_calls([finished(retries=3)])
        (line,) = log.lines()
    assert "call.finished" in line
    assert "retries=3" in line
    assert "upstream_request_id" not in line, "it has none"


def test_width_and_colors_of_a_real_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JOURNAL_STREAM", raising=False)
    monkeypatch.delenv("NO_COLOR", raising=False)
    import fcntl
    import struct
    import termios

    master, slave = pty.openpty()
    with os.fdopen(slave, "w", encoding="utf-8") as stream:
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        assert columns_of(stream) == 80
        setup.configure("info", "auto", stream)
        try:
            log_calls([finished(**REFUSED)])
            assert setup._queue is not None
            assert setup._queue.flush()
            text = os.read(master, 4096).decode()
        finally:
            assert setup._queue is not None
            setup._queue.close()
    os.close(master)
    assert "\x1b[31m✗\x1b[0m" in text
    assert len(re.sub(r"\x1b\[\d+m", "", text).rstrip()) <= 80


def test_clock_time_has_the_date_on_other_days() -> None:
    noon = 1_764_331_200.0
    assert re.fullmatch(r"\d\d:\d\d:\d\d", clock_time(noon, noon))
    assert re.fullmatch(r"\d\d-\d\d \d\d:\d\d:\d\d", clock_time(noon, noon + 3 * 86_400))


# -- logfmt


def test_logfmt_lines_of_calls() -> None:
    with logging_to_text("info", "logfmt") as log:
        log_calls([finished(error='he said "no"\nand left', retries=0, fallback_from="a b")])
        (line,) = log.lines()
    assert re.match(r"timestamp=\S+Z level=info event=call\.finished part=call request_id=req_test ", line)
    assert 'error="he said \\"no\\"\\nand left"' in line
    assert 'fallback_from="a b"' in line
    assert "stream=false" in line


@given(
    st.dictionaries(
        st.text(min_size=1, max_size=8), st.none() | st.text(max_size=30) | st.integers(), max_size=5
    )
)
def test_logfmt_of_any_event_is_one_parsable_line(event: dict[str, Any]) -> None:
    line = render_logfmt(None, "info", {"event": "a.b", **event})
    assert line.splitlines() == [line]
    assert not any(0x7F <= ord(char) < 0xA0 or char < " " for char in line)
    for pair in re.findall(r'[^\s"=]+=(?:"(?:[^"\\]|\\.)*"|[^\s"]*)', line):
        value = pair.partition("=")[2]
        if value.startswith('"'):
            json.loads(value)


def test_lines_of_a_worker_begin_with_its_number() -> None:
    render = ConsoleRenderer(lambda: 100, colors=False)
    call = {
        "event": "call.finished",
        "timestamp": "12:04:31",
        "level": "info",
        **call_facts(finished(route="kimi")),
    }
    assert render(None, "info", {**call, "worker": 2}).startswith("12:04:31 w2 ✓ kimi  main")
    other = {"event": "server.started", "timestamp": "12:04:31", "level": "info", "models": 3, "worker": 1}
    assert render(None, "info", other) == "12:04:31 w1   server.started models=3"
