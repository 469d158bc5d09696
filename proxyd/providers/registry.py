"""Which vendor is served by which dialect: per-vendor differences as data, each with its sources.

Nothing here is code to run per request: a profile is chosen when models.yaml is read, by ``provider:`` or by
the host of ``api_base``; variants then adapt it to the model's name, and the entry's own ``quirks:`` have the
last word.

Model names age: patterns are written so that a newer model of a line falls to the line's newest known
behaviour. The table in docs/providers.md is generated from `PROFILES`. Sources were read from July to
November 2026; what is marked (unconfirmed) rests on reports or on general knowledge and can be overridden per
entry.
"""

from __future__ import annotations

import dataclasses
import difflib
import fnmatch
import functools
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from proxyd.codecs.openai.dialect import CHOICES, Dialect
from proxyd.codecs.openai.thinking_params import LEVELS
from proxyd.errors import ConfigError
from proxyd.providers.hosted import HOSTED
from proxyd.providers.profile import Profile
from proxyd.providers.servers import GENERIC, SERVERS

__all__ = ["PROFILES", "Profile", "dialect_for", "profile_for"]

#: Every profile by its name.
PROFILES: dict[str, Profile] = {profile.name: profile for profile in (*HOSTED, *SERVERS, GENERIC)}

_FIELDS = {field.name: field for field in dataclasses.fields(Dialect)}

#: Dialects adapted by quirks, by profile, model and what the quirks say. Each entry has one, and one more for each
#: lesson that its upstream teaches.
_adapted: dict[tuple[str, str, str], Dialect] = {}
_MAX_ADAPTED = 1024


@functools.lru_cache(maxsize=1024)  # every request asks
def profile_for(api_base: str, provider: str | None) -> Profile:
    """The profile of a models.yaml entry.

    Args:
        api_base: its host chooses where `provider` is None.
        provider: a name of `PROFILES`.

    Raises:
        ConfigError: there is no such provider.
    """
    if provider is not None:
        if provider in PROFILES:
            return PROFILES[provider]
        near = _nearest(provider, PROFILES)
        raise ConfigError(f"provider: expected one of {', '.join(PROFILES)}, got {provider[:24]!r}{near}")
    try:
        parts = urlsplit(api_base)
        host = (parts.hostname or "").lower()
        address = f"{host}:{parts.port}" if parts.port else host
    except ValueError:  # a port that is none; whoever reads models.yaml complains about it
        return PROFILES["generic"]
    for profile in PROFILES.values():
        for pattern in profile.hosts:
            if fnmatch.fnmatchcase(address if ":" in pattern else host, pattern):
                return profile
    return PROFILES["generic"]


def dialect_for(profile: Profile, model_name: str, quirks: Mapping[str, Any]) -> Dialect:
    """The dialect of one route: the profile's, adapted to the model's name, then to the user's ``quirks:``.

    It is the same object for the same quirks, since what is made for a dialect is kept with it (`codecs.tool_lists`).

    Raises:
        ConfigError: an unknown quirk, or a value of the wrong kind.
    """
    dialect = _dialect_of_model(profile.name, model_name)
    if not quirks:
        return dialect
    key = (profile.name, model_name, repr(quirks))
    adapted = _adapted.get(key)
    if adapted is None:
        adapted = dataclasses.replace(
            dialect, **{name: _quirk(name, value) for name, value in quirks.items()}
        )
        if len(_adapted) >= _MAX_ADAPTED:
            _adapted.clear()
        _adapted[key] = adapted
    return adapted


@functools.lru_cache(maxsize=1024)
def _dialect_of_model(profile_name: str, model_name: str) -> Dialect:
    """Without quirks; kept, since every request asks for it."""
    profile = PROFILES[profile_name]
    changes: dict[str, Any] = {}
    for variant in profile.variants:
        if re.search(variant.pattern, model_name, re.IGNORECASE):
            changes.update(variant.changes)
    return dataclasses.replace(profile.dialect, **changes)


def _quirk(name: str, value: Any) -> Any:
    """A value of ``quirks:`` in the type of its field."""
    field = _FIELDS.get(name)
    if field is None:
        raise ConfigError(f"quirks.{name}: unknown quirk, see docs/providers.md{_nearest(name, _FIELDS)}")
    if name in CHOICES:
        if value not in CHOICES[name]:
            raise ConfigError(f"quirks.{name}: expected one of {', '.join(CHOICES[name])}")
        return value
    if name in ("thinking_on", "thinking_off"):
        return value
    kind = str(field.type)
    if value is None and "None" in kind:
        return None
    if name == "efforts":
        return _efforts(value)
    if kind.startswith("tuple[int"):
        if isinstance(value, list) and len(value) == 2 and all(type(item) is int for item in value):
            return tuple(value)
        raise ConfigError(f"quirks.{name}: expected two whole numbers")
    if kind.startswith("tuple"):
        if isinstance(value, list) and all(isinstance(item, str) for item in value):
            return tuple(value)
        raise ConfigError(f"quirks.{name}: expected a list of words")
    expected, words = next(item for prefix, item in _KINDS.items() if kind.startswith(prefix))
    if not isinstance(value, expected) or (expected is int and isinstance(value, bool)):
        raise ConfigError(f"quirks.{name}: expected {words}, got {type(value).__name__}")
    return value


_KINDS: dict[str, tuple[type, str]] = {
    "bool": (bool, "true or false"),
    "int": (int, "a whole number"),
    "str": (str, "a word"),
    "Mapping": (Mapping, "a mapping"),
}


def _efforts(value: Any) -> Mapping[str, str]:
    """``efforts`` as a mapping, or as the list of levels that the upstream calls by our names."""
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        value = {item: item for item in value}
    levels = ("none", *LEVELS)
    if not isinstance(value, Mapping) or any(
        key not in levels or not isinstance(item, str) for key, item in value.items()
    ):
        raise ConfigError(f"quirks.efforts: expected a list or mapping of {', '.join(levels)}")
    return dict(value)


def _nearest(name: str, known: Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {near[0]}?" if near else ""
