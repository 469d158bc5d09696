"""Bound the input tokens of a Messages request from below, whatever tokenizer the upstream has.

A request may be refused without asking the upstream only where this bound is above the model's window: an estimate can
be far too high for one kind of text and right for another.

Tokenizers split a text before they look up its parts: at white space, between letters and other characters, and
numbers at every third digit at the latest. Each part is at least one token. Whatever an upstream may leave out counts
nothing: thinking, images, files, block types that it does not have, and deferred tools.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator
from typing import Any

from proxyd import jsonio

__all__ = ["least_input_tokens", "least_text_tokens"]

#: Letters, with an apostrophe in the middle, or up to three digits. Combining marks and non-ASCII punctuation count as
#: letters, which makes the parts fewer.
_PART = re.compile(r"[A-Za-z\x80-\U0010ffff]+(?:'[A-Za-z\x80-\U0010ffff]+)*|[0-9]{1,3}")
#: Scripts without blanks between words: no common token is longer than four of their characters.
_HAN_AND_KANA = re.compile(r"[\u2e80-\ua4cf\uf900-\ufaff]")
_CHARS_PER_TOKEN = 4
#: Share of the parts within a word that count: a few tokens span letters and punctuation, such as ``");``.
_NUMERATOR, _DENOMINATOR = 3, 4

#: Every chat template marks at least one role.
_TEMPLATE_TOKENS = 1
#: Longer lists of tools may be cut by the upstream's limit.
_MAX_TOOLS = 128
#: A long text is counted in slices; after so many characters other tasks run, which is a few milliseconds.
_SLICE_CHARS, _YIELD_CHARS = 16_384, 32_768


def least_input_tokens(payload: dict[str, Any], enough: int) -> Generator[None, None, int]:
    """Return the least number of input tokens that a request can have, yielding now and then.

    Args:
        enough: stop counting above this number.
    """
    if _is_edited_upstream(payload.get("context_management")):
        return 0
    tokens, since_yield = _TEMPLATE_TOKENS, 0
    for text in _texts_of(payload):
        for start in range(0, len(text), _SLICE_CHARS):
            # A word that is cut into two slices counts once.
            part = text[start : start + _SLICE_CHARS]
            tokens += least_text_tokens(part) - (start > 0)
            if tokens > enough:
                return tokens
            since_yield += len(part)
            if since_yield >= _YIELD_CHARS:
                since_yield = 0
                yield
    return tokens


def least_text_tokens(text: str) -> int:
    """Return the least number of tokens of a text."""
    words = len(text.split())
    within = max(0, len(_PART.findall(text)) - words) * _NUMERATOR // _DENOMINATOR
    wide = 0 if text.isascii() else len(_HAN_AND_KANA.findall(text)) // _CHARS_PER_TOKEN
    return words + within + wide


def _is_edited_upstream(context_management: Any) -> bool:
    """Whether the upstream removes parts of the conversation before it counts; thinking counts nothing anyway."""
    edits = context_management.get("edits") if isinstance(context_management, dict) else None
    return any(
        not (isinstance(edit, dict) and str(edit.get("type")).startswith("clear_thinking"))
        for edit in (edits if isinstance(edits, list) else ())
    )


def _texts_of(payload: dict[str, Any]) -> Iterator[str]:
    """Yield the texts of a request that every upstream gets."""
    yield from _content(payload.get("system"))
    messages = payload.get("messages")
    for message in messages if isinstance(messages, list) else ():
        if isinstance(message, dict) and "clear_at" not in message:
            yield from _content(message.get("content"))
    yield from _descriptions(payload.get("tools"))


def _content(content: Any) -> Iterator[str]:
    if isinstance(content, str):
        yield content
    elif isinstance(content, list):
        for block in content:
            if isinstance(block, dict):
                yield from _block(block)


def _block(block: dict[str, Any]) -> Iterator[str]:
    kind = block.get("type")
    if kind == "text" and isinstance(block.get("text"), str):
        yield block["text"]
    elif kind == "tool_result":
        yield from _content(block.get("content"))
    elif kind == "tool_use" and isinstance(block.get("input"), dict):
        # The template may print the arguments in another form: only the values count.
        for value in block["input"].values():
            yield from _value(value)


def _value(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, (dict, list)):
        try:
            yield jsonio.dump_text(value)
        except jsonio.JSONError:
            pass  # NaN, which our parser accepts


def _descriptions(tools: Any) -> Iterator[str]:
    """Yield the descriptions of tools; how the rest of a definition is printed depends on the template."""
    if not isinstance(tools, list) or len(tools) > _MAX_TOOLS:
        return
    for tool in tools:
        if (
            isinstance(tool, dict)
            and isinstance(tool.get("description"), str)
            and isinstance(tool.get("input_schema"), dict)
            and not tool.get("defer_loading")
        ):
            yield tool["description"]
