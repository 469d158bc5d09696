"""``claude-proxy doctor``: a line for each check, with a remedy and an exit code."""

from __future__ import annotations

import asyncio
import json

import pytest
from aiohttp import web

from proxyd.cli.claude_code import DIVERTING_VARIABLES
from tests.support.command_line import Home
from tests.support.harness import running_upstream
from tests.support.ports import free_port

DEMO = "- {model_id: demo, api_base: 'builtin:demo'}\n"
CLAUDE = "#!/bin/sh\necho 9.9.9\n"


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


def results_of(text: str) -> dict[str, str]:
    """Parse the output: name -> result of its last finding."""
    found = [line.split(" ", 1) for line in text.splitlines() if line[:4].strip() in ("ok", "warn", "fail")]
    return {rest.strip().partition(":")[0]: result for result, rest in found}


def test_no_failure(home: Home) -> None:
    home.write_models(DEMO)
    home.program("claude", CLAUDE)
    assert home.run("start").code == 0
    result = home.run("doctor", "--probe")
    assert result.code == 0, result.out
    found = results_of(result.out)
    assert set(found.values()) == {"ok"}, result.out
    assert {
        "configuration",
        "daemon",
        "version",
        "claude",
        "stream of demo",
        "tool call of demo",
    } <= found.keys()


