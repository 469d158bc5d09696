"""Escaping of control characters."""

from __future__ import annotations

import pytest

from proxyd.terminal import printable


@pytest.mark.parametrize(
    ("text", "one_line", "lines"),
    [
        ("plain é 日本", "plain é 日本", "plain é 日本"),
        ("\x1b[31mred", "\\x1b[31mred", "\\x1b[31mred"),
        ("a\nb\tc\r", "a\\x0ab\\x09c\\x0d", "a\nb\tc\\x0d"),
        ("\x7f\x9b0m", "\\x7f\\x9b0m", "\\x7f\\x9b0m"),
        ("\u2028", "\u2028", "\u2028"),
    ],
)
def test_printable(text: str, one_line: str, lines: str) -> None:
    assert printable(text) == one_line
    assert printable(text, has_lines=True) == lines
