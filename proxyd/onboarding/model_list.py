"""Read an upstream's list of models: each vendor's and each local server's form into one. No I/O."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlencode

from proxyd.config.catalog import KnownModel
from proxyd.config.routes import Pricing

__all__ = ["ListedModel", "completed", "next_page", "ollama_model", "read_models", "with_llamacpp_props"]

#: Names of the window in the lists of vendors: OpenRouter and Moonshot; Mistral; Groq and Together; vLLM and SGLang;
#: Anthropic; LM Studio.
_WINDOWS = (
    "loaded_context_length",
    "max_input_tokens",
    "context_length",
    "max_context_length",
    "context_window",
    "max_model_len",
    "inputTokenLimit",
)
_OUTPUTS = ("max_completion_tokens", "max_output_tokens", "outputTokenLimit")
#: Models that answer no chat.
_NO_CHAT = re.compile(
    r"embed|rerank|whisper|tts|transcri|moderation|dall-e|image|realtime|-audio|speech|guard|ocr|lyria|veo|imagen|sora"
    r"|davinci-00|babbage-00|aqa$",
    re.IGNORECASE,
)
_PRICE_NAMES = {
    "input": ("prompt", "input"),
    "output": ("completion", "output"),
    "cache_read": ("input_cache_read",),
    "cache_write": ("input_cache_write",),
}
_NUM_CTX = re.compile(r"^num_ctx\s+(\d+)\s*$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class ListedModel:
    """A model of an upstream's list; None is unknown.

    Attributes:
        name: what the upstream calls it.
        max_input_tokens: its window as the upstream serves it.
        largest_window: what the model could take, where the server decides how much of it is used.
        max_tokens: the most tokens of a response.
        catalog_source: where values came from that the list does not have.
    """

    name: str
    max_input_tokens: int | None = None
    largest_window: int | None = None
    max_tokens: int | None = None
    pricing: Pricing | None = None
    thinking: bool | None = None
    vision: bool | None = None
    tools: bool | None = None
    catalog_source: str = ""

    @property
    def abilities(self) -> str:
        """Its abilities in words, "-" if none is known."""
        names = [name for name in ("tools", "thinking", "vision") if getattr(self, name)]
        if self.tools is False:
            names.insert(0, "no tools")
        return ", ".join(names) or "-"


def read_models(payload: Any) -> list[ListedModel]:
    """Return the chat models of a list, in its order and each once.

    Takes ``{"data": [...]}``, ``{"models": [...]}`` and a bare list.

    Raises:
        ValueError: it is no list of models, or an empty one.
    """
    items = payload
    if isinstance(payload, dict):
        items = payload.get("data") if isinstance(payload.get("data"), list) else payload.get("models")
    if not isinstance(items, list):
        raise ValueError("expected a list of models under 'data', got other JSON; check the address")
    found: dict[str, ListedModel] = {}
    for item in items:
        model = _read_model(item) if isinstance(item, dict) else None
        if model is not None:
            found.setdefault(model.name, model)
    if not found:
        raise ValueError("the list has no chat model" if items else "the list is empty")
    return list(found.values())


def next_page(payload: Any) -> str | None:
    """Return the address of the list's next page, relative to this one."""
    token = payload.get("nextPageToken") if isinstance(payload, dict) else None
    if isinstance(token, str) and token:  # Gemini
        return f"?{urlencode({'pageSize': 1000, 'pageToken': token})}"
    links = payload.get("links") if isinstance(payload, dict) else None
    following = links.get("next") if isinstance(links, dict) else None
    return following if isinstance(following, str) and following else None


def ollama_model(name: str, show: Any, loaded: Mapping[str, int]) -> ListedModel | None:
    """Return a model of Ollama from the response of ``/api/show``; None for one that answers no chat.

    Its window is decided by the server: that of a loaded model is in ``/api/ps``, else ``num_ctx`` of the model counts.

    Args:
        loaded: the windows of loaded models.
    """
    if not isinstance(show, dict):
        return ListedModel(name, max_input_tokens=loaded.get(name))
    capabilities = show.get("capabilities")
    can = set(capabilities) if isinstance(capabilities, list) else None
    if can is not None and "completion" not in can:
        return None
    info = show.get("model_info")
    lengths = [
        _count(value) for key, value in info.items() if key.endswith(".context_length")
    ] if isinstance(info, dict) else []  # fmt: skip
    match = _NUM_CTX.search(str(show.get("parameters") or ""))
    return ListedModel(
        name,
        max_input_tokens=loaded.get(name) or (int(match[1]) if match else None),
        largest_window=next((each for each in lengths if each), None),
        tools=None if can is None else "tools" in can,
        thinking=None if can is None else "thinking" in can,
        vision=None if can is None else "vision" in can,
    )


