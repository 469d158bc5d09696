"""Stop sequences that the proxy cuts itself."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxyd.codecs.translation.stop_sequences import MAX_CHARS, MAX_SEQUENCES, StopSequences
from tests.support.effort import examples


def cut(sequences: list[str], parts: list[str]) -> tuple[str, str | None]:
    stop = StopSequences(sequences)
    written = "".join(stop.feed(part) for part in parts)
    return written + ("" if stop.matched else stop.end()), stop.matched


@pytest.mark.parametrize(
    ("sequences", "parts", "expected"),
    [
        (["END"], ["a EN", "D b"], ("a ", "END")),
        (["END"], ["a EN"], ("a EN", None)),
        (["END"], ["ENDEND"], ("", "END")),
        (["abcdef", "cd"], ["abcdef"], ("ab", "cd")),
        (["abcd", "cd"], ["xabcd"], ("x", "abcd")),
        ([], ["a"], ("a", None)),
        ([""], ["a"], ("a", None)),
        (["x" * (MAX_CHARS + 1)], ["x" * (MAX_CHARS + 1)], ("x" * (MAX_CHARS + 1), None)),
    ],
)
def test_cuts(sequences: list[str], parts: list[str], expected: tuple[str, str | None]) -> None:
    assert cut(sequences, parts) == expected


def test_text_is_held_back_only_while_it_may_be_the_beginning() -> None:
    stop = StopSequences(["</block>"])
    assert stop.feed("text </b") == "text "
    assert stop.feed("r>") == "</br>"
    assert stop.feed("</block> more") == ""
    assert stop.feed("never") == ""


def test_only_a_few_sequences_are_searched_for() -> None:
    assert cut([f"<{number:03}>" for number in range(MAX_SEQUENCES + 1)], ["<016>"]) == ("<016>", None)
    assert not StopSequences([])
    assert StopSequences(["a"])


@settings(max_examples=examples(200))
@given(
    sequences=st.lists(st.text("abc", min_size=1, max_size=4), min_size=1, max_size=3),
    text=st.text("abcd", max_size=20),
    at=st.integers(0, 20),
)
def test_where_the_text_is_cut_does_not_matter(sequences: list[str], text: str, at: int) -> None:
    whole = cut(sequences, [text])
    assert cut(sequences, [text[:at], text[at:]]) == whole
    assert cut(sequences, list(text)) == whole
    written, matched = whole
    assert text.startswith(written + (matched or ""))
    ends = [text.find(each) + len(each) for each in sequences if each in text]
    assert (len(written) + len(matched or "") if matched else None) == (min(ends) if ends else None)
