"""Read what a person pastes where a key is asked for."""

from __future__ import annotations

import re
from collections.abc import Mapping

__all__ = ["read_pasted_key", "variable_named"]

_ASSIGNMENT = re.compile(r"(?:export\s+)?[A-Za-z_][A-Za-z0-9_]*\s*=\s*(.+)\Z", re.DOTALL)
_VARIABLE = re.compile(r"\$?\{?([A-Za-z_][A-Za-z0-9_]*)\}?\Z")
#: Written with capitals and underscores, which no vendor's key is.
_LOOKS_LIKE_NAME = re.compile(r"\$?\{?[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+\}?\Z")
_HEADER = re.compile(
    r"(?:authorization\s*:\s*)?bearer(?:\s+|\Z)|(?:x-api-key|api-key|x-goog-api-key)\s*:\s*", re.I
)
_QUOTES = {'"': '"', "'": "'", "`": "`", "“": "”", "‘": "’"}
#: Shorter texts are mistakes of pasting; keys have 20 characters and more.
_MIN_CHARS = 8
_MAX_CHARS = 8192


def variable_named(text: str, environ: Mapping[str, str]) -> str | None:
    """Return the name of the environment variable that `text` names, or None where it is no name of one.

    A text is a name if such a variable is set, if it is written ``$NAME`` or ``${NAME}``, or if it has the form of one
    (``MOONSHOT_API_KEY``).
    """
    text = text.strip()
    match = _VARIABLE.match(text)
    if match is None:
        return None
    if text.startswith("$") or match[1] in environ or _LOOKS_LIKE_NAME.match(text):
        return match[1]
    return None


def read_pasted_key(text: str) -> str:
    """Return the key in `text`, without blanks, quotes, a header's name, ``Bearer`` or ``NAME=`` around it.

    Raises:
        ValueError: it holds no key. The message holds no part of `text`.
    """
    found = text.strip()
    for _ in range(4):  # "export KEY='Bearer sk-…'" has three layers
        before = found
        match = _ASSIGNMENT.match(found)
        # A key may end in "=", as base64 does, but does not have one after a word in front.
        if match is not None and match[1].strip("= "):
            found = match[1].strip().rstrip(";").strip()
        if len(found) >= 2 and _QUOTES.get(found[0]) == found[-1]:
            found = found[1:-1].strip()
        found = _HEADER.sub("", found, count=1).strip() if _HEADER.match(found) else found
        if found == before:
            break
    if not found:
        raise ValueError("expected a key; got nothing")
    if any(character.isspace() for character in found):
        raise ValueError("expected a key without blanks or line breaks inside; copy the key alone")
    if not found.isascii() or not found.isprintable():
        raise ValueError("expected a key of printable ASCII characters; copy it again from the vendor's page")
    if any(character in "*…" for character in found):
        raise ValueError("this is a masked key; the vendor's page shows it whole once, when it is made")
    if not _MIN_CHARS <= len(found) <= _MAX_CHARS:
        raise ValueError(f"expected a key of {_MIN_CHARS} to {_MAX_CHARS} characters; got {len(found)}")
    return found