def with_llamacpp_props(model: ListedModel, props: Any) -> ListedModel:
    """Return `model` with what ``/props`` of a llama.cpp server says of it."""
    if not isinstance(props, dict):
        return model
    defaults = props.get("default_generation_settings")
    window = _count(defaults.get("n_ctx")) if isinstance(defaults, dict) else None
    modalities = props.get("modalities")
    vision = modalities.get("vision") if isinstance(modalities, dict) else None
    return replace(
        model,
        max_input_tokens=window or model.max_input_tokens,
        vision=vision if isinstance(vision, bool) else model.vision,
    )


def completed(model: ListedModel, known: KnownModel | None) -> ListedModel:
    """Return `model` with values of the catalog where its list has none."""
    if known is None:
        return model
    missing = {
        name: getattr(known, name)
        for name in ("max_input_tokens", "max_tokens", "pricing", "thinking", "vision", "tools")
        if getattr(model, name) is None and getattr(known, name) is not None
    }
    return replace(model, **missing, catalog_source=known.origin) if missing else model


def _read_model(item: Mapping[str, Any]) -> ListedModel | None:
    name = item.get("id") or item.get("name") or item.get("model")
    if not isinstance(name, str) or not name.strip() or len(name) > 256 or not name.isprintable():
        return None
    name = name.removeprefix("models/")  # Gemini's own form
    if item.get("type") == "embeddings" or _NO_CHAT.search(name):
        return None
    methods = item.get("supportedGenerationMethods")  # Gemini's
    if isinstance(methods, list) and "generateContent" not in methods:
        return None
    inputs, outputs = _modalities(item, "input"), _modalities(item, "output")
    if outputs and "text" not in outputs:
        return None
    provider = item.get("top_provider")
    limits = item.get("limits")
    places: list[Mapping[str, Any]] = [each for each in (item, provider, limits) if isinstance(each, dict)]
    return ListedModel(
        name,
        max_input_tokens=next(_counts(places, _WINDOWS), None),
        max_tokens=next(_counts(places, _OUTPUTS), None),
        pricing=_read_pricing(item.get("pricing")),
        thinking=_ability(item, "reasoning", "thinking", "supports_reasoning"),
        vision="image" in inputs if inputs else _sees(item),
        tools=_ability(item, "tools", "tool_use", "function_calling", "tool-calling"),
    )


def _ability(item: Mapping[str, Any], *names: str) -> bool | None:
    """Return whether an item has an ability, which its list may call by any of `names`; None if it does not say."""
    for field in ("capabilities", "supported_features", "supported_parameters"):
        value = item.get(field)
        if isinstance(value, dict):
            found = [value[name] for name in names if isinstance(value.get(name), bool)]
            if found:
                return any(found)
        elif isinstance(value, list):
            if any(name in value for name in names):
                return True
            if field == "supported_parameters" and value:
                return False  # OpenRouter's names all of them
    found = [item[name] for name in names if isinstance(item.get(name), bool)]
    return any(found) if found else None


def _sees(item: Mapping[str, Any]) -> bool | None:
    if item.get("type") in ("llm", "vlm"):  # LM Studio
        return bool(item["type"] == "vlm")
    capabilities = item.get("capabilities")
    if isinstance(capabilities, list) and "vision" in capabilities:
        return True
    if isinstance(capabilities, dict) and isinstance(capabilities.get("vision"), bool):
        return bool(capabilities["vision"])
    seen = item.get("supports_image_in")  # Moonshot
    return seen if isinstance(seen, bool) else None


def _modalities(item: Mapping[str, Any], side: str) -> set[str]:
    architecture = item.get("architecture")
    for place, field in ((architecture, f"{side}_modalities"), (item, f"supported_{side}_modalities")):
        value = place.get(field) if isinstance(place, dict) else None
        if isinstance(value, list):
            return {word for word in value if isinstance(word, str)}
    return set()


def _counts(places: list[Mapping[str, Any]], names: tuple[str, ...]) -> Iterator[int]:
    for name in names:
        for place in places:
            count = _count(place.get(name))
            if count:
                yield count


def _count(value: Any) -> int | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    return int(value) if 0 < value < 1 << 40 else None


def _read_pricing(value: Any) -> Pricing | None:
    """Read OpenRouter's prices: texts in USD per token. -1 is a price that varies."""
    if not isinstance(value, dict):
        return None
    found: dict[str, float] = {}
    for name, theirs in _PRICE_NAMES.items():
        for field in theirs:
            try:
                price = float(value[field])
            except (KeyError, TypeError, ValueError):
                continue
            if math.isfinite(price) and 0 <= price < 1:
                found[name] = round(price * 1_000_000, 6)
                break
    return Pricing(**found) if "input" in found and "output" in found else None
