"""What is remembered of an upstream's words: no run of the request, and all else."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxyd.telemetry import prompt_redaction as quotes
from proxyd.telemetry.prompt_redaction import MIN_BYTES, without_prompt_text
from tests.support.effort import examples


def cut(message: str, content: str) -> str:
    payload = {"messages": [{"role": "user", "content": content}]}
    return without_prompt_text(message, json.dumps(payload).encode(), payload)


#: Few letters, so that runs come about.
_TEXT = st.text("ab", max_size=90)


@settings(max_examples=examples(300), deadline=None)
@given(before=_TEXT, content=_TEXT, after=_TEXT, start=st.integers(0, 60), size=st.integers(0, 60))
def test_only_quoted_runs_are_removed(before: str, content: str, after: str, start: int, size: int) -> None:
    message = before + content[start : start + size] + after
    is_cut = [False] * len(message)
    for at in range(len(message) - MIN_BYTES + 1):
        if message[at : at + MIN_BYTES] in content:
            is_cut[at : at + MIN_BYTES] = [True] * MIN_BYTES
    expected = ""
    for letter, is_gone in zip(message, is_cut, strict=True):
        expected += ("" if expected.endswith("…") else "…") if is_gone else letter
    assert cut(message, content) == expected


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("short words", "short words"),
        ("a sentence that the request does not hold", "a sentence that the request does not hold"),
        ('no good: "tell\nme about Grüße from \U0001f600 there", sorry', 'no good: "…", sorry'),
        ("tell\nme about Grüße from \U0001f600 there", "…"),
        ("Grüße Grüße Grüße Grüße Grüße", "Grüße Grüße Grüße Grüße Grüße"),
        ('{"messages": [{"role": "user"}, 1]}', "…}, 1]}"),
        ("\ud800tell\nme about Grüße from here", "…here"),
    ],
)
def test_strings_are_compared_with_and_without_escapes(message: str, expected: str) -> None:
    assert cut(message, "please tell\nme about Grüße from \U0001f600 there") == expected


@pytest.mark.parametrize("body", [b"", b"x" * 600_000])
def test_message_is_truncated_where_the_request_cannot_be_searched(body: bytes) -> None:
    assert (
        without_prompt_text("The server had an error while processing", body, {})
        == "The server had an error…"
    )
    assert without_prompt_text("Overloaded", body, {}) == "Overloaded"


def test_long_message_is_truncated() -> None:
    assert cut("no " * 1000, "") == ("no " * 334)[:1000] + "…"
    numbers = " ".join(map(str, range(1000)))
    assert cut(numbers, numbers) == "…"


def test_largest_search_is_fast() -> None:
    """With what stands everywhere in the request, and with what nearly does."""
    body = b"-" * 250_000 + b"abcdefghijklx" * 20_000
    for message in ("-" * 990, "abcdefghijkl " * 70, "nothing of it at all " * 47):
        begun = time.thread_time()
        found = without_prompt_text(message, body, {"text": body.decode()})
        assert time.thread_time() - begun < 0.2, "25 ms where nothing else runs"
        assert "-" * MIN_BYTES not in found


def test_search_that_takes_too_long_is_abandoned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quotes, "_MAX_STEPS", 10)
    assert (
        cut("no good: " + "tell me about it, please" * 2, "tell me about it, please")
        == "no good: tell me about …"
    )
