"""Build entries of models.yaml from what is known of an upstream and its models."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from proxyd.config.routes import Pricing
from proxyd.onboarding.model_list import ListedModel
from proxyd.providers.registry import profile_for

__all__ = ["Target", "build_entry", "entry_comment", "entry_id", "short_count"]

#: Claude Code asks for up to so many tokens of a response; a limit above needs no line.
_LARGEST_ASKED_OUTPUT = 64_000
_NOT_IN_ID = re.compile(r"[^\w.:@/+-]+")


@dataclass(frozen=True, slots=True)
class Target:
    """An upstream whose models are added.

    Attributes:
        name: for ids, where the model's own name is taken.
        title: its name for people.
        profile: name of its profile.
        models_url: its list of models; "" where there is none that can be read.
        format: value of ``format`` in its entries.
        key_env: the variable of its key; "" where it needs none.
        models: its models, where they are known already.
        access_token: value of ``access_token`` where no variable is named for it; the upstream takes no key.
    """

    name: str
    title: str
    profile: str
    api_base: str
    models_url: str
    key_env: str
    direct: bool = False
    format: str | None = None
    models: tuple[ListedModel, ...] | None = None
    access_token: str = ""


def entry_id(target: Target, model_name: str, taken: Collection[str]) -> str:
    """Return a free id: the model's name without its publisher, else with the vendor's name in front."""
    short = _NOT_IN_ID.sub("-", model_name.rpartition("/")[2] or model_name).strip("-/") or "model"
    candidates = [short, f"{target.name}/{short}", *(f"{target.name}/{short}-{n}" for n in range(2, 1000))]
    return next(name for name in candidates if name not in taken)


def build_entry(target: Target, model: ListedModel, model_id: str, key: str | None) -> dict[str, Any]:
    """Return the keys of an entry, in the order in which they are written.

    Args:
        key: the value of ``api_key``, or of ``access_token`` where the target takes one.
    """
    entry: dict[str, Any] = {"model_id": model_id}
    if model.name != model_id:
        entry["model_name"] = model.name
    entry["api_base"] = target.api_base
    if target.direct:
        entry["direct"] = True
    if target.format is not None:
        entry["format"] = target.format
    if profile_for(target.api_base, None).name != target.profile:
        entry["provider"] = target.profile
    if target.access_token:
        entry["access_token"] = key or target.access_token
    elif key is not None:
        entry["api_key"] = key
    if model.max_input_tokens is not None:
        entry["max_input_tokens"] = model.max_input_tokens
    if model.max_tokens is not None and model.max_tokens < _LARGEST_ASKED_OUTPUT:
        entry["max_tokens"] = model.max_tokens
    if model.pricing is not None:
        entry["pricing"] = _prices(model.pricing)
    return entry


def entry_comment(target: Target, model: ListedModel, date: str) -> list[str]:
    """Return the lines above an entry: who it is, and where its figures came from."""
    lines = [f"{target.title}: {model.name}. Added by 'claude-proxy add' on {date}."]
    if model.catalog_source:
        lines.append(f"Figures that the list of models does not have are from {model.catalog_source}.")
    if model.max_input_tokens is None and model.largest_window is not None:
        lines.append(
            f"The model takes up to {model.largest_window} tokens, but the server decides how many it is given: set "
            "max_input_tokens to that."
        )
    return lines


def short_count(tokens: int | None) -> str:
    """Return a number of tokens as 262k or 1m, "-" where it is unknown."""
    if tokens is None:
        return "-"
    return f"{tokens / 1_000_000:.3g}m" if tokens >= 1_000_000 else f"{round(tokens / 1000)}k"


def _prices(pricing: Pricing) -> dict[str, float | int]:
    found: dict[str, float | int] = {}
    for name in ("input", "output", "cache_read", "cache_write"):
        price = getattr(pricing, name)
        if price is not None:
            found[name] = int(price) if price == int(price) else price
    return found
