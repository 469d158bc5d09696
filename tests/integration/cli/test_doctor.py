"""``claude-proxy doctor``: a line for each check, with a remedy and an exit code."""

from __future__ import annotations

import socket

import pytest

from tests.support.command_line import Home

DEMO = "- {model_id: demo, api_base: 'builtin:demo'}\n"
CLAUDE = "#!/bin/sh\necho 9.9.9\n"


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
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    home.write_models(
        f"- {{model_id: a, api_base: 'http://127.0.0.1:{port}/v1'}}\n"
        "- {model_id: b, api_base: 'https://nowhere.invalid/v1', api_key: '${NO_SUCH_KEY}'}\n"
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
    assert found["key of b"] == "warn"
    assert found["daemon"] == "fail"
    assert found["upstream 127.0.0.1"] == "fail"
    assert found["upstream nowhere.invalid"] == "fail"
    assert found["claude"] == "fail"
    assert found["environment"] == "warn"
    assert f"{settings}: CLAUDE_CODE_USE_BEDROCK leads Claude Code past the proxy" in result.out
    assert f"{settings}: ANTHROPIC_BASE_URL is https://elsewhere.invalid" in result.out
    assert result.out.count("→") >= 8
    assert result.code == 77  # of the first that failed
    assert "Traceback" not in result.out + result.err


def test_invalid_claude_settings(home: Home) -> None:
    home.write_models(DEMO)
    folder = home.path / ".claude"
    folder.mkdir()
    (folder / "settings.json").write_text("{")
    assert f"warn {folder / 'settings.json'}: cannot be read" in home.run("doctor").out
