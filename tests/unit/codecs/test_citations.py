"""The sources of an upstream that searches itself, in the form of each vendor, whole and streamed."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxyd.codecs.citations import Citation, Citations

ONE, TWO = "https://a.example/1", "https://b.example/2"
FORMS: dict[str, Any] = {
    "chat": {
        "choices": [
            {
                "message": {
                    "annotations": [
                        {
                            "type": "url_citation",
                            "url_citation": {"url": ONE, "title": "One", "content": "text"},
                        }
                    ]
                }
            }
        ]
    },
    "responses": {
        "type": "response.output_text.annotation.added",
        "annotation": {"type": "url_citation", "url": ONE, "title": "One", "start_index": 0, "end_index": 3},
    },
    "glm": {
        "choices": [],
        "web_search": [
            {"link": ONE, "title": "One", "content": "text", "media": "A", "publish_date": "2026"},
            {"title": "no address"},
        ],
    },
    "gemini": {
        "candidates": [{"groundingMetadata": {"groundingChunks": [{"web": {"uri": ONE, "title": "One"}}]}}]
    },
}


def frames(*values: Any) -> bytes:
    return b"".join(b"data: %b\n\n" % json.dumps(value).encode() for value in values) + b"data: [DONE]\n\n"


def read(data: bytes, *cuts: int) -> list[Citation]:
    citations = Citations()
    places = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    for start, end in pairwise(places):
        citations.feed(data[start:end])
    citations.close()
    return list(citations.found.values())


@pytest.mark.parametrize("is_stream", [True, False])
@pytest.mark.parametrize("form", FORMS)
def test_each_form_is_read(form: str, is_stream: bool) -> None:
    value = FORMS[form]
    before = {"choices": [{"delta": {"content": "x"}}]}
    (found,) = read(frames(before, value) if is_stream else json.dumps(value).encode())
    text = "text" if form in ("chat", "glm") else ""
    assert found == Citation(ONE, "One", text, "2026" if form == "glm" else None)


@given(st.sampled_from(sorted(FORMS)), st.booleans(), st.lists(st.integers(0, 2000), max_size=5))
def test_the_sources_do_not_depend_on_the_chunks(form: str, is_stream: bool, cuts: list[int]) -> None:
    data = frames(FORMS[form]) if is_stream else b" \n" + json.dumps(FORMS[form]).encode()
    assert read(data, *cuts) == read(data)


@given(st.binary(max_size=300))
def test_any_bytes_are_taken(data: bytes) -> None:
    assert read(data) == []


def test_each_address_counts_once_and_keeps_its_text() -> None:
    bare = {"type": "url_citation", "url": ONE, "title": "One"}
    whole = {"type": "url_citation", "url_citation": {"url": ONE, "title": "One", "content": "text"}}
    other = {"type": "url_citation", "url": TWO}
    found = read(frames({"annotations": [bare, other, whole, bare]}))
    assert found == [Citation(ONE, "One", "text"), Citation(TWO)]


@pytest.mark.parametrize("url", [None, 3, "", "javascript:alert(1)", "file:///etc/passwd"])
def test_other_addresses_are_no_sources(url: Any) -> None:
    assert read(frames({"annotations": [{"type": "url_citation", "url": url}]})) == []


def test_sources_and_bytes_are_bounded() -> None:
    many = [{"type": "url_citation", "url": f"{ONE}{number}"} for number in range(500)]
    assert len(read(frames({"annotations": many}))) == 50
    late = b": " + b"x" * (5 << 20) + b"\n\n" + frames(FORMS["chat"])
    assert read(late) == []


def test_another_attempt_begins_anew() -> None:
    citations = Citations()
    citations.feed(frames(FORMS["chat"]) + b"data: {")
    citations.restart()
    citations.feed(frames(FORMS["gemini"]))
    assert [each.text for each in citations.found.values()] == [""]
