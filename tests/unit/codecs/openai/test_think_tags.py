"""Separation of thinking and text by tags."""

from __future__ import annotations

import pytest

from proxyd.codecs.openai.think_tags import ThinkTags


def split(parts: list[str], names: tuple[str, ...] = ("think",), **options: bool) -> tuple[str, str]:
    """Return all thinking, and all text."""
    tags = ThinkTags(names, **options)
    runs = [run for part in parts for run in tags.feed(part)] + tags.close()
    assert all(text for _, text in runs)
    thinking = "".join(text for is_thinking, text in runs if is_thinking)
    return thinking, "".join(text for is_thinking, text in runs if not is_thinking)


@pytest.mark.parametrize(
    ("text", "expected"),
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
def test_result_does_not_depend_on_the_cuts(text: str, expected: tuple[str, str]) -> None:
    assert split([text]) == expected
    assert split(list(text)) == expected
    for at in range(len(text) + 1):
        assert split([text[:at], text[at:]]) == expected, at


def test_implied_opening_tag() -> None:
    assert split(["a</thi", "nk>\nb"], is_implied=True) == ("a", "b")
    assert split(["never closed"], is_implied=True) == ("never closed", "")


def test_repeated_tags() -> None:
    parts = ["<think>a</think>b<th", "ink>c</think>\nd <thi"]
    assert split(parts, repeats=True) == ("ac", "bd <thi")


def test_each_tag_name_closes_with_its_own() -> None:
    names = ("think", "thinking")
    assert split(["<thinking>a</think>b</thinking>c"], names) == ("a</think>b", "c")
    assert split(["<think>a</think>b"], names) == ("a", "b")


def test_text_is_returned_immediately() -> None:
    tags = ThinkTags(("think",))
    assert tags.feed("Hello") == [(False, "Hello")]
    tags = ThinkTags(("think",))
    assert tags.feed("<think>abc</") == [(True, "abc")]
    assert tags.feed("x") == [(True, "</x")]
