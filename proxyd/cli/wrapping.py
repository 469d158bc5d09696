"""Wrap sentences at the width of the terminal: it would break them within words."""

from __future__ import annotations

import shutil
import textwrap
from typing import TextIO

__all__ = ["wrapped"]

_MIN_COLUMNS = 40


def wrapped(text: str, stream: TextIO, *, indent: str = "", used: int = 0) -> str:
    """Return `text` in lines that fit the terminal, or as it is where `stream` is none.

    Args:
        indent: of the lines after the first one.
        used: columns of the first line that are taken already.
    """
    if not stream.isatty():
        return text
    columns = max(_MIN_COLUMNS, shutil.get_terminal_size().columns)
    filled = textwrap.fill(
        text,
        columns,
        initial_indent=" " * used,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return filled[used:]
