"""The estimate errs on the high side, and sees images and documents for what they cost."""

from __future__ import annotations

import base64
import struct
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from proxyd import jsonio
from proxyd.codecs.translation.token_estimate import estimate_input_tokens
from tests.support.histories import JSON, NAMES, TEXTS


def estimated(content: Any, **fields: Any) -> int:
    """Without the cost of the message around it."""
    return estimate_input_tokens({"messages": [{"role": "user", "content": content}], **fields}) - 4


def image(raw: bytes) -> list[dict[str, Any]]:
    data = base64.b64encode(raw).decode()
    return [{"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": data}}]


def png(width: int, height: int) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sII", 13, b"IHDR", width, height) + b"\0" * 50


def jpeg(width: int, height: int) -> bytes:
    app1 = b"\xff\xe1" + struct.pack(">H", 5000) + b"\0" * 4998
    return (
        b"\xff\xd8"
        + app1
        + b"\xff\xc4\x00\x02"
        + b"\xff\xc0\x00\x11\x08"
        + struct.pack(">HH", height, width)
        + b"\0" * 9
    )


def webp(kind: bytes, payload: bytes) -> bytes:
    return b"RIFF\0\0\0\0WEBP" + kind + b"\0\0\0\0" + payload + b"\0" * 20


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("", 0),
        ("abcd", 1),
        ("abcde", 2),
        ("a" * 4000, 1000),
        ("日本語", 3),
        ("日本語abcd", 4),
        ("привет", 3),
        ("\ud800", 1),
    ],
)
def test_texts(text: str, tokens: int) -> None:
    assert estimated(text) == tokens
    assert estimated([{"type": "text", "text": text}]) == tokens


@pytest.mark.parametrize(
    ("raw", "tokens"),
    [
        (png(750, 100), 101),
        (png(1, 1), 1),
        (png(3000, 3000), 1600),
        (png(20000, 20), 4),
        (jpeg(750, 100), 101),
        (b"GIF89a" + struct.pack("<HH", 750, 100) + b"\0" * 9, 101),
        (webp(b"VP8X", b"\0\0\0\0" + (749).to_bytes(3, "little") + (99).to_bytes(3, "little")), 101),
        (webp(b"VP8L", b"\x2f" + struct.pack("<I", 749 | 99 << 14)), 101),
        (webp(b"VP8 ", b"\0\0\0\x9d\x01\x2a" + struct.pack("<HH", 750, 100)), 101),
        (webp(b"????", b""), 1600),
        (b"\x89PNG\r\n\x1a\n", 1600),
        (b"\xff\xd8\xff\xe1\xff\xff", 1600),
        (b"\xff\xd8\xff", 1600),
        (b"nothing known", 1600),
    ],
)
def test_images_by_their_pixels(raw: bytes, tokens: int) -> None:
    assert estimated(image(raw)) == tokens


@pytest.mark.parametrize(
    "source",
    [None, {}, {"type": "url", "url": "https://example.org/a.png"}, {"data": "a"}, {"data": "日本語で"}],
)
def test_images_of_unknown_size(source: Any) -> None:
    assert estimated([{"type": "image", "source": source}]) == 1600


@pytest.mark.parametrize(
    ("source", "tokens"),
    [
        ({"type": "base64", "data": "A" * 80_000}, 2000),
        ({"type": "base64", "data": "A" * 80_004}, 4000),
        ({"type": "text", "data": "abcd"}, 1),
        ({"type": "content", "content": [{"type": "text", "text": "abcd"}]}, 1),
        ({"type": "url", "url": "https://example.org/a.pdf"}, 2000),
        (None, 0),
    ],
)
def test_documents(source: Any, tokens: int) -> None:
    assert estimated([{"type": "document", "source": source}]) == tokens


def test_calls_results_and_thinking() -> None:
    assert estimated([{"type": "tool_use", "name": "Read", "input": {"a": "b" * 400}}]) > 100
    assert estimated([{"type": "tool_result", "content": "b" * 400}]) == 104
    assert estimated([{"type": "tool_result", "content": [{"type": "text", "text": "b" * 400}]}]) == 104
    assert estimated([{"type": "thinking", "thinking": "b" * 400, "signature": "s" * 4000}]) == 100
    assert estimated([{"type": "redacted_thinking", "data": "b" * 4000}]) == 0
    assert estimated([{"type": "new_block", "payload": "b" * 400}]) > 100


@given(name=NAMES | TEXTS | JSON, value=JSON | st.dictionaries(TEXTS, JSON, max_size=4))
@example(name="Read", value={"a": "\ud800"})
@example(name="\ud800", value={"a": "é"})
@example(name="é", value={"a": "\ud800"})
@example(name='"\\\n/', value={"a": "\x01 \\u0041"})
@example(name="", value={})
@example(name="Read", value={"a": [float("nan")]})
def test_tool_use_counts_as_json_of_name_and_input(name: Any, value: Any) -> None:
    """Whether the input was serialised before or not."""
    try:
        text = jsonio.dump_text([name, value])
    except jsonio.JSONError:
        text = repr([name, value])
    assert estimated([{"type": "tool_use", "name": name, "input": value}]) == 4 + estimated(text)


def test_system_and_tools() -> None:
    plain = estimated("hi")
    assert estimated("hi", system="b" * 400) == plain + 100
    assert estimated("hi", system=[{"type": "text", "text": "b" * 400}]) == plain + 100
    assert estimated("hi", tools=[{"name": "T", "description": "b" * 400}]) > plain + 100
    assert estimated("hi", tools=[]) == plain


def test_values_without_a_json_form() -> None:
    assert estimated([{"type": "tool_use", "name": "T", "input": {"a": float("nan")}}]) > 4


@pytest.mark.parametrize(
    "payload", [{}, {"messages": None}, {"messages": [3]}, {"messages": [{"content": 3}]}]
)
def test_malformed_payloads(payload: dict[str, Any]) -> None:
    assert estimate_input_tokens(payload) >= 1
