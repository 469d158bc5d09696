"""Routes: the entries of models.yaml as frozen values, and the table that resolves a requested model.

``models.py`` reads them from the file. Nothing here does I/O: resolving a model takes a few dictionary lookups.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fnmatch import translate
from typing import Any

from proxyd.codecs.anthropic.usage import Usage
from proxyd.config.keys import DEMO_BASE
from proxyd.config.pools import PoolKey, Target
from proxyd.config.route_rules import RouteRule
from proxyd.config.secrets import Credential
from proxyd.redaction import is_credential_name
from proxyd.secret import Secret

__all__ = ["ModelRoute", "Pricing", "RouteTable", "Timeouts"]

_WINDOW_SUFFIX = re.compile(r"\[1m\]$", re.IGNORECASE)
#: What Claude Code's model picker shows (docs/spec/claude-code.md#picker).
_SHOWN_IN_PICKER = re.compile(r"claude|anthropic", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Timeouts of one entry in seconds; None keeps the setting of that name, a ``total_s`` of 0 is no limit."""

    connect_s: float | None = None
    first_byte_s: float | None = None
    idle_s: float | None = None
    total_s: float | None = None


@dataclass(frozen=True, slots=True)
class Pricing:
    """Prices in USD per million tokens; None is unknown (for the two cache prices: as ``input``)."""

    input: float | None = None
    output: float | None = None
    cache_read: float | None = None
    cache_write: float | None = None

    def cost_of(self, usage: Usage) -> float | None:
        """Return the cost of `usage` in USD, or None where a price that it needs is unknown."""
        parts = (
            (usage.input_tokens, self.input),
            (usage.output_tokens, self.output),
            (usage.cache_read_tokens, self.input if self.cache_read is None else self.cache_read),
            (usage.cache_write_tokens, self.input if self.cache_write is None else self.cache_write),
        )
        cost = 0.0
        for tokens, price in parts:
            if tokens and price is None:
                return None
            cost += tokens * (price or 0.0)
        return cost / 1_000_000


