"""Signatures preserve an upstream's data until the next turn (docs/spec/messages-to-chat.md#reasoning)."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxyd.codecs.anthropic.thinking_signature import PREFIX, decode_signature, encode_signature

DETAILS = st.lists(
    st.dictionaries(st.text(max_size=5), st.text(max_size=9) | st.integers(0, 99), max_size=3), max_size=3
)


@given(st.text(), st.none() | st.text(), DETAILS, st.dictionaries(st.text(), st.text(), max_size=3))
def test_decoding_returns_what_was_encoded(
    model: str, field: str | None, details: list[dict[str, Any]], signatures: dict[str, str]
) -> None:
    encoded = encode_signature(model, field, details, signatures)
    assert encoded.startswith(PREFIX)
    assert encoded.isascii()
    decoded = decode_signature(encoded)
    assert decoded is not None
    assert decoded.model == model
    assert decoded.source == (field or None)
    assert decoded.details == details
    assert decoded.tool_signatures == signatures


def test_signatures_of_parts() -> None:
    decoded = decode_signature(
        encode_signature("m", None, None, None, part_signatures={"text": "s", "thought": ""})
    )
    assert decoded is not None
    assert decoded.part_signatures == {"text": "s", "thought": ""}
    odd = base64.urlsafe_b64encode(b'{"m":"m","g":{"text":5}}').rstrip(b"=").decode()
    read = decode_signature(PREFIX + odd)
    assert read is not None
    assert read.part_signatures == {}


@pytest.mark.parametrize(
    "foreign",
    [
        "",
        "EqQBCgIYAhIM",
        "cpx2.e30",
        "cpx1.",
        "cpx1.!!!!",
        "cpx1.e30",  # {}: no model
        "cpx1.W10",  # []
        "cpx1.eyJtIjoxfQ",  # {"m":1}
        "cpx1.日本",
        "cpx1.eyJtIjoiYSJ9"[:-3],
    ],
)
def test_foreign_or_damaged_signature_is_none(foreign: str) -> None:
    assert decode_signature(foreign) is None


@given(st.text())
def test_decoding_never_raises(anything: str) -> None:
    decode_signature(anything)
    decode_signature(PREFIX + anything)


def test_members_of_the_wrong_type_are_ignored() -> None:
    payload = b'{"m":"a","f":1,"d":[1,{"x":1}],"t":{"i":1,"j":"s"},"p":[],"o":"x"}'
    encoded = PREFIX + base64.urlsafe_b64encode(payload).decode()
    decoded = decode_signature(encoded)
    assert decoded is not None
    assert decoded.source is None
    assert decoded.details == [{"x": 1}]
    assert decoded.tool_signatures == {"j": "s"}
    assert decoded.tool_places == decoded.fields == {}


def test_places_and_other_fields() -> None:
    decoded = decode_signature(
        encode_signature("m", None, None, {"c": "s"}, tool_places={"c": "a.b"}, fields={"opaque": [1]})
    )
    assert decoded is not None
    assert (decoded.tool_places, decoded.fields) == ({"c": "a.b"}, {"opaque": [1]})
