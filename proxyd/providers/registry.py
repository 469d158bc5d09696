"""Registry of vendor profiles: from an entry of models.yaml to its profile and dialect.

``provider:`` or the host of ``api_base`` selects the profile, the model's name selects its variants, and the entry's
``quirks:`` override both. Patterns of model names are written so that a newer model of a family gets the behaviour of
the newest known one. docs/providers.md is generated from `PROFILES`. Sources were read from July to November 2026; what
is marked (unconfirmed) rests on reports or on general knowledge.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import functools
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from proxyd.codecs.formats import CHAT, FORMATS, Format
from proxyd.codecs.translation.dialect import Dialect
from proxyd.config.routes import ModelRoute
from proxyd.errors import ConfigError
from proxyd.providers.google import GOOGLE
from proxyd.providers.hosted import HOSTED
from proxyd.providers.hosted_china import HOSTED_CHINA
from proxyd.providers.openai_family import OPENAI_FAMILY
from proxyd.providers.profile import Profile
from proxyd.providers.quirk_kinds import nearest_name, read_quirk
from proxyd.providers.servers import GENERIC, SERVERS

__all__ = ["PROFILES", "Profile", "dialect_for", "format_for", "profile_for", "sees_images", "takes_files"]

#: Every profile by its name.
PROFILES: dict[str, Profile] = {
    profile.name: profile for profile in (*HOSTED, *OPENAI_FAMILY, *GOOGLE, *HOSTED_CHINA, *SERVERS, GENERIC)
}

#: Dialects with quirks, by profile, model, format and the text of the quirks: one for each entry and each learned
#: quirk.
_adapted: dict[tuple[str, str, str, str], Dialect] = {}
_MAX_ADAPTED = 1024


def sees_images(route: ModelRoute) -> bool:
    """Return whether the model of a route takes images, as far as the configuration knows."""
    if route.direct:
        return True
    if route.vision is not None:
        return route.vision
    profile = profile_for(route.api_base, route.provider)
    return dialect_for(profile, route.model_name, route.quirks, format_for(route)[0]).vision


def takes_files(route: ModelRoute) -> bool:
    """Return whether the upstream of a route takes PDFs, as far as the configuration knows."""
    if route.direct:
        return True
    profile = profile_for(route.api_base, route.provider)
    return dialect_for(profile, route.model_name, route.quirks, format_for(route)[0]).files


@functools.lru_cache(maxsize=1024)  # called for every request
def profile_for(api_base: str, provider: str | None) -> Profile:
    """Return the profile of a models.yaml entry.

    Args:
        api_base: its host selects the profile where `provider` is None.
        provider: a name of `PROFILES`.

    Raises:
        ConfigError: there is no such provider.
    """
    if provider is not None:
        if provider in PROFILES:
            return PROFILES[provider]
        near = nearest_name(provider, PROFILES)
        raise ConfigError(f"provider: expected one of {', '.join(PROFILES)}, got {provider[:24]!r}{near}")
    try:
        parts = urlsplit(api_base)
        host = (parts.hostname or "").lower()
        address = f"{host}:{parts.port}" if parts.port else host
    except ValueError:  # an invalid port, which the reader of models.yaml reports
        return PROFILES["generic"]
    for profile in PROFILES.values():
        for pattern in profile.hosts:
            if fnmatch.fnmatchcase(address if ":" in pattern else host, pattern):
                return profile
    return PROFILES["generic"]


def format_for(route: ModelRoute) -> tuple[Format, str | None]:
    """Return the format of a translated route, and why, where not the entry but its model decides."""
    if route.format is not None:
        return FORMATS[route.format], None
    profile = profile_for(route.api_base, route.provider)
    if profile_for(route.api_base, None) is not profile:
        return CHAT, None  # not the vendor's own address: it may offer Chat Completions alone
    return _preferred(profile.name, route.model_name)


@functools.lru_cache(maxsize=1024)
def _preferred(profile_name: str, model_name: str) -> tuple[Format, str | None]:
    for each in PROFILES[profile_name].preferences:
        if re.search(each.pattern, model_name, re.IGNORECASE):
            return FORMATS[each.format], each.why
    return CHAT, None


def dialect_for(
    profile: Profile, model_name: str, quirks: Mapping[str, Any], chosen: Format = CHAT
) -> Dialect:
    """Return the dialect of one route: the profile's, with the variants of the model's name, what the format changes,
    and the quirks applied.

    The same arguments give the same object, because translated tools are cached by dialect (`codecs.cache.tools`).

    Raises:
        ConfigError: an unknown quirk, or a value of the wrong kind.
    """
    dialect = _dialect_of_model(profile.name, model_name, chosen.name)
    if not quirks:
        return dialect
    key = (profile.name, model_name, chosen.name, repr(quirks))
    adapted = _adapted.get(key)
    if adapted is None:
        adapted = dataclasses.replace(
            dialect, **{name: read_quirk(name, value) for name, value in quirks.items()}
        )
        if len(_adapted) >= _MAX_ADAPTED:
            _adapted.clear()
        _adapted[key] = adapted
    return adapted


@functools.lru_cache(maxsize=1024)
def _dialect_of_model(profile_name: str, model_name: str, format_name: str) -> Dialect:
    """Return the dialect of a model without quirks; cached because every request needs it."""
    profile = PROFILES[profile_name]
    changes: dict[str, Any] = {}
    for variant in profile.variants:
        if re.search(variant.pattern, model_name, re.IGNORECASE):
            changes.update(variant.changes)
    dialect = FORMATS[format_name].dialect(dataclasses.replace(profile.dialect, **changes))
    changes = dict(profile.formats.get(format_name, {}))
    for variant in profile.variants:
        own = variant.formats.get(format_name)
        if own and re.search(variant.pattern, model_name, re.IGNORECASE):
            changes.update(own)
    return dataclasses.replace(dialect, **changes) if changes else dialect