@dataclass(frozen=True, slots=True)
class ModelRoute:
    """One entry of models.yaml (docs/spec/design.md#models-yaml). Token counts are integers, prices USD per million
    tokens.

    Attributes:
        api_base: without a trailing slash; ``builtin:demo`` is the embedded upstream.
        format: name of the protocol that a translated entry speaks upstream; None leaves it to the profile.
        provider: name of a profile; None selects it by the host of `api_base`.
        api_key: None where the client's own key is passed on, or where `missing_key` says why there is none.
        key_origin: as of a `Credential`, or ``application-default``; None where the entry has
            no key.
        is_token: `api_key` is an OAuth access token, from ``access_token``.
        obtains_token: it is obtained from Google's application default credentials, before each call.
        api_keys: the keys of a pool that were found; `api_key` is then the first of them.
        missing_key: message of the 401 for calls, where the configured key could not be found.
        max_input_tokens: the window, from ``max_input_tokens`` or ``context``.
        known_window: the window that the catalog names, where models.yaml names none.
        accepts_anthropic_login: clients' Anthropic credentials are sent to this host although it is not Anthropic's.
        targets: entries over which calls are distributed, this one included; empty for this one alone.
        balance: how they are, one of `proxyd.config.pools.BALANCES`.
        omit: top-level fields removed from a direct request, in addition to the profile's.
        auto_mode: the values of that key (`proxyd.config.auto_mode`), and `auto_mode_rules`, the text of their rules.
        images: the values of that key (`proxyd.config.images`).
        web_search: the values of that key (`proxyd.config.web_search`), and `web_search_key`, its resolved key.
        routes: rules that hand requests for this entry to others (`proxyd.config.route_rules`).
        hooks: names of hook files that run for this entry; None for all.
    """

    model_id: str
    api_base: str
    model_name: str
    direct: bool = False
    format: str | None = None
    provider: str | None = None
    api_key: Secret | None = None
    key_origin: str | None = None
    missing_key: str | None = None
    is_token: bool = False
    obtains_token: bool = False
    api_keys: tuple[PoolKey, ...] = ()
    can_stream: bool = True
    max_tokens: int | None = None
    max_input_tokens: int | None = None
    known_window: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    reasoning_effort: str | None = None
    extra_body: Mapping[str, Any] = field(default_factory=dict)
    extra_headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    aliases: tuple[str, ...] = ()
    fallback: tuple[str, ...] = ()
    targets: tuple[Target, ...] = ()
    balance: str = "weighted"
    pricing: Pricing | None = None
    vision: bool | None = None
    timeouts: Timeouts = field(default_factory=Timeouts)
    quirks: Mapping[str, Any] = field(default_factory=dict)
    accepts_anthropic_login: bool = False
    omit: tuple[str, ...] = ()
    auto_mode: Mapping[str, Any] = field(default_factory=dict)
    auto_mode_rules: str = ""
    images: Mapping[str, Any] = field(default_factory=dict)
    web_search: Mapping[str, Any] = field(default_factory=dict)
    web_search_key: Credential | None = None
    routes: tuple[RouteRule, ...] = ()
    hooks: tuple[str, ...] | None = None
    #: Credentials in `extra_headers`. `Secret` objects are masked in all output while they exist.
    _header_secrets: tuple[Secret, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        secrets = (
            secret
            for name, value in self.extra_headers.items()
            if is_credential_name(name)
            for secret in {value, value.rpartition(" ")[2]}  # ``Bearer …``: also without its scheme
        )
        object.__setattr__(self, "_header_secrets", tuple(map(Secret, secrets)))

    def with_key(self, key: PoolKey) -> ModelRoute:
        """Return this entry with one key of its pool as its only one."""
        return replace(self, api_key=key.secret, key_origin=key.origin)

    def with_token(self, token: Secret) -> ModelRoute:
        """Return this entry with a token that was obtained for it."""
        return replace(self, api_key=token)

    @property
    def has_own_key(self) -> bool:
        """Whether calls get a key of the entry's own."""
        return self.api_key is not None or self.obtains_token

    @property
    def is_demo(self) -> bool:
        """Whether the embedded upstream serves this entry."""
        return self.api_base == DEMO_BASE


@dataclass(frozen=True)
class RouteTable:
    """The entries in the order of the file, with lookup by model id, alias and glob.

    Args:
        routes: entries with unique ids.
        rules: the rules for all entries.
        discovery_prefix: the setting of that name; an id with this prefix resolves to the same entry.
    """

    routes: tuple[ModelRoute, ...] = ()
    discovery_prefix: str = ""
    rules: tuple[RouteRule, ...] = ()
    _by_name: dict[str, ModelRoute] = field(init=False, repr=False, compare=False)
    _globs: tuple[tuple[re.Pattern[str], ModelRoute], ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        by_name: dict[str, ModelRoute] = {}
        for route in self.routes:
            for alias in route.aliases:
                by_name.setdefault(alias, route)
        by_name.update({route.model_id: route for route in self.routes})
        globs = [
            (re.compile(translate(alias)), route)
            for route in self.routes
            for alias in route.aliases
            if any(sign in alias for sign in "*?[")
        ]
        object.__setattr__(self, "_by_name", by_name)
        object.__setattr__(self, "_globs", tuple(globs))

    def resolve(self, model: str) -> ModelRoute | None:
        """Return the entry for a request's ``model``, or None.

        An exact id wins over an alias, that over a prefixed id, and all of them over a glob; among globs the
        earlier one wins. Each step tries the name as requested, then without the suffix ``[1m]``, with which users ask
        Claude Code for its large window. Globs are case-sensitive, as ids are.
        """
        bare = _WINDOW_SUFFIX.sub("", model)
        candidates = (model,) if bare == model else (model, bare)
        for name in candidates:
            if name in self._by_name:
                return self._by_name[name]
        prefix = self.discovery_prefix
        for name in candidates:
            if prefix and name.startswith(prefix) and name[len(prefix) :] in self._by_name:
                return self._by_name[name[len(prefix) :]]
        for name in candidates:
            for pattern, route in self._globs:
                if pattern.match(name):
                    return route
        return None

    def name_in(self, model: str) -> str:
        """Return a request's ``model`` without the suffix ``[1m]`` and without the discovery prefix."""
        bare = _WINDOW_SUFFIX.sub("", model)
        is_prefixed = self.discovery_prefix and bare.startswith(self.discovery_prefix)
        return bare[len(self.discovery_prefix) :] if is_prefixed and bare not in self._by_name else bare

    def by_id(self, model_id: str) -> ModelRoute:
        """Return the entry with this id, which exists."""
        return self._by_name[model_id]

    def fallbacks(self, route: ModelRoute) -> tuple[ModelRoute, ...]:
        """Return the entries to try after `route`, each once: its fallbacks, then their fallbacks, and so on."""
        found: dict[str, ModelRoute] = {route.model_id: route}
        queue = [route]
        for current in queue:
            for model_id in current.fallback:
                if model_id not in found:
                    found[model_id] = self._by_name[model_id]
                    queue.append(found[model_id])
        return tuple(queue[1:])

    def ids(self) -> tuple[str, ...]:
        """Return the ids of all entries, in order."""
        return tuple(route.model_id for route in self.routes)

    def listed(self) -> tuple[tuple[str, ModelRoute], ...]:
        """Return the ids for ``GET /v1/models``, each followed by its prefixed form if Claude Code's picker hides
        the id.
        """
        found: list[tuple[str, ModelRoute]] = []
        for route in self.routes:
            found.append((route.model_id, route))
            if self.discovery_prefix and not _SHOWN_IN_PICKER.search(route.model_id):
                found.append((self.discovery_prefix + route.model_id, route))
        return tuple(found)

    def with_discovery_prefix(self, prefix: str) -> RouteTable:
        """Return the table with the prefix of the settings, which are read after models.yaml."""
        return self if prefix == self.discovery_prefix else replace(self, discovery_prefix=prefix)
