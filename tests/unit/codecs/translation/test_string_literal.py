"""Reading the inside of a JSON string."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxyd import jsonio
from proxyd.codecs.translation.string_literal import NO_LITERAL, read_literal


@pytest.mark.parametrize(
    ("literal", "text"),
    [
        (b"plain", "plain"),
        (b"\\n\\u00e4", "\n\u00e4"),
        ("ä 三 🙂".encode(), "ä 三 🙂"),
        (b"", ""),
        (b'a"b', ""),
        (b'\\"b\\', ""),
        (b"\xff", ""),
        (b"a\nb", ""),
        (b"\\ud83d", "\ud83d"),
    ],
)
def test_literals(literal: bytes, text: str) -> None:
    expected = (text, jsonio.dumps(text)[1:-1]) if text else NO_LITERAL
    assert read_literal(literal) == expected


@given(text=st.text(st.characters(exclude_categories=["Cs"]), min_size=1), ascii_only=st.booleans())
def test_what_json_writes_is_read(text: str, ascii_only: bool) -> None:
    literal = json.dumps(text, ensure_ascii=ascii_only)[1:-1].encode()
    assert read_literal(literal) == (text, jsonio.dumps(text)[1:-1])
