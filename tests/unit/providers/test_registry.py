"""Profiles are chosen by name or host, varied by model, and every switch can be overridden."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import pytest

from proxyd.codecs.formats import RESPONSES
from proxyd.codecs.translation.dialect import CHOICES
from proxyd.config.routes import ModelRoute
from proxyd.errors import ConfigError
from proxyd.providers.registry import PROFILES, dialect_for, format_for, profile_for

VENDORS = {
    "openai", "anthropic", "azure", "openrouter", "deepseek", "moonshot", "zhipu", "minimax", "dashscope", "doubao",
    "siliconflow", "gemini", "vertex", "xai", "groq", "mistral", "cerebras", "ollama", "vllm", "sglang", "llamacpp",
    "lmstudio", "github", "bedrock", "generic",
}  # fmt: skip


def test_every_vendor_has_a_profile_with_sources() -> None:
    assert set(PROFILES) == VENDORS
    assert all(profile.sources and profile.title for profile in PROFILES.values())


@pytest.mark.parametrize("name", sorted(VENDORS))
def test_profile_is_sound(name: str) -> None:
    profile = PROFILES[name]
    assert profile.name == name
    assert profile.auth in ("bearer", "api-key")
    for variant in profile.variants:
        re.compile(variant.pattern)
        dataclasses.replace(profile.dialect, **variant.changes)
    dialects = [
        profile.dialect,
        *(dataclasses.replace(profile.dialect, **v.changes) for v in profile.variants),
    ]
    for dialect in dialects:
        for field, words in CHOICES.items():
            assert getattr(dialect, field) in words
        if dialect.reasoning_return in ("field", "details"):
            assert dialect.reasoning_field


@pytest.mark.parametrize(
    ("api_base", "name"),
    [
        ("https://api.openai.com/v1", "openai"),
        ("https://my-res.openai.azure.com/openai/v1", "azure"),
        ("https://openrouter.ai/api/v1", "openrouter"),
        ("https://api.deepseek.com", "deepseek"),
        ("https://API.DeepSeek.com/v1", "deepseek"),
        ("https://api.moonshot.cn/v1", "moonshot"),
        ("https://open.bigmodel.cn/api/paas/v4", "zhipu"),
        ("https://api.z.ai/api/coding/paas/v4", "zhipu"),
        ("https://api.minimaxi.com/v1", "minimax"),
        ("https://dashscope-intl.aliyuncs.com/compatible-mode/v1", "dashscope"),
        ("https://ark.cn-beijing.volces.com/api/v3", "doubao"),
        ("https://api.siliconflow.cn/v1", "siliconflow"),
        ("https://generativelanguage.googleapis.com/v1beta/openai/", "gemini"),
        ("https://aiplatform.googleapis.com/v1/projects/p/locations/global", "vertex"),
        ("https://us-east5-aiplatform.googleapis.com/v1/projects/p/locations/us-east5", "vertex"),
        ("https://aiplatform.eu.rep.googleapis.com/v1/projects/p/locations/eu", "vertex"),
        ("https://api.x.ai/v1", "xai"),
        ("https://api.groq.com/openai/v1", "groq"),
        ("https://api.mistral.ai/v1", "mistral"),
        ("https://api.cerebras.ai/v1", "cerebras"),
        ("http://localhost:11434/v1", "ollama"),
        ("http://192.168.1.9:1234/v1", "lmstudio"),
        ("https://models.github.ai/inference", "github"),
        ("https://bedrock-runtime.us-west-2.amazonaws.com/openai/v1", "bedrock"),
        ("http://127.0.0.1:8000/v1", "generic"),
        ("https://notapi.deepseek.com.example.org", "generic"),
        ("builtin:demo", "generic"),
        ("http://host:notaport/", "generic"),
        ("", "generic"),
    ],
)
def test_profile_by_host(api_base: str, name: str) -> None:
    assert profile_for(api_base, None).name == name


def test_provider_beats_host() -> None:
    assert profile_for("https://api.openai.com/v1", "vllm").name == "vllm"


def test_unknown_provider_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean deepseek"):
        profile_for("https://example.org", "deepsek")


@pytest.mark.parametrize(
    ("provider", "model", "field", "value"),
    [
        ("openai", "gpt-5.4", "max_tokens_field", "max_completion_tokens"),
        ("openai", "gpt-5", "efforts", {"none": "minimal", "low": "low", "medium": "medium", "high": "high"}),
        (
            "openai",
            "gpt-5-2025-08-07",
            "efforts",
            {"none": "minimal", "low": "low", "medium": "medium", "high": "high"},
        ),
        ("openai", "gpt-4.1", "effort_path", None),
        ("openai", "gpt-4.1", "system_role", "system"),
        ("openai", "gpt-5-chat-latest", "effort_path", None),
        ("openai", "o4-mini", "stop_limit", 0),
        ("azure", "O3-deployment", "parallel_tool_calls", False),
        ("github", "openai/gpt-5-mini", "max_tokens_field", "max_completion_tokens"),
        ("github", "openai/gpt-4.1", "max_tokens_field", "max_tokens"),
        ("github", "mistral-ai/ministral-3b", "tool_id_style", "mistral"),
        ("moonshot", "kimi-k2.5", "sampling", ()),
        ("moonshot", "kimi-k2-0905-preview", "sampling", ("temperature", "top_p")),
        ("moonshot", "kimi-k2-thinking", "thinking_path", None),
        ("moonshot", "kimi-k3", "effort_path", "reasoning_effort"),
        ("zhipu", "glm-4.6v", "vision", True),
        ("gemini", "gemini-2.5-pro", "thought_signature_placeholder", None),
        ("xai", "grok-4.3", "effort_path", "reasoning_effort"),
        ("xai", "grok-4-fast-non-reasoning", "effort_path", None),
        ("vllm", "openai/gpt-oss-120b", "effort_path", "reasoning_effort"),
        ("vllm", "mistralai/Devstral-2", "tool_id_style", "mistral"),
        ("generic", "Qwen3.6-27B", "leading_system_only", True),
        ("generic", "anything", "leading_system_only", False),
    ],
)
def test_variants(provider: str, model: str, field: str, value: Any) -> None:
    assert getattr(dialect_for(PROFILES[provider], model, {}), field) == value


@pytest.mark.parametrize(
    ("entry", "name"),
    [
        ({"api_base": "https://api.openai.com/v1", "model_name": "gpt-5.6"}, "openai-responses"),
        ({"api_base": "https://api.openai.com/v1", "model_name": "gpt-5.4-mini"}, "openai-responses"),
        ({"api_base": "https://api.openai.com/v1", "model_name": "gpt-6"}, "openai-responses"),
        (
            {"api_base": "https://gateway/v1", "provider": "openai", "model_name": "x/gpt-5.6"},
            "openai-chat",
        ),
        ({"api_base": "https://api.openai.com/v1", "model_name": "gpt-5.4-chat"}, "openai-chat"),
        ({"api_base": "https://api.openai.com/v1", "model_name": "gpt-5.2"}, "openai-chat"),
        ({"api_base": "https://api.openai.com/v1", "model_name": "gpt-4.1"}, "openai-chat"),
        ({"api_base": "https://gateway/v1", "model_name": "gpt-5.6"}, "openai-chat"),
        (
            {"api_base": "https://api.openai.com/v1", "model_name": "gpt-5.6", "format": "openai-chat"},
            "openai-chat",
        ),
        (
            {"api_base": "https://gateway/v1", "model_name": "m", "format": "openai-responses"},
            "openai-responses",
        ),
    ],
)
def test_format_of_an_entry(entry: dict[str, Any], name: str) -> None:
    route = ModelRoute(model_id="m", **entry)
    chosen, why = format_for(route)
    assert chosen.name == name
    assert (why is not None) == (name == "openai-responses" and route.format is None)


@pytest.mark.parametrize(
    ("profile", "model", "quirks", "field", "value"),
    [
        ("openai", "gpt-5.6", {}, "effort_path", "reasoning.effort"),
        ("openai", "gpt-5.6", {}, "message_phases", True),
        ("openai", "gpt-5.6", {"message_phases": False}, "message_phases", False),
        ("openai", "gpt-5.2", {}, "message_phases", False),
        ("openai", "gpt-5.4", {}, "body_with_tools", {}),
        ("openai", "gpt-4.1", {}, "effort_path", None),
        ("openai", "gpt-4.1", {}, "reasoning_items", "none"),
        ("azure", "o3", {}, "message_phases", False),
        ("vllm", "Qwen/Qwen3-8B", {}, "reasoning_items", "content"),
        ("vllm", "openai/gpt-oss-20b", {}, "effort_path", "reasoning.effort"),
        ("ollama", "qwen3", {}, "named_tool_choice", False),
        ("generic", "m", {}, "images_in_tool_results", True),
    ],
)
def test_a_format_changes_the_dialect(
    profile: str, model: str, quirks: dict[str, Any], field: str, value: Any
) -> None:
    assert getattr(dialect_for(PROFILES[profile], model, quirks, RESPONSES), field) == value
    unchanged = dialect_for(PROFILES[profile], model, {})
    assert unchanged.effort_path != "reasoning.effort"
    assert not unchanged.message_phases
