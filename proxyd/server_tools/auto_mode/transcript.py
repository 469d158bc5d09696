"""The conversation as the classifier reads it: the user's words, then what the model did, quoted and bounded.

Everything is quoted as JSON on one line for each entry. ``<`` and ``>``, invisible and bidirectional characters are
escaped, so that no text of the conversation can end its section, imitate another one or hide from the reader.

The user's words come first: they alone can permit something. Claude Code puts its own notes into messages of the user
as well; a text that begins like one of them is a note. Results of tools are the shortest part, since they are the
way in which others write into a conversation.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from proxyd import jsonio

__all__ = [
    "MAX_CHARS",
    "MAX_LINE",
    "MAX_RESULT",
    "clip",
    "is_note",
    "quoted",
    "steps_of",
    "transcript",
    "user_words",
]

#: Limits in characters: of words and transcript together, of one entry, of the result of a tool.
MAX_CHARS, MAX_LINE, MAX_RESULT = 24_000, 2_000, 500
#: The part that the user's words may take.
_MAX_WORDS = 10_000
_CUT = " …[{} characters left out]… "

#: How notes of Claude Code begin that stand in messages of the user.
_NOTES = ("<system-reminder>", "[SYSTEM NOTIFICATION", "[handback-", "<local-command-", "<command-", "<task-")
#: Characters that a reader does not see, or that change what it sees; the brackets of our sections.
_ESCAPED = re.compile(
    "[<>\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff\ufff9-\ufffb"
    "\U000e0000-\U000e0fff]"
)


def quoted(value: Any) -> str:
    """Return `value` as JSON on one line, without characters that could pass for something else."""
    return _ESCAPED.sub(_escape, jsonio.dump_text(value))


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    if code > 0xFFFF:
        code -= 0x10000
        return f"\\u{0xD800 + (code >> 10):04x}\\u{0xDC00 + (code & 0x3FF):04x}"
    return f"\\u{code:04x}"


def user_words(messages: Any) -> list[str]:
    """Return the texts that the user has written, the oldest first."""
    return [text for message in _of_role(messages, "user") for text in _texts(message) if not is_note(text)]


def transcript(messages: Any, *, room: int) -> list[str]:
    """Return the newest entries of a conversation without the user's words, quoted, the oldest first.

    Args:
        room: characters that they may take together.
    """
    found: list[str] = []
    for entry in reversed(list(_entries(messages))):
        line = quoted(entry)
        room -= len(line) + 1
        if room < 0:
            found.append(quoted({"note": "earlier entries are left out"}))
            break
        found.append(line)
    return found[::-1]


def words_within(words: Sequence[str], room: int = _MAX_WORDS) -> list[str]:
    """Return the user's words quoted: the first, which names the task, and the newest of the others."""
    if not words:
        return []
    first, rest = quoted(clip(words[0], MAX_LINE)), list[str]()
    room -= len(first)
    for text in reversed(words[1:]):
        line = quoted(clip(text, MAX_LINE))
        room -= len(line) + 1
        if room < 0:
            rest.append(quoted("(some of the user's words between are left out)"))
            break
        rest.append(line)
    return [first, *rest[::-1]]


def steps_of(messages: Any) -> Iterator[tuple[str, Any]]:
    """Yield name and input of each call of a tool in the conversation."""
    for message in _of_role(messages, "assistant"):
        for block in _blocks(message):
            if block.get("type") == "tool_use":
                yield str(block.get("name")), block.get("input")


def _entries(messages: Any) -> Iterator[dict[str, Any]]:
    """Yield what the model said and called, results, and notes of the client, in order."""
    names: dict[Any, str] = {}
    for message in _dicts(messages):
        role = message.get("role")
        for block in _blocks(message):
            kind = block.get("type")
            if kind == "text":
                text = str(block.get("text", ""))
                if role == "assistant":
                    yield {"model": clip(text, MAX_LINE)}
                elif role != "user" or is_note(text):
                    yield {"client": clip(text, MAX_LINE)}
            elif kind == "tool_use":
                name = str(block.get("name"))[:200]
                names[block.get("id")] = name
                yield {"call": name, "input": clip(jsonio.dump_text(block.get("input")), MAX_LINE)}
            elif kind == "tool_result":
                name = names.get(block.get("tool_use_id"), "a tool")
                yield {"result_of": name, "text": clip("\n".join(_texts(block)), MAX_RESULT)}


def clip(text: str, limit: int) -> str:
    """Return `text` with its middle left out where it is longer than `limit`."""
    if len(text) <= limit:
        return text
    mark = _CUT.format(len(text) - limit)
    half = (limit - len(mark)) // 2
    return text[:half] + mark + text[-half:]


def is_note(text: str) -> bool:
    """Whether a text in a message of the user is one that Claude Code has added."""
    return text.lstrip().startswith(_NOTES)


def _of_role(messages: Any, role: str) -> Iterator[Mapping[str, Any]]:
    return (message for message in _dicts(messages) if message.get("role") == role)


def _texts(holder: Mapping[str, Any]) -> list[str]:
    return [str(block.get("text", "")) for block in _blocks(holder) if block.get("type") == "text"]


def _blocks(holder: Mapping[str, Any]) -> Iterable[Mapping[str, Any]]:
    content = holder.get("content")
    return [{"type": "text", "text": content}] if isinstance(content, str) else _dicts(content)


def _dicts(value: Any) -> list[Mapping[str, Any]]:
    return [each for each in value if isinstance(each, Mapping)] if isinstance(value, list) else []
