"""Thinking told from text by tags."""

from __future__ import annotations

import pytest

from proxyd.codecs.openai.think_tags import ThinkTags


def split(pieces: list[str], names: tuple[str, ...] = ("think",), **options: bool) -> tuple[str, str]:
    """All thinking, and all text."""
    tags = ThinkTags(names, **options)
    runs = [run for piece in pieces for run in tags.feed(piece)] + tags.close()
    assert all(text for _, text in runs)
    thinking = "".join(text for is_thinking, text in runs if is_thinking)
    return thinking, "".join(text for is_thinking, text in runs if not is_thinking)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("<think>a</think>b", ("a", "b")),
        ("<think>a</think>\nb", ("a", "b")),
        ("<think>a</think>\n\nb", ("a", "\nb")),
        (" \n<think>a</think>b", ("a", "b")),
        ("<think></think>b", ("", "b")),
        ("<think>a<think>b</think>c", ("a<think>b", "c")),
        ("<think>a</thinking>b</think>c", ("a</thinking>b", "c")),
        ("<think>a", ("a", "")),
        ("<think>a</thi", ("a</thi", "")),
        ("a<think>b</think>c", ("", "a<think>b</think>c")),
        ("<think>a</think>b<think>c</think>d", ("a", "b<think>c</think>d")),
        ("<thinks>a", ("", "<thinks>a")),
        ("<", ("", "<")),
        (" a", ("", " a")),
        (" ", ("", "")),
        ("", ("", "")),
    ],
)
def test_each_cut_gives_the_same(answer: str, expected: tuple[str, str]) -> None:
    assert split([answer]) == expected
    assert split(list(answer)) == expected
    for at in range(len(answer) + 1):
        assert split([answer[:at], answer[at:]]) == expected, at


def test_implied_opening_tag() -> None:
    assert split(["a</thi", "nk>\nb"], is_implied=True) == ("a", "b")
    assert split(["never closed"], is_implied=True) == ("never closed", "")


def test_repeated_tags() -> None:
    pieces = ["<think>a</think>b<th", "ink>c</think>\nd <thi"]
    assert split(pieces, repeats=True) == ("ac", "bd <thi")


def test_several_names_close_with_their_own() -> None:
    names = ("think", "thinking")
    assert split(["<thinking>a</think>b</thinking>c"], names) == ("a</think>b", "c")
    assert split(["<think>a</think>b"], names) == ("a", "b")


def test_text_is_given_out_at_once() -> None:
    tags = ThinkTags(("think",))
    assert tags.feed("Hello") == [(False, "Hello")]
    tags = ThinkTags(("think",))
    assert tags.feed("<think>abc</") == [(True, "abc")]
    assert tags.feed("x") == [(True, "</x")]