def test_every_failure_has_a_remedy(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    home.write_models(
        f"- {{model_id: a, api_base: 'http://127.0.0.1:{port}/v1'}}\n"
        "- {model_id: b, api_base: 'https://nowhere.invalid/v1', api_key: '${NO_SUCH_KEY}'}\n"
        "- {model_id: c, api_base: 'https://nowhere.invalid/v1', api_key: '${NO_SUCH_KEY}'}\n"
    )
    (home.config / "env").write_text("")
    (home.config / "env").chmod(0o644)
    hooks = home.config / "hooks"
    hooks.mkdir(mode=0o755)
    (hooks / "bad.py").write_text("def request_hook(:\n")
    (hooks / "bad.py").chmod(0o644)
    settings = home.path / ".claude" / "settings.json"
    settings.parent.mkdir()
    settings.write_text(
        '{"env": {"CLAUDE_CODE_USE_BEDROCK": "1", "ANTHROPIC_BASE_URL": "https://elsewhere.invalid"}}'
    )
    monkeypatch.setenv("ANTHROPIC_API_KEY", "x")
    monkeypatch.setenv("ANTHROPIC_AUTH_TOKEN", "y")
    result = home.run("doctor")
    found = results_of(result.out)
    assert found.get("env file") == "fail", result
    assert found["hooks"] == "fail"
    assert found["key of b, c"] == "warn"
    assert result.out.count("export NO_SUCH_KEY=KEY") == 1
    assert found["daemon"] == "fail"
    assert found["upstream 127.0.0.1"] == "fail"
    assert found["upstream nowhere.invalid"] == "fail"
    assert "start that server, or correct api_base" in result.out
    assert found["claude"] == "warn", "other clients need none"
    assert found["environment"] == "warn"
    assert f"{settings}: CLAUDE_CODE_USE_BEDROCK leads Claude Code past the proxy" in result.out
    assert f"{settings}: ANTHROPIC_BASE_URL is https://elsewhere.invalid" in result.out
    assert result.out.count("→") >= 8
    assert result.code == 77  # of the first that failed
    assert "Traceback" not in result.out + result.err


def test_auto_mode_has_a_line_for_each_that_checks(home: Home) -> None:
    home.write_models(
        "settings: {auto_mode: {classifier: judge}}\nmodels:\n"
        "- {model_id: judge, api_base: 'builtin:demo'}\n"
        "- {model_id: off, api_base: 'builtin:demo', auto_mode: {classifier: off}}\n"
        "- {model_id: kimi, api_base: 'http://localhost:1', direct: true}\n"
        "- {model_id: claude, api_base: 'https://api.anthropic.com', direct: true, api_key: k}\n"
    )
    said = home.run("doctor").out
    lines = [line for line in said.splitlines() if "auto mode of" in line]
    assert "auto mode of judge: checked by judge" in lines[0]
    assert "auto mode of claude: checked by Anthropic" in lines[1]
    assert "auto mode of off, kimi: not set up; the other permission modes work" in lines[2]
    assert "→ for auto mode, set auto_mode: {classifier: MODEL_ID} in the entry" in said
    assert len(lines) == 3


def test_invalid_claude_settings(home: Home) -> None:
    home.write_models(DEMO)
    folder = home.path / ".claude"
    folder.mkdir()
    (folder / "settings.json").write_text("{")
    assert f"warn {folder / 'settings.json'}: cannot be read" in home.run("doctor").out


@pytest.mark.parametrize("name", ["HTTP_PROXY", "https_proxy", "ALL_PROXY"])
def test_proxy_variable_is_a_failure_unless_localhost_is_excluded(
    home: Home, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    home.write_models(DEMO)
    home.program("claude", CLAUDE)
    assert home.run("start").code == 0
    monkeypatch.setenv(name, "http://127.0.0.1:1")
    result = home.run("doctor")
    assert result.code == 78
    assert (
        f"environment: {name.upper()} is set: Claude Code sends its calls for http://localhost" in result.out
    )
    assert "set NO_PROXY=localhost,127.0.0.1,::1" in result.out
    monkeypatch.setenv("no_proxy", "example.com, localhost")
    assert home.run("doctor").code == 0


@pytest.mark.parametrize(
    ("variables", "text"),
    [
        (
            {"ANTHROPIC_BASE_URL": "http://localhost:{port}/v1"},
            "fail environment: ANTHROPIC_BASE_URL ends in /v1",
        ),
        (
            {"CLAUDE_CODE_ENABLE_TELEMETRY": "1"},
            "warn environment: CLAUDE_CODE_ENABLE_TELEMETRY makes Claude Code report what it does",
        ),
        *(
            ({name: "1"}, f"fail environment: {name} leads Claude Code past the proxy\n     → unset {name}\n")
            for name in DIVERTING_VARIABLES
        ),
    ],
)
def test_variables_that_lead_elsewhere(
    home: Home, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], text: str
) -> None:
    home.write_models(DEMO)
    for name, value in variables.items():
        monkeypatch.setenv(name, value.format(port=home.port))
    assert text in home.run("doctor").out


@pytest.mark.parametrize(
    ("model", "is_reported"),
    [("claude-proxy/kimi", True), ("kimi", True), ("sonnet", False), ("claude-opus-5-5", False)],
)
def test_saved_model_that_only_the_proxy_has(home: Home, model: str, is_reported: bool) -> None:
    home.write_models(
        "settings: {discovery_prefix: claude-proxy/}\nmodels:\n"
        "- {model_id: kimi, api_base: 'builtin:demo', aliases: ['claude-*']}\n"
    )
    settings = home.path / ".claude" / "settings.json"
    settings.parent.mkdir()
    settings.write_text(json.dumps({"model": model}))
    shown = f"{settings}: its model is '{model}', which only the proxy has" in home.run("doctor").out
    assert shown is is_reported


def test_daemon_with_another_models_yaml(home: Home) -> None:
    home.write_models(DEMO)
    assert home.run("start").code == 0
    other = home.path / "other.yaml"
    other.write_text(DEMO)
    result = home.run("doctor", "--models", str(other))
    used = home.config / "models.yaml"
    assert f"the daemon uses {used}, and this command has checked {other}" in result.out
    assert f"claude-proxy restart --models {other}" in result.out
    assert "configuration in use" not in home.run("doctor").out
    assert "Nothing failed; see the" in result.out


async def test_neighbours_of_a_wrong_address(home: Home) -> None:
    async def respond(request: web.Request) -> web.Response:
        if request.path in ("/openai/v1/chat/completions", "/anthropic/v1/messages"):
            return web.json_response({"error": {"message": "no key"}}, status=401)
        if request.path == "/models/v1/chat/completions":
            return web.json_response({"error": {"message": "the model `` does not exist"}}, status=404)
        if request.path.startswith("/page/"):
            return web.Response(text="<!DOCTYPE html><html></html>", content_type="text/html")
        return web.json_response({"detail": "Not Found"}, status=404)

    async with running_upstream(respond) as upstream:
        home.write_models(
            f"- {{model_id: right, api_base: '{upstream.base}/openai/v1'}}\n"
            f"- {{model_id: unknown-model, api_base: '{upstream.base}/models/v1'}}\n"
            f"- {{model_id: no-v1, api_base: '{upstream.base}/openai'}}\n"
            f"- {{model_id: not-direct, api_base: '{upstream.base}/openai/v1', direct: true}}\n"
            f"- {{model_id: is-direct, api_base: '{upstream.base}/anthropic', api_key: sk-of-the-entry}}\n"
            f"- {{model_id: page, api_base: '{upstream.base}/page/v1'}}\n"
        )
        result = await asyncio.to_thread(home.process, "doctor")
        base = upstream.base
        assert "address of right" not in result.out
        assert "address of unknown-model" not in result.out
        assert (
            f"address of no-v1: POST {base}/openai/chat/completions is not there (404); "
            f"{base}/openai/v1/chat/completions responds\n     → write api_base: {base}/openai/v1, no 'direct'"
        ) in result.out
        assert f"address of not-direct: POST {base}/openai/v1/messages is not there (404)" in result.out
        assert f"→ write api_base: {base}/anthropic, direct: true" in result.out
        assert f"address of page: POST {base}/page/v1/chat/completions is an HTML page (200)" in result.out
        assert "sk-of-the-entry" not in str(upstream.headers) + result.out
