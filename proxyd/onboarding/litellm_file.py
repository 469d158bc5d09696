"""Read LiteLLM's config.yaml and write it as entries of models.yaml. No I/O.

Its form: https://docs.litellm.ai/docs/proxy/configs, read on 2026-11-30. An entry of ``model_list`` has the name that
clients use, ``litellm_params`` with ``model: PROVIDER/NAME``, and perhaps ``model_info``. Several of one name share the
calls; here the first has the others as ``targets``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from proxyd.onboarding.imported import Imported, base_of, key_of, variable_of
from proxyd.onboarding.vendors import Vendor, find_vendor

__all__ = ["import_litellm", "is_litellm"]

_REFERENCE = re.compile(r"os\.environ/([A-Za-z_]\w*)\Z")
#: Its names of providers that are not ours -> our vendor.
_VENDORS = {
    "azure_ai": "azure",
    "dashscope": "qwen",
    "gemini": "gemini",
    "zai": "glm",
    "volcengine": "doubao",
}
#: Its names of servers that people run -> our profile, and the address that it takes where none is given.
_SERVERS = {
    "ollama": ("ollama", "http://localhost:11434/v1"),
    "ollama_chat": ("ollama", "http://localhost:11434/v1"),
    "hosted_vllm": ("vllm", ""),
    "vllm": ("vllm", ""),
    "lm_studio": ("lmstudio", ""),
    "llamafile": ("llamacpp", ""),
}
#: Providers by which it names the API of an address that is not the vendor's own.
_APIS = ("openai", "custom_openai", "openai_like", "text-completion-openai", "anthropic")
_SAME = ("temperature", "extra_headers", "extra_body", "max_tokens")
_PRICES = {
    "input_cost_per_token": "input",
    "output_cost_per_token": "output",
    "cache_read_input_token_cost": "cache_read",
    "cache_creation_input_token_cost": "cache_write",
}
_PARAMS = {*_SAME, *_PRICES, "model", "api_base", "api_key", "base_url", "custom_llm_provider", "weight"}
_INFO = {
    *_PRICES,
    "max_input_tokens",
    "max_tokens",
    "max_output_tokens",
    "supports_vision",
    "mode",
    "id",
    "base_model",
}
_SETTINGS = {
    "master_key": "set auth_token under settings, or CLAUDE_PROXY_AUTH_TOKEN",
    "database_url": "make virtual keys with 'claude-proxy keys add'",
}
_SECTIONS = {
    "environment_variables": "put them into the file env beside models.yaml",
    "include": "import those files one by one",
    "mcp_servers": "Claude Code has its own",
    "guardrails": "write a hook in Python",
}


def is_litellm(document: Any) -> bool:
    """Return whether a parsed file has LiteLLM's form."""
    return (
        isinstance(document, dict)
        and isinstance(document.get("model_list"), list)
        and bool(document["model_list"])
    )


def import_litellm(document: Mapping[str, Any]) -> Imported:
    """Return the entries of ``model_list``, and a note for what has no counterpart."""
    done = Imported()
    by_name: dict[str, list[dict[str, Any]]] = {}
    for number, item in enumerate(document["model_list"], 1):
        entry = _entry(item, number, done)
        if entry is None:
            continue
        name = entry["model_id"]
        others = by_name.setdefault(name, [])
        if others:
            entry["model_id"] = f"{name}-{len(others) + 1}"
            if entry.get("model_name") is None:
                entry = {"model_id": entry.pop("model_id"), "model_name": name, **entry}
            target: dict[str, Any] = {"use": entry["model_id"]}
            weight = item["litellm_params"].get("weight")
            if isinstance(weight, int) and weight > 1:
                target["weight"] = weight
            others[0].setdefault("targets", []).append(target)
        others.append(entry)
        done.entries.append(entry)
    for section in ("litellm_settings", "router_settings"):
        _take_settings(section, document.get(section), by_name, done)
    general = document.get("general_settings")
    for key in sorted(general) if isinstance(general, dict) else ():
        done.notes.append(f"general_settings.{key}: {_SETTINGS.get(key, 'not taken over')}")
    for key in sorted(
        set(document) - {"model_list", "litellm_settings", "router_settings", "general_settings"}
    ):
        done.notes.append(f"{key}: {_SECTIONS.get(key, 'not taken over')}")
    return done


