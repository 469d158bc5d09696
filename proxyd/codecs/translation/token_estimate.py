"""Estimate the input tokens of a Messages request without a tokenizer (docs/spec/chat-to-messages.md#estimate).

`estimate_input_tokens` counts a whole request; a translation adds up the same functions while it reads the blocks.

An under-estimate delays compaction until the upstream refuses, an over-estimate only brings it forward:
everything is rounded up. ASCII texts cost only a look at their length: CPython knows whether a string is ASCII.
"""

from __future__ import annotations

import base64
import functools
import struct
from typing import Any

from proxyd import jsonio
from proxyd.codecs.cache.tool_inputs import ToolInputs
from proxyd.codecs.cache.tools import tool_list_for

__all__ = [
    "TOKENS_PER_MESSAGE",
    "block_tokens",
    "call_tokens",
    "chars_around",
    "content_tokens",
    "estimate_input_tokens",
    "text_tokens",
    "tools_tokens",
]

#: Bytes of UTF-8 per token. Common tokenizers reach four on English and code. A Chinese or Japanese character is 0.75
#: tokens by this, with 0.55 to 1 in six tokenizers; a Cyrillic one is 0.5, with 0.3 to 0.5 (tests/transcripts/tokens).
BYTES_PER_TOKEN = 4
#: Role, separators and the like.
TOKENS_PER_MESSAGE = 4
#: Anthropic scales an image to fit this many pixels a side and counts its area by the second number.
IMAGE_SIDE_PX, PX_PER_TOKEN = 1568, 750
#: Most tokens of an image, and the estimate for one of unknown size.
MAX_IMAGE_TOKENS = 1600
#: A page of PDF as text and image, and its bytes (a guess).
TOKENS_PER_PAGE, BYTES_PER_PAGE = 2000, 60_000

#: Base64 that is decoded to find a JPEG's size, which follows the metadata; 24 KiB of metadata is a lot.
_HEAD_CHARS = 32_768


def estimate_input_tokens(payload: dict[str, Any], inputs: ToolInputs | None = None) -> int:
    """Estimate a whole request, at least 1.

    Args:
        inputs: keeps serialised tool inputs for the translation.
    """
    inputs = ToolInputs() if inputs is None else inputs
    tokens = content_tokens(payload.get("system"), inputs)
    messages = payload.get("messages")
    for message in messages if isinstance(messages, list) else ():
        tokens += TOKENS_PER_MESSAGE
        if isinstance(message, dict):
            tokens += content_tokens(message.get("content"), inputs)
    return max(1, tokens + tools_tokens(payload.get("tools")))


def tools_tokens(tools: Any) -> int:
    """Estimate a list of tools; cached for lists that are shared between requests."""
    return (
        tool_list_for(tools).cached("tokens", lambda: _json(tools))
        if isinstance(tools, list) and tools
        else 0
    )


