"""Kinds of the values in models.yaml, flags and the environment.

A `Kind` defines the valid values in one place: the reader, its error texts, and the JSON Schema for editors. A reader
takes plain data and reports each fault with the path to the faulty part.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any
from urllib.parse import urlsplit

from proxyd.config.faults import hint, shown
from proxyd.jsonio import JSONError, loads

__all__ = [
    "MAX_TOKENS",
    "Kind",
    "Report",
    "address",
    "boolean",
    "choice",
    "free_text",
    "header_patterns",
    "headers",
    "identifier",
    "json_mapping",
    "list_of",
    "names",
    "number",
    "secret_text",
    "size_bytes",
    "table",
    "text",
    "token_count",
    "whole_number",
]

#: Called for each fault: the path below the value, the sentence, whether the key itself is at fault.
Report = Callable[[tuple["str | int", ...], str, bool], None]

#: Largest token count: a thousand times the largest window in 2026; a larger one is a typing error.
MAX_TOKENS = 1_000_000_000

_NUMBER = re.compile(r"-?\d{1,15}(\.\d{1,15})?")
_COUNT = re.compile(r"(?P<whole>\d{1,12}(?:_\d{1,12})*)(?P<part>\.\d{1,12})? ?(?P<unit>[kKmM])?")
_SIZE = re.compile(r"(?P<whole>\d{1,15}(?:_\d{1,12})*) ?(?P<unit>KiB|MiB|GiB)?", re.IGNORECASE)
_HEADER_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")  # RFC 9110, 5.6.2: token
_HEADER_PATTERN = r"[!#$%&'+\-.^_`|~0-9A-Za-z]*\*?"  # RFC 9110 allows "*" in a name; here it is the wildcard
_HEADER_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")  # RFC 9110, 5.5: field-content as latin-1
_UNIT_TOKENS = {"": 1, "k": 1_000, "m": 1_000_000}
_UNIT_BYTES = {"": 1, "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30}

#: Headers of the connection (RFC 9110, 7.6.1) or derived from the body.
_RESERVED_HEADERS = frozenset(
    {"connection", "content-length", "cookie", "expect", "host", "keep-alive", "proxy-connection", "te"}
    | {"trailer", "transfer-encoding", "upgrade"}
)


@dataclass(frozen=True)
class Kind:
    """Definition of the valid values of a key, setting or quirk.

    Attributes:
        expected: the end of "expected …" in messages.
        read: plain data -> the value in force, or None after a report.
        schema: the JSON Schema of what `read` accepts, as far as a schema can express it.
        from_text: parses a text from the command line or the environment. A text that it cannot parse is returned
            unchanged, and `read` refuses it.
    """

    expected: str
    read: Callable[[Any, Report], Any]
    schema: Mapping[str, Any]
    from_text: Callable[[str], Any] = str


def _wrong(expected: str, value: Any, report: Report) -> None:
    report((), f"expected {expected}; got {shown(value)}", False)


def boolean() -> Kind:
    """Kind of a boolean."""
    expected = "true or false"

    def read(value: Any, report: Report) -> bool | None:
        if isinstance(value, bool):
            return value
        _wrong(expected, value, report)
        return None

    words = {"true": True, "yes": True, "on": True, "1": True}
    words |= {"false": False, "no": False, "off": False, "0": False}
    return Kind(expected, read, {"type": "boolean"}, lambda word: words.get(word.lower(), word))


def text(expected: str = "a text") -> Kind:
    """Kind of a text on one line that is not empty."""

    def read(value: Any, report: Report) -> str | None:
        if not isinstance(value, str) or not value.strip():
            quoted = isinstance(value, (int, float)) and not isinstance(value, bool)
            report(
                (),
                f"expected {expected}; got {shown(value)}{', which needs quotes' if quoted else ''}",
                False,
            )
        elif not value.isprintable():
            report((), f"expected {expected}; got one with control characters or line breaks", False)
        else:
            return value
        return None

    return Kind(expected, read, {"type": "string", "minLength": 1})


def secret_text(expected: str) -> Kind:
    """Kind of a text that no message repeats."""

    def read(value: Any, report: Report) -> str | None:
        if isinstance(value, str) and value.strip() and value.isprintable():
            return value
        remedy = "; quote it" if isinstance(value, (int, float)) else ""
        report((), f"expected {expected} as one line of text{remedy}", False)
        return None

    return Kind(expected, read, {"type": "string", "minLength": 1})


def free_text(expected: str, is_allowed: Callable[[str], bool] = str.isprintable) -> Kind:
    """Kind of a text on one line that may be empty, which means none."""

    def read(value: Any, report: Report) -> str | None:
        if isinstance(value, str) and value.isprintable() and (not value or is_allowed(value)):
            return value
        _wrong(expected, value, report)
        return None

    return Kind(expected, read, {"type": "string"})


def address() -> Kind:
    """Kind of an HTTP address, which no message repeats."""
    expected = "an http:// or https:// address without credentials"

    def read(value: Any, report: Report) -> str | None:
        try:
            url = urlsplit(value if isinstance(value, str) else "")
            is_valid = url.scheme in ("http", "https") and bool(url.hostname) and url.port != 0
        except ValueError:
            is_valid = False
        if not is_valid or url.username is not None or url.query or url.fragment:
            report((), f"expected {expected}, query and fragment", False)
            return None
        return str(value).rstrip("/")

    return Kind(expected, read, {"type": "string", "pattern": "^https?://[^\\s@?#]+$"})


def identifier(expected: str) -> Kind:
    """Kind of a model id: at most 256 characters, no space around it."""
    inner = text(expected)

    def read(value: Any, report: Report) -> str | None:
        name = inner.read(value, report)
        if isinstance(name, str) and (name != name.strip() or len(name) > 256):
            report((), f"expected {expected} of at most 256 characters without spaces around it", False)
            return None
        return name if isinstance(name, str) else None

    return Kind(expected, read, {"type": "string", "minLength": 1, "maxLength": 256})


def choice(*allowed: str) -> Kind:
    """Kind of a text from a fixed set."""
    expected = f"one of {', '.join(allowed)}"

    def read(value: Any, report: Report) -> str | None:
        if isinstance(value, str) and value in allowed:
            return value
        _wrong(expected, value, report)
        return None

    return Kind(expected, read, {"enum": list(allowed)})


def number(minimum: float, maximum: float | None = None, *, what: str = "a number") -> Kind:
    """Kind of a finite number within bounds, both included."""
    bounds = (
        f"from {minimum:.15g} to {maximum:.15g}" if maximum is not None else f"of at least {minimum:.15g}"
    )
    expected = f"{what} {bounds}"

    def read(value: Any, report: Report) -> float | None:
        # A flag may hold nan, which is outside all bounds.
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if is_number and minimum <= value <= (maximum if maximum is not None else 1e15):
            return float(value)
        _wrong(expected, value, report)
        return None

    schema: dict[str, Any] = {"type": "number", "minimum": minimum}
    return Kind(expected, read, schema if maximum is None else {**schema, "maximum": maximum}, _number)


def whole_number(minimum: int, maximum: int) -> Kind:
    """Kind of an integer within bounds, both included."""
    expected = f"a whole number from {minimum} to {maximum}"

    def read(value: Any, report: Report) -> int | None:
        if isinstance(value, int) and not isinstance(value, bool) and minimum <= value <= maximum:
            return value
        _wrong(expected, value, report)
        return None

    return Kind(expected, read, {"type": "integer", "minimum": minimum, "maximum": maximum}, _number)


def token_count() -> Kind:
    """Kind of an integer, or the shorthand of docs/spec/design.md#token-counts: ``8k`` is 8 000, ``1.5k`` 1 500,
    ``1m`` 1 000 000, any case.
    """
    expected = "a token count above 0 such as 8192, 8_192, 8k or 1.5m"

    def read(value: Any, report: Report) -> int | None:
        count = _scaled(str(value), _COUNT, _UNIT_TOKENS) if type(value) in (int, str) else None
        if count is None or not 1 <= count <= MAX_TOKENS:
            _wrong(expected, value, report)
            return None
        return count

    pattern = r"^[0-9]+(_[0-9]+)*(\.[0-9]+)? ?[kKmM]?$"
    schema = {"anyOf": [{"type": "integer", "minimum": 1}, {"type": "string", "pattern": pattern}]}
    return Kind(expected, read, schema)


def size_bytes(minimum: int, maximum: int) -> Kind:
    """Kind of a number of bytes, with or without a unit: ``32 MiB``."""
    expected = f"a size in bytes from {minimum} to {maximum}, such as 33554432 or '32 MiB'"

    def read(value: Any, report: Report) -> int | None:
        size = _scaled(str(value), _SIZE, _UNIT_BYTES) if type(value) in (int, str) else None
        if size is None or not minimum <= size <= maximum:
            _wrong(expected, value, report)
            return None
        return size

    pattern = r"^[0-9]+(_[0-9]+)* ?([KkMmGg][Ii][Bb])?$"
    schema = {
        "anyOf": [
            {"type": "integer", "minimum": minimum, "maximum": maximum},
            {"type": "string", "pattern": pattern},
        ]
    }
    return Kind(expected, read, schema)


def names(expected: str, *, refused: Mapping[str, str] | None = None) -> Kind:
    """Kind of a list of texts, or one text for a list of one; `refused` maps forbidden texts to the reason."""
    return list_of(identifier(expected), refused or {})


def header_patterns(expected: str, is_useless: Callable[[str], bool]) -> Kind:
    """Kind of a list of header names, or prefixes of header names followed by ``*``.

    Args:
        is_useless: whether no header that a pattern matches is ever forwarded.
    """
    inner = identifier(expected)

    def read(value: Any, report: Report) -> str | None:
        name = inner.read(value, report)
        if name is None:
            return None
        if not re.fullmatch(_HEADER_PATTERN, name):
            _wrong(expected, name, report)
        elif is_useless(name):
            report((), f"the header {shown(name)} is never passed on as it came; remove it", False)
        else:
            return str(name)
        return None

    return list_of(Kind(expected, read, {**inner.schema, "pattern": f"^{_HEADER_PATTERN}$"}), {})


def list_of(one: Kind, forbidden: Mapping[str, str]) -> Kind:
    """Kind of a list of texts, or one text for a list of one; `forbidden` maps texts to the reason."""

    def read(value: Any, report: Report) -> tuple[str, ...] | None:
        is_list = isinstance(value, list)
        if not is_list and not isinstance(value, str):
            report((), f"expected a list of texts, each {one.expected}; got {shown(value)}", False)
            return None
        found: list[str] = []
        for index, item in enumerate(value if is_list else [value]):
            path: tuple[str | int, ...] = (index,) if is_list else ()
            name = one.read(item, _below(report, path))
            if name in forbidden:
                report(path, forbidden[name], False)
            elif name in found:
                report(path, f"'{name}' stands here twice; keep one", False)
            elif name is not None:
                found.append(name)
        return tuple(found)

    schema = {"anyOf": [{"type": "array", "items": one.schema, "uniqueItems": True}, one.schema]}

    def split(line: str) -> list[str]:
        return [part.strip() for part in line.split(",") if part.strip()]

    return Kind(f"a list of texts, each {one.expected}", read, schema, split)


def json_mapping(expected: str) -> Kind:
    """Kind of a mapping of any JSON values."""

    def read(value: Any, report: Report) -> dict[str, Any] | None:
        if isinstance(value, dict):
            return value
        _wrong(expected, value, report)
        return None

    def parse(source: str) -> Any:
        try:
            return loads(source)
        except JSONError:
            return source

    return Kind(expected, read, {"type": "object"}, parse)


def choice_mapping(choices: Mapping[str, tuple[str, ...]]) -> Kind:
    """Kind of a mapping with known names, each with a text from a fixed set."""
    expected = "a mapping such as " + ", ".join(f"{{{name}: {words[-1]}}}" for name, words in choices.items())
    kinds = {name: choice(*words) for name, words in choices.items()}

    def read(value: Any, report: Report) -> dict[str, str] | None:
        if not isinstance(value, dict):
            _wrong(expected, value, report)
            return None
        found: dict[str, str] = {}
        for name, word in value.items():
            if name not in kinds:
                report((name,), f"{shown(name)} is unknown here; {hint(str(name), kinds)}", True)
                continue
            if (one := kinds[name].read(word, _below(report, (name,)))) is not None:
                found[name] = one
        return found

    schema = {
        "type": "object",
        "properties": {name: kind.schema for name, kind in kinds.items()},
        "additionalProperties": False,
    }
    return Kind(expected, read, schema, json_mapping(expected).from_text)


def headers() -> Kind:
    """Kind of a mapping of header names to one-line values, which may be keys, so no message shows one."""
    expected = "a mapping of header names to texts"

    def read(value: Any, report: Report) -> dict[str, str] | None:
        if not isinstance(value, dict):
            _wrong(expected, value, report)
            return None
        found: dict[str, str] = {}
        for name, content in value.items():
            if not _HEADER_NAME.fullmatch(name):
                report((name,), f"{shown(name)} is not a header name; use letters, digits and '-'", True)
            elif name.lower() in _RESERVED_HEADERS:
                report((name,), f"the header '{name}' is set by the proxy itself; remove it", True)
            elif name.lower() in (other.lower() for other in found):
                report((name,), f"the header '{name}' stands here twice, in different case; keep one", True)
            elif not isinstance(content, str):
                report((name,), "expected a text as the header's value; quote it", False)
            elif not _HEADER_VALUE.fullmatch(content):
                # Response splitting and its request twin (docs/spec/operations.md#e9).
                report((name,), "a header's value cannot hold line breaks or control characters", False)
            else:
                found[name] = content
        return found

    schema = {"type": "object", "additionalProperties": {"type": "string"}}
    return Kind(expected, read, schema)


def table(expected: str, fields: Mapping[str, tuple[Kind, str]]) -> Kind:
    """Kind of a mapping with known keys, each with its own kind and help text."""

    def read(value: Any, report: Report) -> dict[str, Any] | None:
        if not isinstance(value, dict):
            _wrong(expected, value, report)
            return None
        found: dict[str, Any] = {}
        for name, content in value.items():
            if name not in fields:
                report((name,), f"unknown key; {hint(name, fields)}", True)
                continue
            result = fields[name][0].read(content, _below(report, (name,)))
            if result is not None:
                found[name] = result
        return found

    schema = {
        "type": "object",
        "additionalProperties": False,
        "properties": {name: {**kind.schema, "description": note} for name, (kind, note) in fields.items()},
    }
    return Kind(expected, read, schema)


def _below(report: Report, path: tuple[str | int, ...]) -> Report:
    """Return `report` for a part of the value at `path`."""
    return lambda rest, sentence, on_key: report((*path, *rest), sentence, on_key)


def _number(line: str) -> int | float | str:
    if _NUMBER.fullmatch(line) is None:
        return line
    return float(line) if "." in line else int(line)


def _scaled(value: str, form: re.Pattern[str], units: Mapping[str, int]) -> int | None:
    """Return ``1.5k`` as 1500; None when it does not match `form`, or is not a whole number once scaled."""
    match = form.fullmatch(value)
    if match is None:
        return None
    groups = match.groupdict()
    unit = (groups["unit"] or "").lower()
    part = groups.get("part") or ""
    if part and not unit:
        return None
    exact = Decimal(groups["whole"].replace("_", "") + part) * units[unit]
    return int(exact) if exact == exact.to_integral_value() else None
