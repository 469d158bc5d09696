"""Kinds of the values under ``quirks:`` of an entry, one for each field of `Dialect`.

A kind is derived from the field's type; fields whose type says too little are listed by name.
"""

from __future__ import annotations

import difflib
import typing
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from types import NoneType, UnionType
from typing import Any, Union

from proxyd.codecs.translation.dialect import CHOICES, Dialect
from proxyd.codecs.translation.thinking_params import LEVELS
from proxyd.config.kinds import Kind, Report
from proxyd.errors import ConfigError

__all__ = ["QUIRK_KINDS", "nearest_name", "read_quirk"]

_LEVELS = ("none", *LEVELS)


def read_quirk(name: str, value: Any) -> Any:
    """Return a value of ``quirks:`` in the type of its `Dialect` field.

    Raises:
        ConfigError: an unknown quirk, or a value of the wrong kind.
    """
    kind = QUIRK_KINDS.get(name)
    if kind is None:
        near = nearest_name(name, QUIRK_KINDS)
        raise ConfigError(f"quirks.{name}: unknown quirk, see docs/providers.md{near}")

    def report(path: tuple[str | int, ...], text: str, on_key: bool) -> None:
        raise ConfigError(f"quirks.{name}: {text}")

    return kind.read(value, report)


def nearest_name(name: str, known: Mapping[str, Any]) -> str:
    """Return the end of a fault that suggests the most similar known name; empty where none is similar."""
    near = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {near[0]}?" if near else ""


def _typed(expected: str, is_valid: Callable[[Any], bool], *, as_tuple: bool = False) -> Kind:
    def read(value: Any, report: Report) -> Any:
        if not is_valid(value):
            report((), f"expected {expected}, got {type(value).__name__}", False)
            return None
        return tuple(value) if as_tuple else value

    return Kind(expected, read, {})


def _choice(words: tuple[str, ...]) -> Kind:
    expected = f"one of {', '.join(words)}"

    def read(value: Any, report: Report) -> Any:
        if value not in words:
            report((), f"expected {expected}", False)
        return value

    return Kind(expected, read, {"enum": list(words)})


def _is_whole_number(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_list_of_words(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _read_efforts(value: Any, report: Report) -> Mapping[str, str]:
    """Read ``efforts``: a mapping, or a list of the levels for which the upstream uses our names."""
    if _is_list_of_words(value):
        value = {item: item for item in value}
    if not isinstance(value, Mapping) or any(
        key not in _LEVELS or not isinstance(item, str) for key, item in value.items()
    ):
        report((), f"expected a list or mapping of {', '.join(_LEVELS)}", False)
    return dict(value)


_BY_NAME: Mapping[str, Kind] = {
    **{name: _choice(words) for name, words in CHOICES.items()},
    # The switch of the vendor may have any value.
    "thinking_on": _typed("a value", lambda value: True),
    "thinking_off": _typed("a value", lambda value: True),
    "efforts": Kind(f"a list or mapping of {', '.join(_LEVELS)}", _read_efforts, {}),
}
_WORDS = _typed("a list of words", _is_list_of_words, as_tuple=True)
_BY_TYPE: Mapping[Any, Kind] = {
    bool: _typed("true or false", lambda value: isinstance(value, bool)),
    int: _typed("a whole number", _is_whole_number),
    str: _typed("a word", lambda value: isinstance(value, str)),
    tuple[str, ...]: _WORDS,
    tuple[int, int]: _typed(
        "two whole numbers",
        lambda value: isinstance(value, list) and len(value) == 2 and all(map(_is_whole_number, value)),
        as_tuple=True,
    ),
    Mapping[str, Any]: _typed("a mapping", lambda value: isinstance(value, Mapping)),
}


def _kind_of(name: str, type_: Any) -> Kind:
    if name in _BY_NAME:
        return _BY_NAME[name]
    if typing.get_origin(type_) in (Union, UnionType):
        (inner,) = (each for each in typing.get_args(type_) if each is not NoneType)
        return _or_null(_BY_TYPE[inner])
    return _BY_TYPE[type_]


def _or_null(kind: Kind) -> Kind:
    def read(value: Any, report: Report) -> Any:
        return None if value is None else kind.read(value, report)

    return replace(kind, read=read)


_TYPES = typing.get_type_hints(Dialect)

#: Kind of every quirk by its name.
QUIRK_KINDS: Mapping[str, Kind] = {
    field.name: _kind_of(field.name, _TYPES[field.name]) for field in fields(Dialect)
}
