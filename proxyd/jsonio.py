"""JSON in and out, with limits. The only module that imports ujson.

ujson is lax where strictness would not help anyone (it takes ``NaN``, ``01`` and raw control characters) and accepts
lone surrogates, which some upstreams split over two chunks; `dumps` writes those back as escapes.
"""

from __future__ import annotations

import gc
import marshal
from typing import Any

import ujson

__all__ = ["MAX_DEPTH", "JSONError", "content_of", "dump_ascii", "dump_text", "dumps", "loads"]

#: Deepest nesting we take (operations.md C3). ujson itself stops at 1024; our walkers recurse less than that.
MAX_DEPTH = 256


#: Arguments of `ujson.dumps` behind the value and ``ensure_ascii``: ``encode_html_chars``, ``escape_forward_slashes``,
#: ``sort_keys``, ``indent`` and ``allow_nan``. By their names they take longer to pass than a small object to write.
_STRICTLY = (False, False, False, 0, False)
#: From the next version on the interpreter's own form depends on which of the objects are the same.
_MARSHAL = 2


class JSONError(ValueError):
    """Not JSON, JSON nested deeper than `MAX_DEPTH`, or a value that JSON cannot hold."""


def loads(data: bytes | str) -> Any:
    """Parse one JSON value.

    Raises:
        JSONError: the bytes are not JSON in UTF-8, or nest too deeply. The message never quotes the data.
    """
    try:
        value = ujson.loads(data)
    except (ValueError, RecursionError) as exc:
        # Several ujson messages quote the input, which may hold a prompt: the first words are enough.
        reason = str(exc).split(":", 1)[0].split("'", 1)[0].strip()
        raise JSONError(reason[:100] or "not JSON") from None
    if len(data) > 2 * MAX_DEPTH:  # else it cannot hold as many pairs of brackets
        _check_depth(value)
    return value


def dumps(value: Any) -> bytes:
    """The compact UTF-8 form of `value`.

    Raises:
        JSONError: a value that has no JSON form, such as NaN.
    """
    try:
        return dump_text(value).encode()
    except UnicodeEncodeError:  # a lone surrogate, legal in JSON only as an escape
        return ujson.dumps(value, ensure_ascii=True, escape_forward_slashes=False).encode()


def dump_ascii(value: Any) -> bytes:
    """As `dumps`, with everything beyond ASCII as escapes: 2.6 times as fast for a body that is not all ASCII.

    Raises:
        JSONError: as `dumps`.
    """
    try:
        text: str = ujson.dumps(value, True, *_STRICTLY)
    except (ValueError, OverflowError, TypeError, RecursionError):
        raise JSONError("a value that JSON cannot hold") from None
    return text.encode()


def dump_text(value: Any) -> str:
    """As `dumps`, as text: what OpenAI calls a tool call's ``arguments``."""
    try:
        return ujson.dumps(value, False, *_STRICTLY)
    except UnicodeEncodeError:
        return ujson.dumps(value, True, *_STRICTLY)
    except (ValueError, OverflowError, TypeError, RecursionError):
        raise JSONError("a value that JSON cannot hold") from None


def content_of(value: Any) -> bytes:
    """What tells `value`, which was parsed, from any other: made several times as fast as JSON."""
    return marshal.dumps(value, _MARSHAL)


def _check_depth(value: Any) -> None:
    # The collector goes through a level in a quarter of the time. It gives keys, too, and need not follow a dict that
    # holds no container: what it does not see is one level at the most.
    level = [value]
    for _ in range(MAX_DEPTH - 1):
        level = list(filter(gc.is_tracked, gc.get_referents(*level)))
        if not level:
            return
    level = [value]  # the containers of one depth; ujson makes no others than dict and list
    for _ in range(MAX_DEPTH):
        level = [
            child
            for node in level
            for child in (node.values() if type(node) is dict else node)
            if type(child) is dict or type(child) is list
        ]
        if not level:
            return
    raise JSONError(f"nested deeper than {MAX_DEPTH} levels")
