"""The tables from which the catalog is made."""

from __future__ import annotations

from typing import Any

import pytest

from proxyd.config.catalog import KnownModel
from proxyd.config.routes import Pricing
from proxyd.onboarding.catalog_sources import LITELLM_URL, OPENROUTER_URL, read_table

ROW = {
    "litellm_provider": "moonshot",
    "mode": "chat",
    "max_input_tokens": 262_144,
    "max_output_tokens": 32_768,
    "input_cost_per_token": 9.5e-07,
    "output_cost_per_token": 4e-06,
    "cache_read_input_token_cost": 1.6e-07,
    "cache_creation_input_token_cost": 0,
    "supports_function_calling": True,
    "supports_reasoning": True,
    "source": "https://platform.kimi.ai/docs/pricing",
}


def litellm(**changes: Any) -> dict[str, Any]:
    return {"sample_spec": {"mode": "one of"}, "moonshot/kimi": {**ROW, **changes}}


def test_a_row_of_litellm() -> None:
    assert read_table(litellm(), "2026-01-02") == [
        KnownModel(
            "moonshot",
            "kimi",
            262_144,
            32_768,
            Pricing(0.95, 4.0, 0.16),
            thinking=True,
            vision=None,
            tools=True,
            source="https://platform.kimi.ai/docs/pricing",
            date="2026-01-02",
        )
    ]
    assert read_table(litellm(source="somewhere"), "2026-01-02")[0].source == LITELLM_URL
    assert read_table(litellm(input_cost_per_token=0), "2026-01-02")[0].pricing is None


@pytest.mark.parametrize(
    "changes",
    [
        {"litellm_provider": "unknown"},
        {"mode": "embedding"},
        {"supports_function_calling": False},
        {"max_input_tokens": None},
        {"deprecation_date": "2026-01-01"},
    ],
)
def test_rows_that_are_left_out(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="found no model"):
        read_table(litellm(**changes), "2026-01-02")


def test_a_model_that_ends_later_is_kept() -> None:
    assert len(read_table(litellm(deprecation_date="2027-01-01"), "2026-01-02")) == 1


def test_the_list_of_openrouter() -> None:
    payload = {
        "data": [
            {
                "id": "q/coder",
                "context_length": 1000,
                "supported_parameters": ["tools"],
                "pricing": {"prompt": "0.000001", "completion": "0.000002"},
            },
            {"id": "q/writer", "supported_parameters": ["stop"]},
        ]
    }
    (model,) = read_table(payload, "2026-01-02")
    assert (model.vendor, model.model, model.max_input_tokens) == ("openrouter", "q/coder", 1000)
    assert (model.pricing, model.source) == (Pricing(1.0, 2.0), OPENROUTER_URL)
