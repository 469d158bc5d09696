"""LiteLLM's config.yaml becomes a valid models.yaml."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from proxyd.config.models import load_text
from proxyd.daemon.configuration import checks
from proxyd.onboarding.foreign_files import import_configuration
from tests.support.command_line import Home

KEY = "sk-0123456789abcdef"
CONFIG = f"""\
model_list:
  - model_name: kimi
    litellm_params: {{model: moonshot/kimi-k2.6, api_key: os.environ/MOONSHOT_API_KEY, rpm: 60}}
  - model_name: coder
    litellm_params:
      model: openai/qwen3-coder
      api_base: https://llm.example.com/v1/chat/completions
      api_key: {KEY}
      temperature: 0.2
    model_info: {{max_input_tokens: 262144, input_cost_per_token: 3.0e-07, output_cost_per_token: 0.0000012}}
  - model_name: coder
    litellm_params: {{model: openrouter/qwen/qwen3-coder, weight: 2}}
  - model_name: local
    litellm_params: {{model: ollama_chat/qwen3:8b, api_base: "http://localhost:11434"}}
  - model_name: claude
    litellm_params: {{model: anthropic/claude-sonnet-5-5, api_base: "https://gateway.example.com/v1/messages"}}
  - model_name: gpt
    litellm_params: {{model: gpt-5.6}}
    model_info: {{supports_vision: true, team: x}}
  - model_name: embed
    litellm_params: {{model: openai/text-embedding-3}}
    model_info: {{mode: embedding}}
  - model_name: "anthropic/*"
    litellm_params: {{model: "anthropic/*"}}
  - model_name: azure
    litellm_params: {{model: azure/gpt, api_base: os.environ/AZURE_BASE}}
litellm_settings:
  drop_params: true
  fallbacks: [{{kimi: [coder, nobody]}}, {{x: [y]}}]
  success_callback: [langfuse]
router_settings:
  model_group_alias: {{fast: local}}
  routing_strategy: least-busy
general_settings: {{master_key: sk-1234}}
environment_variables: {{A: b}}
"""


def test_a_configuration_of_litellm(home: Home) -> None:
    (home.path / "config.yaml").write_text(CONFIG)
    done = home.run("import", "config.yaml")
    assert done.code == 0, done.err
    assert KEY not in done.out + done.err
    names = ("MOONSHOT_API_KEY", "CODER_API_KEY", "OPENROUTER_API_KEY", "ANTHROPIC_API_KEY", "OPENAI_API_KEY")
    table = load_text(done.out, Path("models.yaml"), dict.fromkeys(names, KEY), checks=checks()).table
    kimi, coder, second, local, claude, gpt = table.routes
    assert (kimi.api_base, kimi.direct) == ("https://api.moonshot.ai/anthropic", True)
    assert (kimi.key_origin, kimi.model_name) == ("${MOONSHOT_API_KEY}", "kimi-k2.6")
    assert kimi.fallback == ("coder",)
    assert (coder.api_base, coder.model_name) == ("https://llm.example.com/v1", "qwen3-coder")
    assert (coder.max_input_tokens, coder.temperature) == (262_144, 0.2)
    assert coder.pricing is not None
    assert (coder.pricing.input, coder.pricing.output) == (0.3, 1.2)
    assert [(each.use, each.weight) for each in coder.targets] == [("coder", 1), ("coder-2", 2)]
    assert (second.model_id, second.model_name) == ("coder-2", "qwen/qwen3-coder")
    assert (second.api_base, second.key_origin) == ("https://openrouter.ai/api/v1", "${OPENROUTER_API_KEY}")
    assert (local.api_base, local.provider, local.aliases) == (
        "http://localhost:11434/v1",
        "ollama",
        ("fast",),
    )
    assert (claude.api_base, claude.direct) == ("https://gateway.example.com", True)
    assert (gpt.api_base, gpt.vision) == ("https://api.openai.com/v1", True)
    for note in (
        "coder: the key in the file was not copied; put it into env as CODER_API_KEY",
        "kimi: not taken over: rpm",
        "gpt: not taken over: model_info.team",
        "embed: left out, since its mode is embedding",
        "anthropic/*: left out; write an entry for each model",
        "azure: left out; the address of 'azure' is not known",
        "litellm_settings.fallbacks.x: no entry has these names",
        "litellm_settings.drop_params: not taken over",
        "litellm_settings.success_callback: write a hook in Python",
        "router_settings.routing_strategy: not taken over",
        "general_settings.master_key: set auth_token under settings",
        "environment_variables: put them into the file env",
    ):
        assert f"note: {note}" in done.err, note
    assert "sk-1234" not in done.err


@pytest.mark.parametrize(
    "model_list",
    [
        [None, {}, {"model_name": "x"}, {"model_name": "x", "litellm_params": 1}],
        [{"model_name": 3, "litellm_params": {"model": "m", "api_key": 4, "api_base": 5}, "model_info": 6}],
        [{"model_name": "x", "litellm_params": {"model": "/", "input_cost_per_token": "much"}}],
    ],
)
def test_odd_values_end_in_no_traceback(model_list: Any) -> None:
    import_configuration({"model_list": model_list, "litellm_settings": {"fallbacks": [1, {"x": 2}]}})
