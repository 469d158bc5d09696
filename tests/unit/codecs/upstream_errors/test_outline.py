"""The log gets the outline of a response of unknown form, and none of its words."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxyd.codecs.upstream_errors.outline import outline_of


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"<!DOCTYPE html><title>Login</title>", "<!DOCTYPE html><title>Login</title>"),
        (b"\n <HTML>" + b"x" * 300, "\n <HTML>" + "x" * 192),
        (b"<think>I would rather", "21 bytes that are neither a page nor JSON"),
        (b"Hello, I am", "11 bytes that are neither a page nor JSON"),
        (
            b'{"output": [{"text": "Hello"}], "n": 1, "ok": true}',
            "{output: [{text: text}], n: number, ok: bool}",
        ),
        (b'{"the words of a model": null}', "{…: null}"),
        (b"[]", "[]"),
        (b'{"cut": "in the mid', "19 bytes that are neither a page nor JSON"),
    ],
)
def test_outline(body: bytes, expected: str) -> None:
    assert outline_of(body) == expected


SECRET = "zebra42"
VALUES = st.recursive(
    st.just(SECRET) | st.integers() | st.none(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.just(f"a {SECRET}") | st.text(), inner),
)


@given(st.dictionaries(st.text(), VALUES))
def test_no_value_is_in_the_outline(value: dict[str, Any]) -> None:
    outline = outline_of(json.dumps(value).encode())
    assert len(outline) <= 200
    assert SECRET not in outline
