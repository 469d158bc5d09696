"""Probable mistakes in valid entries: addresses, keys, chains and ids."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxyd.config.models import load_text
from proxyd.config.settings import Settings
from proxyd.providers.route_warnings import fault_in_address, fault_in_key, route_warnings, search_warnings
from tests.support.models_yaml import ALL_EXAMPLES


@pytest.mark.parametrize(
    ("api_base", "direct", "remedy"),
    [
        ("https://api.anthropic.com", False, "add 'direct: true'"),
        ("https://api.anthropic.com/v1", False, "add 'direct: true'"),
        ("https://api.anthropic.com", True, None),
        ("https://api.moonshot.ai/anthropic", False, "write 'api_base: https://api.moonshot.ai/v1'"),
        ("https://api.moonshot.ai/anthropic", True, None),
        ("https://api.moonshot.ai/v1", True, "write 'api_base: https://api.moonshot.ai/anthropic'"),
        ("https://api.moonshot.ai/v1", False, None),
        ("https://api.z.ai/api/anthropic", False, "add 'direct: true'"),
        ("https://api.z.ai/api/coding/paas/v4", False, None),
        ("https://api.openai.com", False, "write 'api_base: https://api.openai.com/v1'"),
        ("https://api.openai.com/v1/", False, None),
        ("https://api.openai.com/v1", True, "remove 'direct: true'"),
        ("https://api.deepseek.com", False, None),
        ("https://openrouter.ai/api/v1", True, None),
        ("https://openrouter.ai/api/v1", False, None),
        ("https://openrouter.ai/api", False, "write 'api_base: https://openrouter.ai/api/v1'"),
        ("https://api.groq.com/openai/", False, "write 'api_base: https://api.groq.com/openai/v1'"),
        ("https://api.x.ai/v1", True, None),
        ("http://localhost:11434", False, "write 'api_base: http://localhost:11434/v1'"),
        ("http://localhost:11434", True, None),
        ("https://gateway.example.com/acme/anthropic", False, "add 'direct: true'"),
        ("https://gateway.example.com/v1", True, None),
        ("https://gateway.example.com", False, None),
        ("https://user:secret@api.openai.com", False, "https://api.openai.com/v1"),
        ("builtin:demo", False, None),
    ],
)
def test_addresses(api_base: str, direct: bool, remedy: str | None) -> None:
    found = fault_in_address(api_base, direct=direct)
    assert (found is None) == (remedy is None), found
    assert remedy is None or (found is not None and remedy in found)
    assert "secret" not in (found or "")


GOOGLE = "https://generativelanguage.googleapis.com"


@pytest.mark.parametrize(
    ("path", "chosen", "remedy"),
    [
        ("/v1beta/openai", "openai-chat", None),
        ("/v1beta", "gemini", None),
        ("/v1alpha", "gemini", None),
        ("/v1beta", "openai-chat", f"add 'format: gemini', or write 'api_base: {GOOGLE}/v1beta/openai'"),
        ("/v1beta/openai", "gemini", f"remove 'format: gemini', or write 'api_base: {GOOGLE}/v1beta'"),
        ("", "gemini", f"write 'api_base: {GOOGLE}/v1beta'"),
        ("", "openai-chat", f"write 'api_base: {GOOGLE}/v1beta/openai'"),
    ],
)
def test_addresses_of_a_vendor_with_two_formats(path: str, chosen: str, remedy: str | None) -> None:
    found = fault_in_address(f"{GOOGLE}{path}", direct=False, chosen=chosen)
    assert (found is None) == (remedy is None), found
    assert remedy is None or (found is not None and remedy in found)


PLACE = "https://us-east5-aiplatform.googleapis.com/v1/projects/p/locations/us-east5"


@pytest.mark.parametrize(
    ("api_base", "direct", "chosen", "remedy"),
    [
        (PLACE, True, "openai-chat", None),
        (PLACE, False, "gemini", None),
        (f"{PLACE}/endpoints/openapi", False, "openai-chat", None),
        (PLACE, False, "openai-chat", "add /endpoints/openapi"),
        (f"{PLACE}/endpoints/openapi", False, "gemini", "remove /endpoints/openapi"),
        (f"{PLACE}/endpoints/openapi", True, "openai-chat", "remove /endpoints/openapi"),
        (f"{PLACE}/publishers/google", False, "gemini", "/v1/projects/PROJECT/locations/LOCATION"),
        ("https://aiplatform.googleapis.com/v1", True, "openai-chat", "/v1/projects/PROJECT/locations"),
    ],
)
def test_addresses_of_vertex_ai(api_base: str, direct: bool, chosen: str, remedy: str | None) -> None:
    found = fault_in_address(api_base, direct=direct, chosen=chosen)
    assert (found is None) == (remedy is None), found
    assert remedy is None or (found is not None and remedy in found)


def test_an_entry_is_warned_of_by_its_format() -> None:
    text = f"- {{model_id: g, model_name: gemini-3-pro, api_base: '{GOOGLE}/v1beta', api_key: x9-abcdef"
    assert "format: gemini" in warnings(f"{text}}}\n")[0]
    assert warnings(f"{text}, format: gemini}}\n") == []


@pytest.mark.parametrize(
    ("key", "fault"),
    [
        ("Bearer sk-0123456789", "begins with 'Bearer'"),
        ("'sk-0123456789'", "holds quotes"),
        ("sk-01234 56789", "holds blanks"),
        ("OPENAI_API_KEY", "looks like the name of a variable"),
        ("your-api-key-here", "looks like a placeholder"),
        ("<key>", "looks like a placeholder"),
        ("sk-...", "looks like a placeholder"),
        ("sk-xxxxxxxx", "looks like a placeholder"),
    ],
)
def test_malformed_keys(key: str, fault: str) -> None:
    found = fault_in_key(key)
    assert found is not None
    assert fault in found
    assert key not in found


@pytest.mark.parametrize(
    "key",
    [
        "sk-ant-api03-0123456789_ABC-def",
        "ghp_0123456789ABCDEF",
        "AKIA0123456789ABCDEF",
        "EMPTY",
        "ollama",
        "0123.abc",
    ],
)
def test_real_and_dummy_keys(key: str) -> None:
    assert fault_in_key(key) is None


def warnings(text: str, **environ: str) -> list[str]:
    return route_warnings(load_text(text, Path("models.yaml"), environ).table.routes)


def test_key_from_a_variable_is_named_by_its_origin() -> None:
    text = "- {model_id: a, api_base: 'https://api.openai.com/v1', api_key: '${A_KEY}'}\n"
    assert warnings(text, A_KEY="Bearer sk-0123456789") == [
        "models[0].api_key: the key from ${A_KEY} begins with 'Bearer': write the key alone"
    ]
    assert warnings(text, A_KEY="sk-0123456789") == []


def test_chain_whose_head_has_no_key() -> None:
    text = (
        "- {model_id: last, api_base: 'builtin:demo'}\n"
        "- {model_id: head, api_base: 'https://api.openai.com/v1', api_key: '${A_KEY}', fallback: [last]}\n"
        "- {model_id: alone, api_base: 'https://api.openai.com/v1', api_key: '${A_KEY}'}\n"
    )
    (line,) = warnings(text)
    assert line.startswith("models[1].api_key: model 'head' has no key: A_KEY is not set")
    assert line.endswith("without it calls are refused, and the fallbacks are not tried")
    assert warnings(text, A_KEY="sk-0123456789") == []


def test_default_entry_without_a_key() -> None:
    (line,) = warnings("- {model_id: a, api_base: 'https://api.openai.com/v1', api_key: '${A_KEY}'}\n")
    assert line.endswith("this entry is the default of 'claude-proxy code'")


def test_id_that_claude_code_knows() -> None:
    entry = "- {{model_id: claude-opus-5-5, model_name: {}, api_base: 'https://openrouter.ai/api/v1'}}\n"
    (line,) = warnings(entry.format("qwen/qwen3-coder"))
    assert line.startswith("models[0].model_id: Claude Code takes 'claude-opus-5-5' for its own model")
    assert warnings(entry.format("anthropic/claude-opus-5.5")) == []


@pytest.mark.parametrize(
    ("key", "window", "is_small"), [("context", "32k", True), ("max_input_tokens", "40k", False)]
)
def test_window_that_is_small_for_claude_code(key: str, window: str, is_small: bool) -> None:
    found = warnings(f"- {{model_id: a, api_base: 'http://localhost:1/v1', {key}: {window}}}\n")
    assert [line.partition(" of ")[0] for line in found] == [
        "models[0].max_input_tokens: a window"
    ] * is_small


def test_example_configuration_has_only_missing_keys() -> None:
    keys = {
        "ANTHROPIC_API_KEY": "sk-ant-0123456789",
        "OPENROUTER_API_KEY": "sk-or-0123456789",
        "DEEPSEEK_API_KEY": "sk-0123456789",
        "ARK_API_KEY": "0123",
    }
    assert route_warnings(load_text(ALL_EXAMPLES, Path("models.yaml"), keys).table.routes) == []


SEARCHING = (
    "- {model_id: a, api_base: 'https://api.deepseek.com/v1', api_key: k%s}\n"
    "- {model_id: b, api_base: 'https://api.openai.com/v1', model_name: gpt-4o, api_key: k%s}\n"
    "- {model_id: c, api_base: 'http://localhost:1/v1'%s}\n"
    "- {model_id: d, api_base: 'https://api.moonshot.ai/v1', api_key: k%s}\n"
    "- {model_id: e, api_base: 'https://api.deepseek.com/anthropic', direct: true}\n"
)


def test_an_upstream_that_is_not_known_to_search() -> None:
    assert warnings(SEARCHING % ((", web_search: {engine: upstream}",) * 4)) == [
        "models[0].web_search.engine: DeepSeek is not known to search the web, so searches find nothing; set another "
        "engine, such as web_search: {engine: searxng, url: ADDRESS}",
        "models[1].web_search.engine: OpenAI is known to search the web over openai-responses only, not over "
        "openai-chat; set another engine, such as web_search: {engine: searxng, url: ADDRESS}",
        "models[2].web_search.engine: this upstream is not known to search the web, so searches find nothing; set "
        "another engine, such as web_search: {engine: searxng, url: ADDRESS}",
    ]
    own = ", web_search: {engine: searxng, url: 'http://localhost:2'}"
    routes = load_text(SEARCHING % ("", own, "", ""), Path("models.yaml"), {}).table.routes
    (found,) = search_warnings(routes, Settings(web_search={"engine": "upstream"}))
    assert "the upstreams of a, c are not known to search the web" in found
    assert search_warnings(routes, Settings(web_search={"engine": "searxng"})) == []
