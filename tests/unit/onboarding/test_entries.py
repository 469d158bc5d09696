"""Entries built from what is known of a model."""

from __future__ import annotations

from typing import Any

import pytest

from proxyd.codecs.translation.translated import run_to_end
from proxyd.config.routes import ModelRoute, Pricing
from proxyd.onboarding.entries import Target, build_entry, entry_comment, entry_id, short_count
from proxyd.onboarding.model_list import ListedModel
from proxyd.onboarding.vendors import find_vendor
from proxyd.providers.base import CallTimeouts, ClientKeys
from proxyd.providers.translated_request import prepare
from proxyd.secret import Secret

KIMI = Target(
    "kimi", "Moonshot Kimi", "moonshot", "https://api.moonshot.ai/anthropic", "https://x/models", "KEY", direct=True
)  # fmt: skip
VLLM = Target("vllm", "vLLM", "vllm", "http://127.0.0.1:8000/v1", "", "")


@pytest.mark.parametrize(
    ("name", "taken", "expected"),
    [
        ("kimi-k2.6", (), "kimi-k2.6"),
        ("qwen/qwen3-coder:free", (), "qwen3-coder:free"),
        ("kimi-k2.6", ("kimi-k2.6",), "kimi/kimi-k2.6"),
        ("kimi-k2.6", ("kimi-k2.6", "kimi/kimi-k2.6"), "kimi/kimi-k2.6-2"),
        ("a model, odd", (), "a-model-odd"),
        ("/", (), "model"),
    ],
)
def test_a_free_id(name: str, taken: tuple[str, ...], expected: str) -> None:
    assert entry_id(KIMI, name, taken) == expected


def test_a_full_entry_in_order() -> None:
    model = ListedModel("kimi-k2.6", 262_144, None, 16_384, Pricing(0.95, 4.0, 0.16))
    assert list(build_entry(KIMI, model, "kimi", "${KEY}").items()) == [
        ("model_id", "kimi"),
        ("model_name", "kimi-k2.6"),
        ("api_base", "https://api.moonshot.ai/anthropic"),
        ("direct", True),
        ("api_key", "${KEY}"),
        ("max_input_tokens", 262_144),
        ("max_tokens", 16_384),
        ("pricing", {"input": 0.95, "output": 4, "cache_read": 0.16}),
    ]


def test_a_bare_entry_names_its_provider_where_the_address_does_not() -> None:
    built: dict[str, Any] = build_entry(VLLM, ListedModel("m", max_tokens=128_000), "m", None)
    assert built == {"model_id": "m", "api_base": "http://127.0.0.1:8000/v1", "provider": "vllm"}


def test_an_entry_of_openai_takes_tools_and_thinking_together() -> None:
    """The model needs the Responses API for that, and the entry need not say so."""
    openai = find_vendor("openai")
    assert openai is not None
    target = Target("openai", openai.title, "openai", openai.api_base, openai.models_url, openai.key_env)
    built = build_entry(target, ListedModel("gpt-5.6"), "gpt-5.6", "sk-0123456789abcdef")
    assert built.keys() == {"model_id", "api_base", "api_key"}
    payload = {
        "model": "gpt-5.6",
        "max_tokens": 5000,
        "thinking": {"type": "adaptive"},
        "output_config": {"effort": "high"},
        "tools": [{"name": "Bash", "input_schema": {"type": "object"}}],
        "messages": [{"role": "user", "content": "hi"}],
    }
    call = run_to_end(
        prepare(
            ModelRoute(**{**built, "api_key": Secret(built["api_key"]), "model_name": "gpt-5.6"}),
            built["api_base"],
            payload,
            ClientKeys(),
            timeouts=CallTimeouts(),
            new_id=str,
            warn=print,
            max_body_bytes=1,
        )
    )
    assert call.request.url == "https://api.openai.com/v1/responses"
    assert call.sent["reasoning"]["effort"] == "high"
    assert [tool["name"] for tool in call.sent["tools"]] == ["Bash"]


def test_the_comment_says_where_figures_came_from() -> None:
    plain = entry_comment(KIMI, ListedModel("k"), "2026-01-02")
    assert plain == ["Moonshot Kimi: k. Added by 'claude-proxy add' on 2026-01-02."]
    from_catalog = entry_comment(KIMI, ListedModel("k", catalog_source="https://x, 2026-01-01"), "2026-01-02")
    assert "are from https://x, 2026-01-01." in from_catalog[1]
    unsure = entry_comment(VLLM, ListedModel("k", largest_window=262_144), "2026-01-02")
    assert "up to 262144 tokens" in unsure[1]


@pytest.mark.parametrize(
    ("tokens", "text"),
    [(None, "-"), (262_144, "262k"), (1_000_000, "1m"), (1_048_576, "1.05m"), (8192, "8k")],
)
def test_short_counts(tokens: int | None, text: str) -> None:
    assert short_count(tokens) == text
