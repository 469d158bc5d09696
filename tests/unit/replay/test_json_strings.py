"""The strings of JSON texts, whole or not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxyd.replay.json_strings import find_strings


@given(st.text('ab \\"{}[],:u0dn\n\ud83d', max_size=80))
def test_positions_and_encodings_in_any_text(text: str) -> None:
    for part in find_strings(text):
        assert "".join(part.units) == text[part.start : part.end]
        assert len(part.units) == len(part.text)
        assert part.encode(part.text) == text[part.start : part.end] or "\\" in text


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('{"a": {"b": ["c", {"d": "e"}]}, "f": "g"}', "a: a.b: a.b=c a.b.d: a.b.d=e f: f=g"),
        ('{"a": "b\\"c\\\\", "d": "', 'a: a=b"c\\ d: d='),
        ('["a", {"b": 1}, "c"]', "=a b: =c"),
        ('}}"a"', "=a"),
    ],
)
def test_keys_and_texts(text: str, found: str) -> None:
    seen = [
        f"{'.'.join((*part.keys, part.text))}:" if part.is_key else f"{'.'.join(part.keys)}={part.text}"
        for part in find_strings(text)
    ]
    assert " ".join(seen) == found
