"""Warnings about entries that are valid and will probably not work: wrong addresses, malformed keys, missing keys.

Addresses are those of the vendors' documentation, read in November 2026; the configuration loads whatever they are,
since vendors add endpoints.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from proxyd.codecs.formats import CHAT, GEMINI
from proxyd.config.routes import ModelRoute
from proxyd.config.settings import Settings
from proxyd.config.web_search import UPSTREAM
from proxyd.providers.registry import format_for, profile_for
from proxyd.providers.upstream_search import can_search

__all__ = ["fault_in_address", "fault_in_key", "price_warnings", "route_warnings", "search_warnings"]


@dataclass(frozen=True)
class _Paths:
    """Paths below the host of a vendor; None for an API that it does not offer.

    Attributes:
        others: format -> the path of an API that is elsewhere than Chat Completions.
    """

    openai: str | None
    anthropic: str | None
    others: Mapping[str, str] = field(default_factory=dict)


#: profile -> where its two APIs are
_PATHS: Mapping[str, _Paths] = {
    "anthropic": _Paths(None, ""),
    "openai": _Paths("/v1", None),
    "openrouter": _Paths("/api/v1", "/api"),
    "deepseek": _Paths("/v1", "/anthropic"),
    "moonshot": _Paths("/v1", "/anthropic"),
    "zhipu": _Paths("/api/paas/v4", "/api/anthropic"),
    "minimax": _Paths("/v1", "/anthropic"),
    "dashscope": _Paths("/compatible-mode/v1", "/apps/anthropic"),
    "doubao": _Paths("/api/v3", "/api/coding"),
    "siliconflow": _Paths("/v1", ""),
    "gemini": _Paths("/v1beta/openai", None, {GEMINI.name: "/v1beta"}),
    "xai": _Paths("/v1", ""),
    "groq": _Paths("/openai/v1", None),
    "mistral": _Paths("/v1", None),
    "cerebras": _Paths("/v1", None),
    "ollama": _Paths("/v1", ""),
    "lmstudio": _Paths("/v1", ""),
}
#: Profiles whose OpenAI API is also at the root.
_SERVED_AT_THE_ROOT = frozenset({"deepseek"})

#: Project and location, which addresses of Vertex AI name.
_VERTEX_PLACE = re.compile(r"/v1(beta1)?/projects/[^/]+/locations/[^/]+")

_VARIABLE_NAME = re.compile(r"[A-Z]+(?:_[A-Z]+)+")
_PLACEHOLDER = re.compile(
    r"<.*>|(?:sk-)?(?:\.{3,}|…|x{4,})|.*\b(?:your|my)[-_ ].*key.*|change[-_]?me", re.IGNORECASE
)
_MAX_PLACEHOLDER = 100
#: Ids that Claude Code has in its own list of models.
_CLAUDE_ID = re.compile(r"claude-(?:fable|haiku|opus|sonnet)-\d")

_OTHER_ENGINE = "set another engine, such as web_search: {engine: searxng, url: ADDRESS}"
#: Entries that a warning names.
_MAX_NAMED = 5

#: Claude Code's own prompt takes 11 000 to 14 000 tokens, and compaction needs room for a summary beside it.
_LEAST_WINDOW = 40_000
#: Entries that one warning names.
_NAMED = 5


def route_warnings(routes: Sequence[ModelRoute]) -> list[str]:
    """Return a line for each probable mistake: ``models[3].api_base: …``.

    Args:
        routes: all entries, in the order of the file.
    """
    return [
        f"models[{index}].{key}: {text}"
        for index, route in enumerate(routes)
        for key, text in _warnings_of(route, is_first=index == 0)
    ]


def price_warnings(routes: Sequence[ModelRoute]) -> list[str]:
    """Return a line that names the entries whose calls cost virtual keys nothing; none if all have prices.

    Args:
        routes: those that a key may use.
    """
    unpriced = [route.model_id for route in routes if route.pricing is None and not route.is_demo]
    if not unpriced:
        return []
    names = ", ".join(unpriced[:_NAMED]) + (
        f" and {len(unpriced) - _NAMED} more" if unpriced[_NAMED:] else ""
    )
    return [
        f"without 'pricing', calls of these entries count 0 USD against the budgets of virtual keys: {names}; add it, "
        "or limit tokens or calls"
    ]


def _warnings_of(route: ModelRoute, *, is_first: bool) -> Iterator[tuple[str, str]]:
    chosen = CHAT.name if route.direct else format_for(route)[0].name
    address = fault_in_address(route.api_base, direct=route.direct, chosen=chosen)
    if address is not None:
        yield "api_base", address
    if route.api_keys:
        for pooled in route.api_keys:
            fault = fault_in_key(pooled.secret.reveal())
            if fault is not None:
                yield "api_keys", f"the key {pooled.name} {fault}"
    elif route.api_key is not None:
        fault = fault_in_key(route.api_key.reveal())
        if fault is not None:
            yield (
                "api_key",
                fault if route.key_origin == "literal" else f"the key from {route.key_origin} {fault}",
            )
    if route.missing_key is not None and route.fallback:
        yield "api_key", f"{route.missing_key}; without it calls are refused, and the fallbacks are not tried"
    elif route.missing_key is not None and is_first:
        yield "api_key", f"{route.missing_key}; this entry is the default of 'claude-proxy code'"
    if route.max_input_tokens is not None and route.max_input_tokens < _LEAST_WINDOW:
        yield (
            "max_input_tokens",
            f"a window of {route.max_input_tokens} tokens is small for Claude Code, whose own prompt takes 11000 to "
            f"14000: give the model {_LEAST_WINDOW} or more if its server can, or expect frequent compactions",
        )
    if not route.direct and route.web_search.get("engine") == UPSTREAM and not can_search(route):
        yield "web_search.engine", f"{_cannot_search(route)}; {_OTHER_ENGINE}"
    if _shadows_claude(route):
        yield (
            "model_id",
            f"Claude Code takes {route.model_id!r} for its own model and ignores the window of this entry: choose "
            "another model_id, and make this one an alias",
        )


def search_warnings(routes: Sequence[ModelRoute], settings: Settings) -> list[str]:
    """Return a line that names the entries for which ``engine: upstream`` of the settings does nothing."""
    if settings.web_search.get("engine") != UPSTREAM:
        return []
    without = [
        route
        for route in routes
        if not (route.direct or route.is_demo or "engine" in route.web_search or can_search(route))
    ]
    if not without:
        return []
    names = ", ".join(route.model_id for route in without[:_MAX_NAMED])
    more = f" and {len(without) - _MAX_NAMED} more" if len(without) > _MAX_NAMED else ""
    return [
        f"settings.web_search.engine: upstream: the upstreams of {names}{more} are not known to search the web, so "
        f"their searches find nothing; {_OTHER_ENGINE}, in these entries"
    ]


def _cannot_search(route: ModelRoute) -> str:
    profile, chosen = profile_for(route.api_base, route.provider), format_for(route)[0].name
    if profile.searches:
        other = " or ".join(profile.searches)
        return f"{profile.title} is known to search the web over {other} only, not over {chosen}"
    what = profile.title if profile.hosts else "this upstream"
    return f"{what} is not known to search the web, so searches find nothing"


def fault_in_address(api_base: str, *, direct: bool, chosen: str = CHAT.name) -> str | None:
    """Compare an address with those of a known vendor; return what contradicts `direct` and what to write.

    Args:
        chosen: name of the format of a translated entry.
    """
    try:
        parts = urlsplit(api_base)
    except ValueError:
        return None
    if parts.scheme not in ("http", "https"):
        return None
    path = parts.path.rstrip("/")
    origin = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
    profile = profile_for(api_base, None)
    if profile.name == "vertex":
        return _fault_at_vertex(path, direct=direct, chosen=chosen)
    known = _PATHS.get(profile.name)
    if direct:
        if known is None or known.anthropic is None:
            return (
                f"{profile.title} offers no Anthropic API that we know: remove 'direct: true'"
                if known
                else None
            )
        if path == known.openai and known.openai.removesuffix("/v1") != known.anthropic:
            return (
                f"this is the address of {profile.title}'s OpenAI API: remove 'direct: true', or write "
                f"'api_base: {origin}{known.anthropic}'"
            )
        return None
    if "anthropic" in path.lower().split("/") or (known is not None and known.openai is None):
        other = f", or write 'api_base: {origin}{known.openai}'" if known is not None and known.openai else ""
        return f"this is the address of an Anthropic API: add 'direct: true'{other}"
    if known is not None and known.others:
        return _fault_in_place(profile.title, known, origin, path, chosen)
    is_part = known is not None and known.openai is not None and known.openai.startswith(f"{path}/")
    if known is not None and is_part and (path or profile.name not in _SERVED_AT_THE_ROOT):
        api = "API" if profile.name == "openai" else "OpenAI API"
        return f"{profile.title}'s {api} is at another path: write 'api_base: {origin}{known.openai}'"
    return None


def _fault_at_vertex(path: str, *, direct: bool, chosen: str) -> str | None:
    """Return what is wrong with the path of an address of Vertex AI (docs/spec/vertex.md#addresses)."""
    place, _, api = path.partition("/endpoints/")
    if not _VERTEX_PLACE.fullmatch(place) or api not in ("", "openapi"):
        return "Vertex AI's addresses end in /v1/projects/PROJECT/locations/LOCATION"
    is_chat = not direct and chosen == CHAT.name
    if is_chat and not api:
        return "write 'format: gemini' for Gemini, 'direct: true' for Claude, or add /endpoints/openapi for others"
    if api and not is_chat:
        return "this is the address of Vertex AI's OpenAI API: remove /endpoints/openapi"
    return None


def _fault_in_place(title: str, known: _Paths, origin: str, path: str, chosen: str) -> str | None:
    """Return what contradicts the format, for a vendor whose APIs are at different paths."""
    expected = known.others.get(chosen, known.openai)
    if path == expected:
        return None
    for name, other in known.others.items():
        if chosen == CHAT.name and path == other:
            return (
                f"this is the address of {title}'s own API: add 'format: {name}', or write "
                f"'api_base: {origin}{known.openai}'"
            )
    if path == known.openai:
        return (
            f"this is the address of {title}'s OpenAI API: remove 'format: {chosen}', or write "
            f"'api_base: {origin}{expected}'"
        )
    if expected is not None and expected.startswith(f"{path}/"):
        api = "own API" if chosen in known.others else "OpenAI API"
        return f"{title}'s {api} is at another path: write 'api_base: {origin}{expected}'"
    return None


def fault_in_key(key: str) -> str | None:
    """Return what makes `key` look wrong, as the end of a sentence without the key itself; None if nothing does."""
    if key.lower().startswith("bearer "):
        return "begins with 'Bearer': write the key alone"
    if any(quote in key for quote in "'\"`"):
        return "holds quotes: write the key without them"
    if any(sign.isspace() for sign in key):
        return "holds blanks: write the key alone"
    if _VARIABLE_NAME.fullmatch(key):
        return "looks like the name of a variable: write 'api_key: ${NAME}' with that name"
    if len(key) <= _MAX_PLACEHOLDER and _PLACEHOLDER.fullmatch(key):
        return "looks like a placeholder: write your key"
    return None


def _shadows_claude(route: ModelRoute) -> bool:
    return _CLAUDE_ID.match(route.model_id) is not None and "claude" not in route.model_name.lower()
