"""Overflows are distinguished from other errors: measured on public reports, tests/transcripts/overflow."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

import pytest

from proxyd.codecs.upstream_errors.error_envelopes import error_in
from proxyd.codecs.upstream_errors.errors import ErrorContext, refusal, refusal_from_chunk
from proxyd.errors import ProxyError, TooLong
from tests.support.error_cases import RECOVERABLE
from tests.support.paths import TRANSCRIPTS

FOLDER = TRANSCRIPTS / "overflow"

#: Rounds whose misses were looked at; see the README of the folder.
LEARNED_FROM = frozenset({2, 3, 4})

#: Of the held-out rows.
LEAST_FOUND = 0.97

STATUSES = (400, 403, 413, 422, 429, 500)


def rows(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (FOLDER / name).read_text(encoding="utf-8").splitlines()]


OVERFLOWS = rows("overflows.jsonl")
REFUSALS = rows("refusals.jsonl")


def template(text: str) -> str:
    """The text without its numbers, so that rows of one wording are on the same side."""
    return re.sub(r"\d+(?:[.,_]\d+)*", "0", " ".join(text.lower().split()))


def is_held_out(row: dict[str, Any]) -> bool:
    digest = hashlib.sha256(template(row["text"]).encode()).digest()
    return digest[0] % 5 < 2 and row["round"] not in LEARNED_FROM


def openai(text: str, status: int) -> Any:
    return {"error": {"message": text, "type": "invalid_request_error", "param": None, "code": None}}


def event(text: str, status: int) -> Any:
    return {"error": {"message": text}, "message": text}


ENVELOPES = {
    "openai": openai,
    "object": lambda text, status: {
        "object": "error",
        "message": text,
        "type": "BadRequestError",
        "code": status,
    },
    "gemini": lambda text, status: [{"error": {"code": status, "message": text}}],
    "anthropic": lambda text, status: {"type": "error", "error": {"type": "api_error", "message": text}},
    "ollama": lambda text, status: {"error": text},
    "detail": lambda text, status: {"detail": text},
    "code": lambda text, status: {"code": "InvalidParameter", "message": text, "request_id": "r"},
    "cloudflare": lambda text, status: {
        "errors": [{"message": text, "code": 5021}],
        "success": False,
        "result": {},
    },
    "minimax": lambda text, status: {"base_resp": {"status_code": 2013, "status_msg": text}},
    "sse": event,
    "chunk": openai,
}


def refused(text: str, status: int, envelope: str) -> ProxyError:
    """Return the error that the client gets for such a response."""
    if envelope == "text":
        return refusal(status, {}, text.encode(), ErrorContext(route="big"))
    value = ENVELOPES[envelope](text, status)
    if envelope == "chunk" or status == 200:
        return refusal_from_chunk(error_in(value), ErrorContext(route="big"))
    body = json.dumps(value, ensure_ascii=False)
    if envelope == "sse":
        body = f"event: error\ndata: {body}\n\n"
    return refusal(status, {}, body.encode(), ErrorContext(route="big"))


def is_recognised(row: dict[str, Any]) -> bool:
    exc = refused(row["text"], row["status"], row["envelope"])
    if not isinstance(exc, TooLong):
        return False
    assert exc.status == 400
    assert exc.kind == "invalid_request_error"
    assert RECOVERABLE.fullmatch(exc.message), exc.message
    return True


def test_corpus_is_large_and_has_sources() -> None:
    assert len(OVERFLOWS) >= 150
    assert len(REFUSALS) >= 300
    for table in (OVERFLOWS, REFUSALS):
        assert len({template(row["text"]) for row in table}) == len(table)
        for row in table:
            assert set(row) == {"round", "text", "status", "envelope", "source"}
            assert re.match(r"https://|code: ", row["source"]), row
    assert not {template(row["text"]) for row in OVERFLOWS} & {template(row["text"]) for row in REFUSALS}


def test_held_out_overflows_are_found_without_false_alarms(capsys: pytest.CaptureFixture[str]) -> None:
    overflows = [row for row in OVERFLOWS if is_held_out(row)]
    refusals = [row for row in REFUSALS if is_held_out(row)]
    assert min(len(overflows), len(refusals)) >= 80
    found = sum(map(is_recognised, overflows))
    alarms = sum(map(is_recognised, refusals))
    with capsys.disabled():
        print(
            f"\nheld out: {found} of {len(overflows)} overflows found ({found / len(overflows):.1%}), "
            f"{alarms} false alarms in {len(refusals)} other refusals"
        )
    assert found / len(overflows) >= LEAST_FOUND
    assert alarms == 0


def test_rows_that_the_rules_were_derived_from() -> None:
    missed = [row["text"] for row in OVERFLOWS if not is_held_out(row) and not is_recognised(row)]
    alarms = [row["text"] for row in REFUSALS if not is_held_out(row) and is_recognised(row)]
    assert missed == ["maximum context length"]  # a keyword rather than a refusal
    assert alarms == []


FOUND = [row["text"] for row in OVERFLOWS if is_recognised(row)]


@pytest.mark.parametrize("envelope", [*ENVELOPES, "text"])
def test_overflow_in_any_envelope(envelope: str) -> None:
    for text in FOUND:
        exc = refused(text, 400, envelope)
        assert isinstance(exc, TooLong), (text, exc)
        if envelope != "text":
            assert isinstance(refused(text, 200, envelope), TooLong), text


@pytest.mark.parametrize("status", STATUSES)
def test_overflow_with_any_status(status: int) -> None:
    for text in FOUND:
        exc = refused(text, status, "openai")
        assert isinstance(exc, TooLong), (text, exc)
