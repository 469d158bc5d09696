"""Read the inside of a JSON string that stands between known bytes, without parsing what is around it."""

from __future__ import annotations

from proxyd import jsonio

__all__ = ["NO_LITERAL", "read_literal"]

#: What `read_literal` returns for what is no whole string.
NO_LITERAL = ("", b"")


def read_literal(literal: bytes) -> tuple[str, bytes]:
    """Return the text of a JSON string without its quotes, and the bytes between the quotes as `jsonio` writes them.

    Returns `NO_LITERAL` for an empty string, and for bytes that are no whole string on one line.
    """
    try:
        text = literal.decode()
        if '"' not in text and "\\" not in text and text.isprintable():
            return text, literal  # nearly every delta
        if b"\n" in literal:
            return NO_LITERAL  # another line of the frame
        if b"\\" in literal:
            text = str(jsonio.loads(b'"%b"' % literal))
        elif '"' in text:
            return NO_LITERAL
    except ValueError:
        return NO_LITERAL
    return text, jsonio.dumps(text)[1:-1]
