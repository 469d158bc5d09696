"""Decode the inside of a JSON string that stands between known bytes, without parsing what is around it."""

from __future__ import annotations

from proxyd import jsonio

__all__ = ["decoded_literal"]


def decoded_literal(literal: bytes) -> str:
    """Return the text of a JSON string without its quotes; "" for an empty one, and for bytes that are no whole string
    on one line."""
    try:
        text = literal.decode()
        if '"' not in text and "\\" not in text and text.isprintable():
            return text  # nearly every delta
        if b"\n" in literal:
            return ""  # another line of the frame
        if b"\\" in literal:
            return str(jsonio.loads(b'"%b"' % literal))
    except ValueError:
        return ""
    return "" if '"' in text else text