def _entry(item: Any, number: int, done: Imported) -> dict[str, Any] | None:
    params = item.get("litellm_params") if isinstance(item, dict) else None
    if not isinstance(params, dict) or not isinstance(params.get("model"), str) or not item.get("model_name"):
        done.notes.append(
            f"entry {number} of model_list: left out, since it has no model_name or litellm_params.model"
        )
        return None
    name = str(item["model_name"])
    info = item.get("model_info") if isinstance(item.get("model_info"), dict) else {}
    if "*" in name or "*" in params["model"]:
        done.notes.append(f"{name}: left out; write an entry for each model, with aliases for patterns")
        return None
    if info.get("mode") not in (None, "chat", "responses"):
        done.notes.append(f"{name}: left out, since its mode is {info['mode']}")
        return None
    provider, model = _provider(params)
    entry: dict[str, Any] = {"model_id": name}
    if model != name:
        entry["model_name"] = model
    vendor = find_vendor(_VENDORS.get(provider, provider))
    if not _take_address(entry, params, provider, vendor):
        done.notes.append(
            f"{name}: left out; the address of {provider!r} is not known, so add it by 'claude-proxy add'"
        )
        return None
    _take_key(entry, params, provider, vendor, name, done)
    entry |= {key: params[key] for key in _SAME if params.get(key) is not None}
    if info.get("max_input_tokens"):
        entry["max_input_tokens"] = info["max_input_tokens"]
    if "max_tokens" not in entry and info.get("max_output_tokens"):
        entry["max_tokens"] = info["max_output_tokens"]
    if isinstance(info.get("supports_vision"), bool):
        entry["vision"] = info["supports_vision"]
    if prices := _prices({**info, **params}):
        entry["pricing"] = prices
    if unknown := sorted({*(set(params) - _PARAMS), *(f"model_info.{key}" for key in set(info) - _INFO)}):
        done.notes.append(f"{name}: not taken over: {', '.join(map(str, unknown))}")
    return entry


def _provider(params: Mapping[str, Any]) -> tuple[str, str]:
    """Return the provider, and the upstream's name of the model."""
    model = str(params["model"])
    named = params.get("custom_llm_provider")
    if isinstance(named, str):
        return named, model.removeprefix(f"{named}/")
    first, slash, rest = model.partition("/")
    if slash and (
        first in _APIS or first in _SERVERS or find_vendor(_VENDORS.get(first, first)) or first == "vertex_ai"
    ):
        return first, rest
    return ("anthropic" if model.startswith("claude") else "openai"), model


def _take_address(
    entry: dict[str, Any], params: Mapping[str, Any], provider: str, vendor: Vendor | None
) -> bool:
    given = params.get("api_base") or params.get("base_url")
    if isinstance(given, str) and _REFERENCE.match(given):
        return False  # an address cannot come from a variable
    base = base_of(given) if isinstance(given, str) else ""
    if provider == "anthropic":
        entry["api_base"] = base.removesuffix("/v1") or "https://api.anthropic.com"
        entry["direct"] = True
    elif provider in _SERVERS:
        profile, usual = _SERVERS[provider]
        entry["api_base"] = base if base.endswith("/v1") or not base else f"{base}/v1"
        entry["api_base"] = entry["api_base"] or usual
        entry["provider"] = profile
    elif base:
        entry["api_base"] = base
    elif vendor is not None and vendor.api_base:
        entry["api_base"] = vendor.api_base
        entry |= {"direct": True} if vendor.direct else {}
        entry |= {"format": vendor.format} if vendor.format is not None else {}
    return bool(entry.get("api_base"))


def _take_key(
    entry: dict[str, Any],
    params: Mapping[str, Any],
    provider: str,
    vendor: Vendor | None,
    name: str,
    done: Imported,
) -> None:
    given = params.get("api_key")
    reference = _REFERENCE.match(given) if isinstance(given, str) else None
    if reference is not None:
        entry["api_key"] = f"${{{reference[1]}}}"
    elif isinstance(given, str) and given.strip().lower() not in (
        "",
        "none",
        "fake-key",
        "sk-1234",
        "anything",
    ):
        entry["api_key"] = key_of(variable_of(name), name, done)
    elif provider not in _SERVERS and vendor is not None and vendor.key_env:
        entry["api_key"] = f"${{{vendor.key_env}}}"


def _prices(values: Mapping[str, Any]) -> dict[str, float]:
    found = {}
    for theirs, ours in _PRICES.items():
        try:
            price = round(float(values[theirs]) * 1_000_000, 6)
        except (KeyError, TypeError, ValueError):
            continue
        found[ours] = int(price) if price == int(price) else price
    return found if {"input", "output"} <= set(found) else {}


def _take_settings(
    section: str, settings: Any, by_name: Mapping[str, list[dict[str, Any]]], done: Imported
) -> None:
    if not isinstance(settings, dict):
        return
    for key, value in sorted(settings.items(), key=lambda pair: str(pair[0])):
        if key == "fallbacks" and isinstance(value, list):
            for each in value:
                _take_fallbacks(section, each, by_name, done)
        elif key == "model_group_alias" and isinstance(value, dict):
            for alias, name in value.items():
                if isinstance(name, str) and name in by_name:
                    by_name[name][0].setdefault("aliases", []).append(str(alias))
                else:
                    done.notes.append(f"{section}.{key}.{alias}: not taken over")
        elif "callback" in str(key):
            done.notes.append(f"{section}.{key}: write a hook in Python, or read the ledger and the metrics")
        else:
            done.notes.append(f"{section}.{key}: not taken over")


def _take_fallbacks(
    section: str, each: Any, by_name: Mapping[str, list[dict[str, Any]]], done: Imported
) -> None:
    for name, others in each.items() if isinstance(each, dict) else ():
        known = [other for other in others if other in by_name] if isinstance(others, list) else []
        if name in by_name and known:
            by_name[name][0]["fallback"] = known
        else:
            done.notes.append(f"{section}.fallbacks.{name}: no entry has these names")
