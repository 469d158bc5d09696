"""Escape control characters in untrusted text that is printed on a terminal."""

from __future__ import annotations

__all__ = ["printable"]

_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0))}
_CONTROLS_BUT_LINES = {code: shown for code, shown in _CONTROLS.items() if chr(code) not in "\n\t"}


def printable(text: str, *, has_lines: bool = False) -> str:
    """Return `text` with each C0 and C1 control character as ``\\xNN``.

    Args:
        has_lines: keep line breaks and tabs, as in a traceback.
    """
    if text.isprintable():
        return text
    return text.translate(_CONTROLS_BUT_LINES if has_lines else _CONTROLS)
