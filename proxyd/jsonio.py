"""JSON in and out, with limits. The only module that imports ujson.

ujson is lax where strictness would not help anyone (it takes ``NaN``, ``01`` and raw control characters) and accepts
lone surrogates, which some upstreams split over two chunks; `dumps` writes those back as escapes.
"""

from __future__ import annotations

import gc
import marshal
from typing import Any

import ujson

__all__ = [
    "MAX_DEPTH",
    "MAX_VALUES",
    "JSONError",
    "TooManyValues",
    "content_key",
    "dump_ascii",
    "dump_text",
    "dumps",
    "loads",
]

#: Deepest nesting we take (docs/spec/operations.md#c3). ujson itself stops at 1024; our walkers recurse less than
#: that.
MAX_DEPTH = 256
#: Most values in one JSON text: they take up to 0.2 s to parse and 60 MB, where 31 MB of them took 12 s and 1 GB. Long
#: conversations of Claude Code with hundreds of tools have some 40 000.
MAX_VALUES = 200_000
#: How much is looked at in one step when values are counted.
_STEP = 1 << 18


#: Arguments of `ujson.dumps` behind the value and ``ensure_ascii``: ``encode_html_chars``, ``escape_forward_slashes``,
#: ``sort_keys``, ``indent`` and ``allow_nan``. By their names they take longer to pass than a small object to write.
_STRICTLY = (False, False, False, 0, False)
#: From the next version on the interpreter's own form depends on which of the objects are the same.
_MARSHAL = 2


class JSONError(ValueError):
    """Not JSON, JSON nested deeper than `MAX_DEPTH`, or a value that JSON cannot hold."""


class TooManyValues(JSONError):
    """More than `MAX_VALUES` values."""


def loads(data: bytes | str, *, is_ours: bool = False) -> Any:
    """Parse one JSON value.

    Args:
        is_ours: it was made here, of what was taken before: however many values it has.

    Raises:
        TooManyValues: it would take too long, and too much memory.
        JSONError: the bytes are not JSON in UTF-8, or nest too deeply. The message never quotes the data.
    """
    if len(data) > MAX_VALUES and not is_ours and _has_too_many_values(data):
        raise TooManyValues(f"more than {MAX_VALUES} values")
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


def content_key(value: Any) -> bytes:
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


def _has_too_many_values(data: bytes | str) -> bool:
    """Whether `data` has more than `MAX_VALUES` commas and opening brackets that do not stand in strings: each value
    but the first of all comes behind one.
    """
    if isinstance(data, str):
        data = data.encode("utf-8", "surrogatepass")
    if data.count(b",") + data.count(b"[") + data.count(b"{") <= MAX_VALUES:
        return False  # nearly always; those in strings are counted as well
    count, at, is_in_string = 0, 0, 0
    while at < len(data):
        end = at + _STEP
        step = data[at:end]
        if (len(step) - len(step.rstrip(b"\\"))) % 2:
            end += 1  # an escape is not to be parted
        # Without escapes a quote begins or ends a string, so every second part is none.
        parts = data[at:end].replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"')
        outside = b"".join(parts[is_in_string::2])
        count += outside.count(b",") + outside.count(b"[") + outside.count(b"{")
        if count > MAX_VALUES:
            return True
        is_in_string = (is_in_string + len(parts) - 1) % 2
        at = end
    return False
