"""Read the configuration of other proxies for Claude Code, and write it as entries of models.yaml. No I/O.

Known are the models.yaml of tizee/anthropic-proxy, the config.json of claude-code-router, and LiteLLM's config.yaml
(`proxyd.onboarding.litellm_file`). What has no counterpart is reported, never dropped in silence. A key that stands in
the file is not copied: its entry names a variable.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from proxyd.onboarding.imported import Imported, base_of, key_of, variable_of
from proxyd.onboarding.litellm_file import import_litellm, is_litellm

__all__ = ["Imported", "import_configuration"]

_REFERENCE = re.compile(r"\$\{?([A-Za-z_]\w*)\}?\Z")
_TOKENS = re.compile(r"(\d+(?:\.\d+)?)\s*([kKmM])\Z")
#: Keys of the original that mean the same here.
_SAME = (
    "model_id",
    "model_name",
    "api_base",
    "can_stream",
    "direct",
    "temperature",
    "extra_headers",
    "extra_body",
)
#: What claude-code-router calls a route, and the condition of a rule that means the same here.
_CONDITIONS: Mapping[str, dict[str, Any]] = {
    "background": {"class": "auxiliary"},
    "think": {"thinking": True},
    "webSearch": {"web_search": True},
    "image": {"has_image": True},
}
_DEFAULT_THRESHOLD = 60_000


def import_configuration(document: Any) -> Imported:
    """Return the entries of a parsed file.

    Raises:
        ValueError: it has none of the known forms.
    """
    if is_litellm(document):
        return import_litellm(document)
    if isinstance(document, dict) and isinstance(document.get("Providers"), list):
        return _from_router(document)
    models = document.get("models") if isinstance(document, dict) else document
    if isinstance(models, list) and any(isinstance(each, dict) and "model_id" in each for each in models):
        return _from_original(models)
    raise ValueError(
        "expected the models.yaml of tizee/anthropic-proxy (a list with model_id and api_key_name), the config.json of "
        "claude-code-router (with Providers), or LiteLLM's config.yaml (with model_list)"
    )


def _from_original(models: list[Any]) -> Imported:
    done = Imported()
    for number, model in enumerate(models, 1):
        if not isinstance(model, dict) or not model.get("model_id") or not model.get("api_base"):
            done.notes.append(f"entry {number}: left out, since it has no model_id or api_base")
            continue
        name = str(model["model_id"])
        entry = {key: model[key] for key in _SAME if model.get(key) is not None}
        entry["api_base"] = base_of(str(model["api_base"]))
        if isinstance(model.get("api_key_name"), str):
            entry["api_key"] = f"${{{model['api_key_name']}}}"
        for key in ("max_tokens", "max_input_tokens"):
            if model.get(key) is not None:
                entry[key] = _tokens(model[key])
        if model.get("reasoning_effort"):
            entry["reasoning_effort"] = model["reasoning_effort"]
        if model.get("enable_thinking") is False:
            entry["reasoning_effort"] = "none"
        if model.get("api_key"):
            entry["api_key"] = key_of(variable_of(name), name, done)
        taken = {
            *_SAME,
            "api_key_name",
            "max_tokens",
            "max_input_tokens",
            "reasoning_effort",
            "enable_thinking",
        }
        unknown = sorted(set(model) - taken - {"api_key"})
        if unknown:
            done.notes.append(f"{name}: not taken over: {', '.join(map(str, unknown))}")
        done.entries.append(entry)
    return done


def _from_router(document: Mapping[str, Any]) -> Imported:
    done = Imported()
    ids: dict[tuple[str, str], str] = {}
    for provider in document["Providers"]:
        if not isinstance(provider, dict) or not provider.get("api_base_url"):
            done.notes.append("a provider without api_base_url was left out")
            continue
        name = str(provider.get("name", "provider"))
        used = _transformers(provider.get("transformer"))
        base = base_of(str(provider["api_base_url"]))
        direct = "anthropic" in {each.lower() for each in used}
        extra = {}
        if base.endswith("/v1beta/models"):  # Gemini's own API
            base, extra = base.removesuffix("/models"), {"format": "gemini"}
        for model in provider.get("models") or ():
            model_id = _free(str(model).rpartition("/")[2], name, ids.values())
            ids[name, str(model)] = model_id
            entry: dict[str, Any] = {
                "model_id": model_id,
                "model_name": str(model),
                "api_base": base,
                **extra,
            }
            if direct:
                entry["direct"] = True
            key = _router_key(provider.get("api_key"), name, done)
            if key is not None:
                entry["api_key"] = key
            if used and (limit := used.get("maxtoken", {}).get("max_tokens")):
                entry["max_tokens"] = _tokens(limit)
            done.entries.append(entry)
        others = sorted(set(used) - {"maxtoken", "Anthropic", "anthropic"})
        if others:
            done.notes.append(
                f"{name}: transformers {', '.join(others)} are not needed; the vendor's profile does this"
            )
    _take_routes(document.get("Router"), ids, done)
    for key in ("APIKEY", "PROXY_URL", "CUSTOM_ROUTER_PATH", "transformers"):
        if document.get(key):
            done.notes.append(f"{key}: {_TOP_NOTES[key]}")
    return done


_TOP_NOTES = {
    "APIKEY": "set auth_token under settings, or CLAUDE_PROXY_AUTH_TOKEN",
    "PROXY_URL": "set HTTPS_PROXY where the daemon runs",
    "CUSTOM_ROUTER_PATH": "write routes, or a hook in Python",
    "transformers": "write a hook in Python",
}


def _take_routes(router: Any, ids: Mapping[tuple[str, str], str], done: Imported) -> None:
    """Move the default entry to the front, and make rules of the other routes."""
    if not isinstance(router, dict):
        return
    for name, target in router.items():
        if not isinstance(target, str) or not target:
            continue
        provider, _, model = target.partition(",")
        model_id = ids.get((provider.strip(), model.strip()))
        if model_id is None:
            done.notes.append(f"Router.{name}: no provider has {target}")
        elif name == "default":
            done.entries.sort(key=lambda entry: entry["model_id"] != model_id)
        elif name == "longContext":
            threshold = router.get("longContextThreshold", _DEFAULT_THRESHOLD)
            done.routes.append({"when": {"over_tokens": threshold}, "use": model_id})
        elif name in _CONDITIONS:
            done.routes.append({"when": dict(_CONDITIONS[name]), "use": model_id})
        else:
            done.notes.append(f"Router.{name}: has no counterpart")


def _router_key(value: Any, name: str, done: Imported) -> str | None:
    if not isinstance(value, str) or not value:
        return None
    match = _REFERENCE.match(value)
    if match is not None:
        return f"${{{match[1]}}}"
    return key_of(variable_of(name), name, done)


def _transformers(value: Any) -> dict[str, Mapping[str, Any]]:
    """Return the transformers of a provider with their options."""
    found: dict[str, Mapping[str, Any]] = {}
    for each in value.get("use", ()) if isinstance(value, dict) else ():
        if isinstance(each, str):
            found[each] = {}
        elif isinstance(each, list) and each and isinstance(each[0], str):
            options = each[1] if len(each) > 1 and isinstance(each[1], dict) else {}
            found[each[0]] = options
    return found


def _tokens(value: Any) -> Any:
    match = _TOKENS.match(str(value).strip())
    return f"{match[1]}{match[2].lower()}" if match else value


def _free(short: str, provider: str, taken: Any) -> str:
    names = list(taken)
    return short if short and short not in names else f"{provider}/{short}"
