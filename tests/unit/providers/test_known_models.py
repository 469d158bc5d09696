"""Entries compared with the catalog."""

from __future__ import annotations

from typing import Any

import pytest

from proxyd.config.catalog import Catalog, KnownModel
from proxyd.config.routes import ModelRoute, Pricing
from proxyd.providers.known_models import catalog_doubts, known_model, with_known_window

CATALOG = Catalog(
    [
        KnownModel(
            "moonshot", "k", 262_144, 32_000, Pricing(1, 4), vision=False, source="https://x", date="2026-01-02"
        ),
        KnownModel("anthropic", "claude", 1_000_000, source="https://x", date="2026-01-02"),
    ]
)  # fmt: skip


def route(api_base: str = "https://api.moonshot.ai/v1", model: str = "k", **keys: Any) -> ModelRoute:
    return ModelRoute("id", api_base, model, **keys)


def test_an_entry_without_a_window_gets_the_known_one() -> None:
    assert with_known_window(route(), CATALOG).known_window == 262_144
    assert with_known_window(route(max_input_tokens=1000), CATALOG).known_window is None
    assert with_known_window(route(model="other"), CATALOG).known_window is None


@pytest.mark.parametrize(
    "entry",
    [
        route("http://127.0.0.1:9/v1"),
        route("http://127.0.0.1:9/v1", provider="moonshot"),
        route("https://api.anthropic.com", "claude", direct=True),
        route("builtin:demo"),
    ],
)
def test_only_a_vendors_own_address_counts(entry: ModelRoute) -> None:
    assert known_model(entry, CATALOG) is None


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"max_input_tokens": 300_000}, "models[0].max_input_tokens: 300000 is more than the 262144"),
        ({"max_tokens": 64_000}, "models[0].max_tokens: 64000 is more than the 32000"),
        ({"pricing": Pricing(1, 5)}, "models[0].pricing.output: 5 USD is not the 4"),
        ({"vision": True}, "models[0].vision: this model is known to take no images"),
    ],
)
def test_values_that_disagree(keys: dict[str, Any], said: str) -> None:
    (line,) = catalog_doubts([route(**keys)], CATALOG)
    assert line.startswith(said)
    assert "(https://x, 2026-01-02)" in line


@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"max_input_tokens": 256_000},
        {"max_input_tokens": 270_000},
        {"max_tokens": 8_000},
        {"pricing": Pricing(1, 4.01)},
        {"pricing": Pricing(input=1)},
        {"vision": False},
    ],
)
def test_values_that_agree(keys: dict[str, Any]) -> None:
    assert catalog_doubts([route(**keys)], CATALOG) == []
