"""Lists of models in the forms of vendors and local servers, from their documentation."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxyd.config.catalog import KnownModel
from proxyd.config.routes import Pricing
from proxyd.onboarding.model_list import (
    ListedModel,
    completed,
    next_page,
    ollama_model,
    read_models,
    with_llamacpp_props,
)

OPENROUTER = {
    "id": "qwen/qwen3-coder",
    "context_length": 262_144,
    "architecture": {"input_modalities": ["text", "image"], "output_modalities": ["text"]},
    "pricing": {"prompt": "0.00000022", "completion": "0.0000018", "input_cache_read": "0.00000002"},
    "top_provider": {"context_length": 262_144, "max_completion_tokens": 65_536},
    "supported_parameters": ["tools", "reasoning", "max_tokens"],
}


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        ({"id": "gpt-5", "object": "model", "owned_by": "openai"}, ListedModel("gpt-5")),
        (
            OPENROUTER,
            ListedModel(
                "qwen/qwen3-coder", 262_144, None, 65_536, Pricing(0.22, 1.8, 0.02), True, True, True
            ),
        ),
        (
            {"id": "kimi-k2.6", "context_length": 262_144, "supports_image_in": True, "supports_reasoning": False},
            ListedModel("kimi-k2.6", 262_144, thinking=False, vision=True),
        ),
        (
            {"id": "m", "max_context_length": 131_072, "capabilities": {"function_calling": True, "vision": False}},
            ListedModel("m", 131_072, vision=False, tools=True),
        ),
        (
            {"id": "llama", "context_window": 131_072, "max_completion_tokens": 32_768},
            ListedModel("llama", 131_072, None, 32_768),
        ),
        ({"id": "/models/q", "owned_by": "vllm", "max_model_len": 40_960}, ListedModel("/models/q", 40_960)),
        (
            {"name": "models/gemini-3", "inputTokenLimit": 1_048_576, "outputTokenLimit": 65_536},
            ListedModel("gemini-3", 1_048_576, None, 65_536),
        ),
        (
            {"id": "github/x", "limits": {"max_input_tokens": 8000, "max_output_tokens": 4000}},
            ListedModel("github/x", 8000, None, 4000),
        ),
    ],
)  # fmt: skip
def test_one_model_in_the_form_of_its_vendor(item: dict[str, Any], expected: ListedModel) -> None:
    assert read_models({"data": [item]}) == [expected]
    assert read_models({"models": [item]}) == [expected]
    assert read_models([item]) == [expected]


def test_what_answers_no_chat_is_left_out_and_nothing_comes_twice() -> None:
    names = ["a", "text-embedding-3", "a", "whisper-1", "b", ""]
    listed = read_models({"data": [*({"id": name} for name in names), {"id": 3}, "c", {}]})
    assert [each.name for each in listed] == ["a", "b"]


@pytest.mark.parametrize(
    ("payload", "said"),
    [
        ({"data": []}, "the list is empty"),
        ([], "the list is empty"),
        ({"data": [{"id": "text-embedding-3"}]}, "no chat model"),
        ({"error": "no"}, "expected a list of models"),
        ("text", "expected a list of models"),
        (None, "expected a list of models"),
    ],
)
def test_what_is_no_list(payload: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        read_models(payload)


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=9),
    lambda below: st.lists(below, max_size=4)
    | st.dictionaries(
        st.sampled_from(
            ["data", "models", "id", "name", "pricing", "prompt", "completion", "context_length", "capabilities",
             "architecture", "input_modalities", "supported_parameters", "type", "links", "next"]
        ),
        below,
        max_size=6,
    ),
    max_leaves=30,
)  # fmt: skip


@given(JSON)
def test_any_json_gives_models_or_a_value_error(payload: Any) -> None:
    next_page(payload)
    ollama_model("m", payload, {})
    with_llamacpp_props(ListedModel("m"), payload)
    try:
        models = read_models(payload)
    except ValueError:
        return
    assert models
    for model in models:
        assert model.max_input_tokens is None or model.max_input_tokens > 0


@pytest.mark.parametrize("price", ["-1", "NaN", "free", "1e9", None])
def test_a_price_that_is_none(price: Any) -> None:
    (model,) = read_models([{"id": "m", "pricing": {"prompt": price, "completion": "0.000001"}}])
    assert model.pricing is None


def test_ollama_says_what_the_model_can_take_and_the_server_how_much_it_gives() -> None:
    show = {
        "capabilities": ["completion", "tools", "thinking"],
        "model_info": {"qwen3.context_length": 262_144, "qwen3.block_count": 48},
        "parameters": "temperature 0.7\nnum_ctx                        32768",
    }
    loaded = ollama_model("m", show, {"m": 65_536})
    assert loaded == ListedModel("m", 65_536, 262_144, thinking=True, vision=False, tools=True)
    idle = ollama_model("m", show, {})
    assert idle is not None
    assert idle.max_input_tokens == 32_768
    bare = ollama_model("m", {**show, "parameters": ""}, {})
    assert bare is not None
    assert (bare.max_input_tokens, bare.largest_window) == (None, 262_144)
    assert ollama_model("m", {"capabilities": ["embedding"]}, {}) is None


def test_llamacpp_gives_the_window_that_it_was_started_with() -> None:
    props = {"default_generation_settings": {"n_ctx": 16_384}, "modalities": {"vision": True, "audio": False}}
    assert with_llamacpp_props(ListedModel("m", 262_144), props) == ListedModel("m", 16_384, vision=True)


def test_the_catalog_fills_gaps_and_overrides_nothing() -> None:
    known = KnownModel("openai", "m", 1000, 50, Pricing(1, 2), True, source="https://x", date="2026-01-02")
    found = completed(ListedModel("m", 900), known)
    assert (found.max_input_tokens, found.max_tokens, found.thinking) == (900, 50, True)
    assert found.catalog_source == "https://x, 2026-01-02"
    assert completed(ListedModel("m"), None).catalog_source == ""


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (ListedModel("m"), "-"),
        (ListedModel("m", tools=True, vision=True), "tools, vision"),
        (ListedModel("m", tools=False, thinking=True), "no tools, thinking"),
    ],
)
def test_abilities_in_words(model: ListedModel, words: str) -> None:
    assert model.abilities == words
