"""Parse and write JSON, with limits. The only module that imports ujson.

ujson accepts ``NaN``, ``01``, raw control characters and lone surrogates. Some upstreams split a surrogate pair over
two chunks; `dumps` writes each half as an escape.
"""

from __future__ import annotations

import gc
import marshal
from typing import Any

import ujson

__all__ = [
    "MAX_DEPTH",
    "MAX_REQUEST_VALUES",
    "MAX_VALUES",
    "JSONError",
    "TooManyValues",
    "content_key",
    "dump_ascii",
    "dump_text",
    "dumps",
    "has_more_values",
    "loads",
]

#: Deepest nesting that is accepted (docs/spec/operations.md#c3); ujson's own limit is 1024.
MAX_DEPTH = 256
#: Most values in one JSON text of an upstream: so many block the event loop for up to 20 ms.
MAX_VALUES = 50_000
#: Most values in a request. Long conversations of Claude Code with hundreds of tools have about 40 000; 31 MB of small
#: values took 12 s and 1 GB.
MAX_REQUEST_VALUES = 200_000
#: Bytes per step when values are counted.
_STEP = 1 << 18

#: Arguments of `ujson.dumps` after the value and ``ensure_ascii``: ``encode_html_chars``, ``escape_forward_slashes``,
#: ``sort_keys``, ``indent`` and ``allow_nan``. Positional, since keywords cost more than writing a small object.
_STRICT = (False, False, False, 0, False)
#: From version 3 on the bytes depend on the identity of the objects, not only on their values.
_MARSHAL_VERSION = 2


class JSONError(ValueError):
    """Invalid JSON, nesting deeper than `MAX_DEPTH`, or a value without a JSON form."""


class TooManyValues(JSONError):
    """More than `MAX_VALUES` values."""


def loads(data: bytes | str, *, is_ours: bool = False, max_values: int = MAX_VALUES) -> Any:
    """Parse one JSON value.

    Args:
        is_ours: written by the proxy from data that was accepted before; the number of values is not limited.

    Raises:
        TooManyValues: parsing would take too much time and memory.
        JSONError: the bytes are not JSON in UTF-8, or nest too deeply. The message never contains the data.
    """
    if not is_ours and has_more_values(data, max_values):
        raise TooManyValues(f"more than {max_values} values")
    try:
        value = ujson.loads(data)
    except (ValueError, RecursionError) as exc:
        # Several messages of ujson contain the input, which may be a prompt: keep their first words only.
        reason = str(exc).split(":", 1)[0].split("'", 1)[0].strip()
        raise JSONError(reason[:100] or "not JSON") from None
    if len(data) > 2 * MAX_DEPTH:  # a shorter one has no room for so many pairs of brackets
        _check_depth(value)
    return value


def dumps(value: Any) -> bytes:
    """Write `value` as compact JSON in UTF-8.

    Raises:
        JSONError: a value without a JSON form, such as NaN.
    """
    try:
        return dump_text(value).encode()
    except UnicodeEncodeError:  # a lone surrogate, which JSON can hold only as an escape
        return ujson.dumps(value, ensure_ascii=True, escape_forward_slashes=False).encode()


def dump_ascii(value: Any) -> bytes:
    """Write compact JSON in ASCII, everything else escaped: 2.6 times as fast as `dumps` for non-ASCII bodies.

    Raises:
        JSONError: as `dumps`.
    """
    try:
        text: str = ujson.dumps(value, True, *_STRICT)
    except (ValueError, OverflowError, TypeError, RecursionError):
        raise JSONError("a value that JSON cannot hold") from None
    return text.encode()


def dump_text(value: Any) -> str:
    """Write compact JSON as text, as in the ``arguments`` of an OpenAI tool call."""
    try:
        return ujson.dumps(value, False, *_STRICT)
    except UnicodeEncodeError:
        return ujson.dumps(value, True, *_STRICT)
    except (ValueError, OverflowError, TypeError, RecursionError):
        raise JSONError("a value that JSON cannot hold") from None


def content_key(value: Any) -> bytes:
    """Return bytes that are equal for equal parsed values only; several times as fast as writing JSON."""
    return marshal.dumps(value, _MARSHAL_VERSION)


def _check_depth(value: Any) -> None:
    # gc.get_referents visits a level in a quarter of the time of the loop below. It also returns keys, and skips
    # dicts without containers: it misses one level at most.
    level = [value]
    for _ in range(MAX_DEPTH - 1):
        level = list(filter(gc.is_tracked, gc.get_referents(*level)))
        if not level:
            return
    level = [value]  # the containers of one depth; ujson creates dicts and lists only
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


def has_more_values(data: bytes | str, limit: int) -> bool:
    """Return whether `data` has more than `limit` commas and opening brackets outside strings.

    Each value but the first one follows one of these. Counting stops once the answer is known.
    """
    if len(data) <= limit:
        return False
    if isinstance(data, str):
        data = data.encode("utf-8", "surrogatepass")
    if _marks_in(data, limit) <= limit:
        return False  # the usual case; this count includes those in strings
    count, at, is_in_string = 0, 0, 0
    while at < len(data):
        end = at + _STEP
        step = data[at:end]
        if (len(step) - len(step.rstrip(b"\\"))) % 2:
            end += 1  # do not split an escape
        # Without escapes each quote begins or ends a string, so every second part is outside of strings.
        parts = data[at:end].replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"')
        count += _marks_in(b"".join(parts[is_in_string::2]), limit)
        if count > limit:
            return True
        is_in_string = (is_in_string + len(parts) - 1) % 2
        at = end
    return False


def _marks_in(data: bytes, enough: int) -> int:
    """Count commas and opening brackets in slices, until there are more than `enough`."""
    count = 0
    for at in range(0, len(data), _STEP):
        step = data[at : at + _STEP]
        count += len(step) - len(step.translate(None, b",[{"))  # in half the time of three counts
        if count > enough:
            break
    return count
