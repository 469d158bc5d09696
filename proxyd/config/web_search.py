"""The key and setting ``web_search``: which search engine answers Claude Code's WebSearch (docs/web-search.md).

An entry's value is laid over that of the settings, key by key. A direct entry passes searches on to its upstream,
unless the entry itself names an engine.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from proxyd.config.kinds import Kind, Report, address, choice, number, secret_text, table, whole_number
from proxyd.config.secrets import Credential, read_credential
from proxyd.secret import Secret

__all__ = ["ENGINES", "UPSTREAM", "WEB_SEARCH", "WebSearch", "faults_in", "read_key", "web_search_kind"]

#: Engine -> address of its search; "" where each user has an own one.
ENGINES: Mapping[str, str] = {
    "searxng": "",
    "brave": "https://api.search.brave.com/res/v1/web/search",
    "tavily": "https://api.tavily.com/search",
    "serper": "https://google.serper.dev/search",
    "exa": "https://api.exa.ai/search",
}
#: The engine that is the entry's own upstream, and the model with it.
UPSTREAM = "upstream"
_MAX_RESULTS = 8
_TIMEOUT_S, _UPSTREAM_TIMEOUT_S = 10.0, 60.0


def _engine() -> Kind:
    names = choice(*ENGINES, UPSTREAM, "off")

    def read(value: Any, report: Report) -> str | None:
        return "off" if value is False else names.read(value, report)  # YAML reads a bare ``off`` as false

    return Kind(names.expected, read, {"enum": [*ENGINES, UPSTREAM, "off", False]})


#: The keys of the mapping.
WEB_SEARCH: Mapping[str, tuple[Kind, str]] = {
    "engine": (
        _engine(),
        "The search engine; upstream for the search of the entry's own vendor, off for none.",
    ),
    "url": (address(), "Address of a SearXNG server, or another one than the engine's own."),
    "api_key": (
        secret_text("a key, ${ENV_NAME}, ${file:PATH} or ${keyring:NAME}"),
        "Key of the engine: a literal, ${ENV_NAME}, ${file:PATH} or ${keyring:NAME}.",
    ),
    "max_results": (whole_number(1, 20), "Results of one search; 8 if left out."),
    "safe": (choice("off", "moderate", "strict"), "How adult content is filtered; moderate if left out."),
    "timeout_s": (
        number(0.1, 120, what="a number of seconds"),
        "Seconds that a search may take; 10 if left out, 60 for upstream.",
    ),
}


def web_search_kind() -> Kind:
    """Kind of the mapping."""
    return table("a mapping such as {engine: searxng, url: http://127.0.0.1:8888}", WEB_SEARCH)


@dataclass(frozen=True, slots=True)
class WebSearch:
    """What is in force for one entry.

    Attributes:
        engine: one of `ENGINES`, `UPSTREAM`, or "" for none.
        url: where the engine is asked.
        missing_key: why there is no key, as the second half of a sentence.
    """

    engine: str = ""
    url: str = ""
    key: Secret | None = None
    missing_key: str | None = None
    max_results: int = _MAX_RESULTS
    safe: str = "moderate"
    timeout_s: float = _TIMEOUT_S

    @classmethod
    def of(
        cls,
        settings: Mapping[str, Any],
        settings_key: Credential | None,
        entry: Mapping[str, Any],
        entry_key: Credential | None,
        *,
        is_direct: bool,
    ) -> WebSearch | None:
        """Lay an entry's values over those of the settings; None if the upstream is to answer searches itself."""
        if is_direct and entry.get("engine", "off") in ("off", UPSTREAM):
            return None
        if "engine" in entry:  # with an address and a key of its own
            settings = {name: value for name, value in settings.items() if name not in ("url", "api_key")}
            settings_key = None
        values = {**settings, **entry}
        engine = values.get("engine", "off")
        if engine == "off":
            return cls()
        credential = entry_key or settings_key
        return cls(
            engine=engine,
            url=values.get("url") or ENGINES.get(engine, ""),
            key=credential.secret if credential else None,
            missing_key=credential.missing if credential else None,
            max_results=values.get("max_results", _MAX_RESULTS),
            safe=values.get("safe", "moderate"),
            timeout_s=values.get("timeout_s", _UPSTREAM_TIMEOUT_S if engine == UPSTREAM else _TIMEOUT_S),
        )


def faults_in(values: Mapping[str, Any]) -> dict[str, str]:
    """Return what contradicts itself in one mapping: key -> sentence."""
    engine = values.get("engine")
    if engine in (None, "off"):
        return {}
    if engine == UPSTREAM:
        text = "the upstream of the entry is asked with the entry's own address and key; remove it"
        return {name: text for name in ("url", "api_key") if values.get(name)}
    if not ENGINES[engine] and not values.get("url"):
        return {"engine": f"{engine} needs url, the address of your server"}
    if ENGINES[engine] and not values.get("api_key"):
        return {"engine": f"{engine} needs api_key, for example api_key: ${{{engine.upper()}_API_KEY}}"}
    return {}


def read_key(values: Mapping[str, Any], environ: Mapping[str, str], folder: Path) -> Credential | None:
    """Resolve the engine's key.

    Raises:
        ValueError: it is neither a literal nor a single reference.
    """
    reference = values.get("api_key")
    return None if reference is None else read_credential(reference, environ, folder)
