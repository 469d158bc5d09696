"""Verdicts in the response of a classifier.

The response begins with one JSON object, ``{"verdicts": [{"id": …, "block": true, "reason": "…"}]}``, in a code fence
or not. What follows it is not read. A response that begins with anything else has no verdict: an object in the middle
of a text may be a quotation of the conversation.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from proxyd import jsonio
from proxyd.server_tools.auto_mode.safeguards import Verdict, evaluated, no_verdict

__all__ = ["ObjectEnd", "read_verdicts", "text_of"]

#: A response is not searched further for the end of its object.
MAX_CHARS = 64 * 1024
#: What may follow the object in a response that is read to its end: the end of a fence.
_MAX_REST = 16
_FENCES = ("```json", "```JSON", "```")


class ObjectEnd:
    """Finds the end of the JSON object with which a text begins, while the text arrives.

    Attributes:
        has_failed: the text begins with something else.
        found: the object, once it is complete.
    """

    def __init__(self) -> None:
        self.found: str | None = None
        self._text = ""
        self._at = 0
        self._start = -1
        self._depth = 0
        self._is_in_string = False
        self._is_escaped = False
        self.has_failed = False

    def feed(self, part: str) -> str | None:
        """Take the next part; return the object if it is complete."""
        self._text += part
        if self.found is not None:
            return self.found
        if self._start < 0 and not self._find_start():
            return None
        if len(self._text) > MAX_CHARS:
            self.has_failed = True
        while self._at < len(self._text) and not self.has_failed:
            sign = self._text[self._at]
            self._at += 1
            if self._is_escaped:
                self._is_escaped = False
            elif self._is_in_string:
                self._is_escaped = sign == "\\"
                self._is_in_string = sign != '"'
            elif sign == '"':
                self._is_in_string = True
            elif sign in "{[":
                self._depth += 1
            elif sign in "}]":
                self._depth -= 1
                if not self._depth:
                    self.found = self._text[self._start : self._at]
                    return self.found
        return None

    @property
    def needs_no_more(self) -> bool:
        """Whether the rest of the response does not matter.

        One that ends right after the object is read to its end, for the usage and so that the connection can be used
        again; one that goes on is not.
        """
        if self.found is None:
            return self.has_failed
        return len(self._text[self._at : self._at + 2 * _MAX_REST].strip()) > _MAX_REST

    def _find_start(self) -> bool:
        text = self._text.lstrip()
        if any(fence.startswith(text) for fence in _FENCES):
            return False  # it may become a fence
        for fence in _FENCES:
            if text.startswith(fence):
                text = text[len(fence) :].lstrip()
                break
        if text.startswith("{"):
            self._start = self._at = len(self._text) - len(text)
            return True
        self.has_failed = bool(text)
        return False


def text_of(message: Mapping[str, Any]) -> str:
    """Return the text of a whole message, without its thinking."""
    content = message.get("content")
    blocks = content if isinstance(content, list) else []
    return "".join(
        str(block.get("text", ""))
        for block in blocks
        if isinstance(block, Mapping) and block.get("type") == "text"
    )


def read_verdicts(
    message: Mapping[str, Any], ids: Collection[str], *, default_reason: str = ""
) -> dict[str, Verdict]:
    """Return a verdict for each of `ids`; where the response has none, the reason stands for it.

    Args:
        message: the classifier's response as a whole message.
        default_reason: the explanation of a block without a reason.
    """
    stop_reason = message.get("stop_reason")
    if stop_reason == "refusal":
        return dict.fromkeys(ids, no_verdict("refused"))
    missing = no_verdict("truncated" if stop_reason == "max_tokens" else "error")
    found = ObjectEnd().feed(text_of(message))
    try:
        value = None if found is None else jsonio.loads(found)
    except jsonio.JSONError:
        value = None
    listed = value.get("verdicts") if isinstance(value, dict) else None
    if not isinstance(listed, list):
        return dict.fromkeys(ids, missing)
    verdicts: dict[str, Verdict] = {}
    for entry in listed:
        if not isinstance(entry, dict) or not isinstance(entry.get("block"), bool):
            continue
        name = entry.get("id")
        if not isinstance(name, str) or name not in ids:
            continue
        if name in verdicts and not entry["block"]:  # of two verdicts the strict one counts
            continue
        reason = entry.get("reason")
        explanation = reason if isinstance(reason, str) and reason.strip() else default_reason
        verdicts[name] = evaluated(
            is_flagged=entry["block"], explanation=explanation if entry["block"] else ""
        )
    return {name: verdicts.get(name, no_verdict("error")) for name in ids}
