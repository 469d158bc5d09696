"""The configurations of other proxies become a valid models.yaml."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from proxyd.config.models import load_text
from proxyd.onboarding.foreign_files import import_configuration
from tests.support.command_line import Home

ORIGINAL = """\
- model_id: gemini
  model_name: google/gemini-2.5-pro
  api_base: "https://openrouter.ai/api/v1/chat/completions"
  api_key_name: OPENROUTER_API_KEY
  can_stream: true
  max_tokens: 66K
  reasoning_effort: "medium"
  extra_headers: {X-Title: Claude Code}
  extra_body: {top_p: 0.95}
- model_id: quiet
  api_base: https://api.example.com/v1
  api_key: sk-0123456789abcdef
  max_input_tokens: 0.2M
  enable_thinking: false
  odd: 1
- model_id: nowhere
"""
ROUTER = {
    "APIKEY": "secret",
    "Providers": [
        {
            "name": "deepseek",
            "api_base_url": "https://api.deepseek.com/chat/completions",
            "api_key": "$DEEPSEEK_API_KEY",
            "models": ["deepseek-chat"],
            "transformer": {"use": ["deepseek", ["maxtoken", {"max_tokens": 8192}]]},
        },
        {
            "name": "kimi",
            "api_base_url": "https://api.moonshot.ai/anthropic/v1/messages",
            "api_key": "sk-0123456789abcdef",
            "models": ["kimi-k2.6"],
            "transformer": {"use": ["Anthropic"]},
        },
        {
            "name": "gemini",
            "api_base_url": "https://generativelanguage.googleapis.com/v1beta/models/",
            "api_key": "${GEMINI_API_KEY}",
            "models": ["gemini-2.5-pro", "deepseek-chat"],
        },
    ],
    "Router": {
        "default": "kimi,kimi-k2.6",
        "background": "deepseek,deepseek-chat",
        "think": "gemini,gemini-2.5-pro",
        "longContext": "gemini,gemini-2.5-pro",
        "longContextThreshold": 50_000,
        "webSearch": "nobody,x",
    },
}


def imported(home: Home, name: str, text: str) -> tuple[Any, str]:
    path = home.path / name
    path.write_text(text)
    done = home.run("import", str(path))
    assert done.code == 0, done.err
    environ = {"OPENROUTER_API_KEY": "k1-012345", "DEEPSEEK_API_KEY": "k2-012345"}
    assert "sk-0123456789" not in done.out + done.err
    return load_text(done.out, Path("models.yaml"), environ).table, done.err


def test_models_of_the_original(home: Home) -> None:
    table, notes = imported(home, "models.yaml", ORIGINAL)
    gemini, quiet = table.routes
    assert (gemini.api_base, gemini.key_origin) == ("https://openrouter.ai/api/v1", "${OPENROUTER_API_KEY}")
    assert (gemini.max_tokens, gemini.reasoning_effort) == (66_000, "medium")
    assert (gemini.extra_body, gemini.extra_headers) == ({"top_p": 0.95}, {"X-Title": "Claude Code"})
    assert (quiet.max_input_tokens, quiet.reasoning_effort) == (200_000, "none")
    assert "quiet: the key in the file was not copied; put it into env as QUIET_API_KEY" in notes
    assert "quiet: not taken over: odd" in notes
    assert "entry 3: left out" in notes


def test_the_configuration_of_claude_code_router(home: Home) -> None:
    table, notes = imported(home, "config.json", json.dumps(ROUTER))
    assert table.ids() == ("kimi-k2.6", "deepseek-chat", "gemini-2.5-pro", "gemini/deepseek-chat")
    kimi, deepseek, gemini, _ = table.routes
    assert (kimi.api_base, kimi.direct) == ("https://api.moonshot.ai/anthropic/v1", True)
    assert (deepseek.api_base, deepseek.max_tokens) == ("https://api.deepseek.com", 8192)
    assert (gemini.api_base, gemini.format) == ("https://generativelanguage.googleapis.com/v1beta", "gemini")
    assert [rule.use for rule in table.rules] == ["deepseek-chat", "gemini-2.5-pro", "gemini-2.5-pro"]
    assert "with thinking" in table.rules[1].describe()
    assert "50000" in table.rules[2].describe().replace("_", "").replace(",", "")
    assert "kimi: the key in the file was not copied; put it into env as KIMI_API_KEY" in notes
    assert "Router.webSearch: no provider has nobody,x" in notes
    assert "APIKEY: set auth_token under settings" in notes
    assert "deepseek: transformers deepseek are not needed" in notes


def test_a_file_is_written_once(home: Home) -> None:
    source = home.path / "old.yaml"
    source.write_text(ORIGINAL)
    assert home.run("import", str(source), "-o", "new.yaml").code == 0
    assert home.run("check", "--models", "new.yaml").code == 0
    again = home.run("import", str(source), "-o", "new.yaml")
    assert again.code == 64
    assert "is there already" in again.err


@pytest.mark.parametrize(
    "document", [None, [], {}, "text", {"model_list": []}, [{"name": "x"}], {"Providers": 1}]
)
def test_other_forms_are_refused(document: Any) -> None:
    with pytest.raises(ValueError, match=r"expected the models\.yaml of tizee/anthropic-proxy"):
        import_configuration(document)


@pytest.mark.parametrize(
    "document",
    [
        {"Providers": [None, {}, {"api_base_url": "https://x.example", "models": [1, None]}]},
        {
            "Providers": [{"api_base_url": "https://x.example", "transformer": {"use": [1, [], [None]]}}],
            "Router": 3,
        },
        [{"model_id": 3, "api_base": 4}, None, 5],
    ],
)
def test_odd_values_end_in_no_traceback(document: Any) -> None:
    import_configuration(document)


def test_a_file_that_is_none(home: Home) -> None:
    (home.path / "bad").write_text("{")
    assert home.run("import", "bad").code == 78
    assert "no such file" in home.run("import", "missing").err
    (home.path / "latin").write_bytes(b"\xe9")
    assert "expected UTF-8" in home.run("import", "latin").err
