"""The quoted transcript: who wrote what, and that nothing leaves its line."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from proxyd.server_tools.auto_mode.transcript import quoted, steps_of, transcript, user_words, words_within

NOTE = "<system-reminder>\nfrom the client\n</system-reminder>"


def test_notes_of_the_client_are_no_words_of_the_user() -> None:
    messages = [
        {"role": "user", "content": "plain"},
        {"role": "user", "content": [{"type": "text", "text": NOTE}, {"type": "text", "text": "real"}]},
        {"role": "user", "content": [{"type": "text", "text": "[SYSTEM NOTIFICATION - NOT USER INPUT]\nx"}]},
        {"role": "system", "content": "environment"},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": "result"}]},
        {"role": "assistant", "content": "mine"},
        "junk",
    ]
    assert user_words(messages) == ["plain", "real"]
    lines = [json.loads(line) for line in transcript(messages, room=10_000)]
    assert [next(iter(line)) for line in lines] == ["client", "client", "client", "result_of", "model"]


def test_the_newest_entries_are_kept() -> None:
    messages = [{"role": "assistant", "content": f"text {number}"} for number in range(100)]
    lines = transcript(messages, room=200)
    assert json.loads(lines[0]) == {"note": "earlier entries are left out"}
    assert json.loads(lines[-1]) == {"model": "text 99"}
    assert sum(map(len, lines)) < 300


def test_the_first_words_and_the_newest_are_kept() -> None:
    lines = [
        json.loads(line) for line in words_within([f"{number} {'x' * 90}" for number in range(50)], 1000)
    ]
    assert lines[0].startswith("0 ")
    assert lines[-1].startswith("49 ")
    assert "left out" in lines[1]
    assert words_within([]) == []


def test_a_long_entry_loses_its_middle() -> None:
    (line,) = transcript([{"role": "assistant", "content": "a" * 3000 + "end"}], room=10_000)
    text = json.loads(line)["model"]
    assert len(text) <= 2000
    assert text.startswith("aaa")
    assert text.endswith("end")
    assert "characters left out" in text


def test_steps_are_the_calls() -> None:
    messages: list[Any] = [
        {
            "role": "assistant",
            "content": [{"type": "tool_use", "id": "a", "name": "Bash", "input": {"command": "ls"}}],
        }
    ]
    assert list(steps_of(messages)) == [("Bash", {"command": "ls"})]


@given(text=st.text())
def test_a_quoted_text_is_one_line_of_json_without_brackets(text: str) -> None:
    line = quoted(text)
    assert json.loads(line) == text
    assert not set(line) & set("<>\n\r\u2028\u2029\u200b\u202e\ufeff")