def text_tokens(text: str, around: int = 0) -> int:
    """Estimate `text` and `around` more characters of ASCII."""
    size = len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
    return -(-(size + around) // BYTES_PER_TOKEN)


def _json(value: Any) -> int:
    try:
        data = jsonio.dump_ascii(value)
        if b"\\u" not in data:  # the same text as below, in a third of the time
            return -(-len(data) // BYTES_PER_TOKEN)
        return text_tokens(jsonio.dump_text(value))
    except jsonio.JSONError:  # NaN, which our parser accepts
        return text_tokens(repr(value))


def call_tokens(name: Any, value: Any, written: str | None) -> int:
    """Estimate a tool use by the tool's name and its input.

    Args:
        written: the input as JSON, where it can be serialised (`ToolInputs.written`).
    """
    # As `_json` of both in a list, without serialising the input again.
    if written is not None and isinstance(name, str) and (around := chars_around(name)):
        return TOKENS_PER_MESSAGE + text_tokens(written, around)
    return TOKENS_PER_MESSAGE + _json([name, value])


@functools.lru_cache(maxsize=1024)  # a history repeats a few dozen names
def chars_around(name: str) -> int:
    """Return the length of a JSON list of this name and an input, less the input; 0 for a name beyond ASCII."""
    return len(jsonio.dump_text(name)) + len("[,]") if name.isascii() else 0


def content_tokens(content: Any, inputs: ToolInputs) -> int:
    """Estimate a string or a list of blocks."""
    if isinstance(content, str):
        return text_tokens(content)
    tokens = 0
    for block in content if isinstance(content, list) else ():
        if isinstance(block, dict):
            tokens += block_tokens(block, inputs)
    return tokens


def block_tokens(block: dict[str, Any], inputs: ToolInputs) -> int:
    """Estimate one block."""
    kind = block.get("type")
    if kind == "text":
        text = block.get("text")
        return text_tokens(text) if isinstance(text, str) else 0
    if kind == "tool_use":
        value = block.get("input")
        return call_tokens(block.get("name"), value, inputs.as_json(value))
    if kind == "tool_result":
        return TOKENS_PER_MESSAGE + content_tokens(block.get("content"), inputs)
    if kind == "thinking":
        text = block.get("thinking")
        return text_tokens(text) if isinstance(text, str) else 0
    if kind == "image":
        return _image(block.get("source"))
    if kind == "document":
        return _document(block.get("source"), inputs)
    if kind == "redacted_thinking":
        return 0
    return _json(block)


def _document(source: Any, inputs: ToolInputs) -> int:
    if not isinstance(source, dict):
        return 0
    data = source.get("data")
    if isinstance(data, str):
        if source.get("type") == "text":
            return text_tokens(data)
        size_bytes = len(data) * 3 // 4
        return TOKENS_PER_PAGE * max(1, -(-size_bytes // BYTES_PER_PAGE))
    if source.get("type") == "content":
        return content_tokens(source.get("content"), inputs)
    return TOKENS_PER_PAGE


def _image(source: Any) -> int:
    data = source.get("data") if isinstance(source, dict) else None
    size = _pixels(data) if isinstance(data, str) else None
    if size is None:
        return MAX_IMAGE_TOKENS
    width, height = size
    scale = min(1.0, IMAGE_SIDE_PX / max(width, height, 1))
    return min(MAX_IMAGE_TOKENS, int(width * scale * height * scale / PX_PER_TOKEN) + 1)


def _pixels(data: str) -> tuple[int, int] | None:
    """Read width and height from the first bytes of a base64 image; None if they are not there."""
    head = data[:_HEAD_CHARS]
    try:
        raw = base64.b64decode(head[: len(head) // 4 * 4])
    except ValueError:
        return None
    try:
        if raw.startswith(b"\x89PNG\r\n\x1a\n"):
            width, height = struct.unpack_from(">II", raw, 16)
        elif raw.startswith((b"GIF87a", b"GIF89a")):
            width, height = struct.unpack_from("<HH", raw, 6)
        elif raw.startswith(b"RIFF") and raw[8:12] == b"WEBP":
            return _webp(raw)
        elif raw.startswith(b"\xff\xd8"):
            return _jpeg(raw)
        else:
            return None
    except struct.error:
        return None
    return width, height


def _webp(raw: bytes) -> tuple[int, int] | None:
    kind = raw[12:16]
    if kind == b"VP8X":
        return 1 + int.from_bytes(raw[24:27], "little"), 1 + int.from_bytes(raw[27:30], "little")
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", raw, 21)
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", raw, 26)
        return width & 0x3FFF, height & 0x3FFF
    return None


def _jpeg(raw: bytes) -> tuple[int, int] | None:
    """Skip segments until the start of frame (SOF0 to SOF15, without the tables DHT, JPG and DAC)."""
    position = 2
    while raw[position : position + 1] == b"\xff":
        marker, length = struct.unpack_from(">BH", raw, position + 1)
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack_from(">HH", raw, position + 5)
            return width, height
        position += 2 + max(length, 2)
    return None
