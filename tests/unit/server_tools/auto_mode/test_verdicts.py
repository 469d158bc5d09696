"""The object with which a classifier's response begins, whole and at every split."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxyd.server_tools.auto_mode.verdicts import MAX_CHARS, ObjectEnd, read_verdicts

OBJECT = '{"verdicts":[{"id":"a","block":true,"reason":"has \\"}]\\" and {"}]}'


def fed(*parts: str) -> tuple[str | None, bool]:
    reader = ObjectEnd()
    found = None
    for part in parts:
        found = found or reader.feed(part)
    return found, reader.has_failed


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (OBJECT, OBJECT),
        (f" \n{OBJECT} and more", OBJECT),
        (f"```json\n{OBJECT}\n```", OBJECT),
        (f"```\n{OBJECT}", OBJECT),
        ("{}", "{}"),
        (OBJECT[:-1], None),
        (f"Sure: {OBJECT}", None),
        (f"[{OBJECT}]", None),
        ("", None),
        ("``", None),
        ("`x", None),
    ],
)
def test_the_object_at_the_beginning_is_found(text: str, expected: str | None) -> None:
    assert fed(text)[0] == expected


@given(
    text=st.sampled_from([OBJECT, f"```json\n{OBJECT}\n```", f"no {OBJECT}", f"\n {OBJECT}{OBJECT}"]),
    data=st.data(),
)
def test_every_split_gives_the_same(text: str, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(text)))
    other = data.draw(st.integers(at, len(text)))
    assert fed(text[:at], text[at:other], text[other:])[0] == fed(text)[0]


@given(
    value=st.recursive(
        st.none() | st.booleans() | st.text(), lambda each: st.lists(each) | st.dictionaries(st.text(), each)
    )
)
def test_any_object_is_found_whole(value: Any) -> None:
    text = json.dumps({"x": value})
    assert fed(text + " rest")[0] == text


def test_prose_fails_at_once_and_an_endless_object_at_the_limit() -> None:
    assert fed("I would allow")[1]
    assert fed('{"x":"' + "y" * MAX_CHARS)[1]


def test_thinking_is_no_part_of_the_response() -> None:
    text = '{"verdicts":[{"id":"a","block":false,"reason":""}]}'
    message = {"content": [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": text}]}
    assert read_verdicts(message, ["a"]) == {"a": {"type": "evaluated", "outcome": "not_flagged"}}
