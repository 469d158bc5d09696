"""Compare entries with what the catalog knows of their models: missing windows, and values that disagree.

The catalog speaks of a vendor's own address. Anthropic's models are left out: Claude Code knows their windows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from proxyd.config.catalog import Catalog, KnownModel
from proxyd.config.routes import ModelRoute
from proxyd.providers.registry import profile_for

__all__ = ["catalog_doubts", "known_model", "with_known_window"]

#: 256k is written for 262144 and for 256000.
_WINDOW_TOLERANCE = 1.05
_PRICE_TOLERANCE = 0.01


def known_model(route: ModelRoute, catalog: Catalog) -> KnownModel | None:
    """Return what the catalog knows of the model of `route`; None where it is not served by its vendor."""
    if route.is_demo:
        return None
    vendor = profile_for(route.api_base, None).name
    return None if vendor == "anthropic" else catalog.find(vendor, route.model_name)


def with_known_window(route: ModelRoute, catalog: Catalog) -> ModelRoute:
    """Return `route` with the known window, if models.yaml names none."""
    if route.max_input_tokens is not None:
        return route
    known = known_model(route, catalog)
    return route if known is None else replace(route, known_window=known.max_input_tokens)


def catalog_doubts(routes: Sequence[ModelRoute], catalog: Catalog) -> list[str]:
    """Return a line for each value that disagrees with the catalog: ``models[3].max_input_tokens: …``."""
    lines = []
    for index, route in enumerate(routes):
        known = known_model(route, catalog)
        if known is not None:
            lines += [
                f"models[{index}].{key}: {text} ({known.origin}); correct one of the two"
                for key, text in _doubts(route, known)
            ]
    return lines


def _doubts(route: ModelRoute, known: KnownModel) -> Iterator[tuple[str, str]]:
    window = known.max_input_tokens
    if window and route.max_input_tokens and route.max_input_tokens > window * _WINDOW_TOLERANCE:
        yield (
            "max_input_tokens",
            f"{route.max_input_tokens} is more than the {window} that is known of this model",
        )
    if known.max_tokens and route.max_tokens and route.max_tokens > known.max_tokens * _WINDOW_TOLERANCE:
        yield (
            "max_tokens",
            f"{route.max_tokens} is more than the {known.max_tokens} that is known of this model",
        )
    if route.pricing is not None and known.pricing is not None:
        for name in ("input", "output"):
            ours, theirs = getattr(route.pricing, name), getattr(known.pricing, name)
            if None not in (ours, theirs) and abs(ours - theirs) > _PRICE_TOLERANCE * theirs:
                yield f"pricing.{name}", f"{ours:g} USD is not the {theirs:g} that is known of this model"
    if route.vision is True and known.vision is False:
        yield "vision", "this model is known to take no images"
