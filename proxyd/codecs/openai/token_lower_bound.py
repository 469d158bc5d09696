"""Bound the input tokens of a Messages request from below, whatever tokenizer the upstream has.

A request may be refused without asking the upstream only where this bound is above the model's window: an estimate can
be far too high for one kind of text and right for another.

Tokenizers split a text before they look up its parts: at white space, between letters and other characters, and
numbers at every third digit at the latest. Each part is at least one token. Whatever an upstream may leave out counts
nothing: thinking, images, files, block types that it does not have, and deferred tools.
"""

from __future__ import annotations

import re
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


def least_input_tokens(payload: dict[str, Any]) -> int:
    """Return the least number of input tokens that a request can have."""
    if _is_edited_upstream(payload.get("context_management")):
        return 0
    tokens = _content(payload.get("system"))
    messages = payload.get("messages")
    for message in messages if isinstance(messages, list) else ():
        if isinstance(message, dict) and "clear_at" not in message:
            tokens += _content(message.get("content"))
    return _TEMPLATE_TOKENS + tokens + _tools(payload.get("tools"))


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


def _content(content: Any) -> int:
    if isinstance(content, str):
        return least_text_tokens(content)
    return sum(map(_block, content)) if isinstance(content, list) else 0


def _block(block: Any) -> int:
    if not isinstance(block, dict):
        return 0
    kind = block.get("type")
    if kind == "text":
        text = block.get("text")
        return least_text_tokens(text) if isinstance(text, str) else 0
    if kind == "tool_result":
        return _content(block.get("content"))
    if kind == "tool_use" and isinstance(block.get("input"), dict):
        # The template may print the arguments in another form: only the values count.
        return sum(map(_value, block["input"].values()))
    return 0


def _value(value: Any) -> int:
    if isinstance(value, str):
        return least_text_tokens(value)
    try:
        return least_text_tokens(jsonio.dump_text(value)) if isinstance(value, (dict, list)) else 0
    except jsonio.JSONError:
        return 0


def _tools(tools: Any) -> int:
    """Count the descriptions: how the rest of a definition is printed is the template's business."""
    if not isinstance(tools, list) or len(tools) > _MAX_TOOLS:
        return 0
    return sum(
        least_text_tokens(tool["description"])
        for tool in tools
        if isinstance(tool, dict)
        and isinstance(tool.get("description"), str)
        and isinstance(tool.get("input_schema"), dict)
        and not tool.get("defer_loading")
    )
