"""The official ``openai`` SDK's types as a judge of request bodies.

The types are typed dictionaries, which Python does not check. `violations` reads them and names every value that they
do not allow, and every field that they do not have.
"""

from __future__ import annotations

import typing
from collections.abc import Iterable, Mapping
from functools import cache
from types import NoneType, UnionType
from typing import Any, Literal, Union

import typing_extensions

__all__ = ["violations"]


def violations(body: Any) -> list[str]:
    """What OpenAI's types of a streaming Responses request do not allow in `body`; empty for a good one.

    They demand an ``id`` of reasoning items, which the server does not: with ``store: false`` an item without an id is
    always accepted, one with an id is looked up.
    """
    from openai.types.responses import response_create_params  # takes a second where nobody calls this

    if isinstance(body, dict) and isinstance(body.get("input"), list):
        items = [
            {"id": "rs_none", **item} if isinstance(item, dict) and item.get("type") == "reasoning" else item
            for item in body["input"]
        ]
        body = {**body, "input": items}
    return _check(body, response_create_params.ResponseCreateParamsStreaming, "body")


def _check(value: Any, type_: Any, path: str) -> list[str]:
    origin, arguments = typing.get_origin(type_), typing.get_args(type_)
    if type_ is Any or type_ is object:
        return []
    if origin in (typing.Required, typing.NotRequired, typing.Annotated, typing_extensions.Required):
        return _check(value, arguments[0], path)
    if origin in (Union, UnionType):
        return _check_union(value, arguments, path)
    if origin is Literal:
        return [] if value in arguments else [f"{path}: {value!r} is none of {arguments}"]
    if typing_extensions.is_typeddict(type_):
        return _check_object(value, type_, path)
    if origin in (list, Iterable) or (isinstance(origin, type) and issubclass(origin, (list, tuple))):
        if not isinstance(value, list):
            return [f"{path}: {type(value).__name__} is no list"]
        return [
            fault for at, item in enumerate(value) for fault in _check(item, arguments[0], f"{path}.{at}")
        ]
    if origin in (dict, Mapping) or (isinstance(origin, type) and issubclass(origin, Mapping)):
        if not isinstance(value, dict):
            return [f"{path}: {type(value).__name__} is no object"]
        return [fault for key, item in value.items() for fault in _check(item, arguments[1], f"{path}.{key}")]
    if type_ in (None, NoneType):
        return [] if value is None else [f"{path}: not null"]
    if type_ is float:
        type_ = (int, float)
    is_right = isinstance(value, type_) and not (isinstance(value, bool) and type_ is not bool)
    return [] if is_right else [f"{path}: {type(value).__name__} where {type_} is due"]


def _check_union(value: Any, members: tuple[Any, ...], path: str) -> list[str]:
    """Return the faults by the member with the fewest, of those with the value's ``type`` if there are any."""
    if isinstance(value, dict) and isinstance(value.get("type"), str):
        named = [member for member in members if _names_type(member, value["type"])]
        members = tuple(named) or members
    return min((_check(value, member, path) for member in members), key=len)


def _names_type(member: Any, name: str) -> bool:
    if not typing_extensions.is_typeddict(member):
        return False
    hint = _fields(member).get("type")
    while hint is not None and typing.get_origin(hint) is not Literal and typing.get_args(hint):
        hint = typing.get_args(hint)[0]
    return typing.get_origin(hint) is Literal and name in typing.get_args(hint)


def _check_object(value: Any, type_: Any, path: str) -> list[str]:
    if not isinstance(value, dict):
        return [f"{path}: {type(value).__name__} is no object"]
    fields = _fields(type_)
    faults = [f"{path}.{name}: there is no such field" for name in value if name not in fields]
    faults += [f"{path}.{name}: missing" for name in type_.__required_keys__ if name not in value]
    for name, item in value.items():
        if name in fields:
            faults += _check(item, fields[name], f"{path}.{name}")
    return faults


@cache
def _fields(type_: Any) -> dict[str, Any]:
    """Return the types of a typed dictionary's fields. Resolving them takes a millisecond."""
    return typing_extensions.get_type_hints(type_, include_extras=False)
