"""Variables, settings and arguments that `env` and `code` give Claude Code."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from proxyd.cli.claude_code import DEFAULT_MODE_NOTICE, DIVERTING_VARIABLES, TELEMETRY_VARIABLES
from tests.support.command_line import Home

MODELS = """
- {model_id: demo, api_base: 'builtin:demo'}
- {model_id: w32, api_base: 'http://localhost:1/v1', context: 32k}
- {model_id: w64-short, api_base: 'http://localhost:1/v1', context: 64k, max_tokens: 2k}
- {model_id: w128, model_name: real-name, api_base: 'http://localhost:1/v1', context: 128k, max_tokens: 8k}
- {model_id: w1m, api_base: 'http://localhost:1/v1', context: 1m}
- {model_id: none, api_base: 'http://localhost:1/v1'}
- {model_id: claude-small, api_base: 'http://localhost:1/v1', context: 64k}
- {model_id: claude-128, api_base: 'http://localhost:1/v1', context: 128k}
- {model_id: claude-500, api_base: 'http://localhost:1/v1', context: 500k}
- {model_id: claude-1m, api_base: 'http://localhost:1/v1', context: 1m}
- {model_id: claude-none, api_base: 'http://localhost:1/v1'}
- {model_id: keyed, api_base: 'https://example.com/v1'}
- {model_id: own-key, api_base: 'https://example.com/v1', api_key: a-key-of-the-entry}
- {model_id: anthropic, api_base: 'https://api.anthropic.com', direct: true}
"""
#: A Claude Code that prints what it was given, as JSON.
CLAUDE = """#!/usr/bin/python3
import json, os, sys
print(json.dumps({"arguments": sys.argv[1:], "environ": dict(os.environ)}))
"""
WINDOW_VARIABLES = (
    "CLAUDE_CODE_MAX_CONTEXT_TOKENS",
    "CLAUDE_CODE_MAX_OUTPUT_TOKENS",
    "CLAUDE_CODE_AUTO_COMPACT_WINDOW",
    "CLAUDE_CODE_DISABLE_1M_CONTEXT",
)


def variables(home: Home, *arguments: str) -> dict[str, str]:
    found: dict[str, str] = json.loads(home.run("env", *arguments, "--shell", "json").out)["env"]
    return found


def settings_of(arguments: list[str]) -> dict[str, Any]:
    assert arguments[0] == "--settings"
    found: dict[str, Any] = json.loads(arguments[1])
    return found


@pytest.fixture
def started(home: Home, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run `code` up to the start of Claude Code; return its arguments and environment."""
    home.write_models(MODELS)
    home.program("claude", CLAUDE)
    monkeypatch.setattr("proxyd.cli.commands.code._ensure_served", lambda *_: None)
    seen: dict[str, Any] = {}

    def execve(program: str, arguments: tuple[str, ...], environ: dict[str, str]) -> None:
        seen.update(arguments=list(arguments[1:]), environ=environ)

    monkeypatch.setattr("os.execve", execve)

    def run(*arguments: str) -> tuple[list[str], dict[str, str], str]:
        seen.clear()
        result = home.run("code", *arguments)
        assert result.code == 0, result.err
        return seen["arguments"], seen["environ"], result.err

    return run


# -- windows


@pytest.mark.parametrize(
    ("model", "context", "output", "compact", "no_1m"),
    [
        ("demo", "200000", None, None, "1"),
        # Claude Code compacts at its window less min(output, 20 000) + 13 000: at 26 000 and 58 000 here.
        ("w32", "43000", "4000", None, "1"),
        ("w64-short", "73000", "2000", None, "1"),
        ("w128", "128000", "8000", None, "1"),
        ("w1m", "1000000", None, None, None),
        ("none", None, None, None, "1"),
        ("claude-small", None, "8000", "100000", "1"),
        ("claude-128", None, None, "128000", "1"),
        ("claude-500", None, None, "500000", None),
        ("claude-1m", None, None, None, None),
        ("claude-none", None, None, None, None),
    ],
)
def test_window_variables(
    home: Home, model: str, context: str | None, output: str | None, compact: str | None, no_1m: str | None
) -> None:
    home.write_models(MODELS)
    found = variables(home, model)
    assert [found.get(name) for name in WINDOW_VARIABLES] == [context, output, compact, no_1m]


def test_each_alias_is_the_model_with_a_name_and_a_description(home: Home) -> None:
    home.write_models(MODELS)
    found = variables(home, "w128")
    for alias in ("OPUS", "SONNET", "HAIKU", "FABLE"):
        name = f"ANTHROPIC_DEFAULT_{alias}_MODEL"
        assert (found[name], found[f"{name}_NAME"]) == ("w128", "w128")
        assert found[f"{name}_DESCRIPTION"] == "real-name via localhost:1 · 128k"
    assert found["CLAUDE_CODE_SUBAGENT_MODEL"] == "w128"
    assert found["CLAUDE_CODE_GATEWAY_HINT_HEADERS"] == "1"


# -- what leads past the proxy


@pytest.mark.parametrize(
    ("before", "expected"),
    [
        ({}, {"NO_PROXY": "localhost,127.0.0.1,::1"}),
        ({"NO_PROXY": "example.com, localhost"}, {"NO_PROXY": "example.com,localhost,127.0.0.1,::1"}),
        (
            {"no_proxy": ".corp"},
            {"NO_PROXY": ".corp,localhost,127.0.0.1,::1", "no_proxy": ".corp,localhost,127.0.0.1,::1"},
        ),
    ],
)
def test_calls_to_loopback_use_no_proxy(
    home: Home, monkeypatch: pytest.MonkeyPatch, before: dict[str, str], expected: dict[str, str]
) -> None:
    home.write_models(MODELS)
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    for name, value in before.items():
        monkeypatch.setenv(name, value)
    found = variables(home, "demo")
    assert {name: found[name] for name in ("NO_PROXY", "no_proxy") if name in found} == expected


@pytest.mark.parametrize("name", [*DIVERTING_VARIABLES, *TELEMETRY_VARIABLES])
def test_variable_that_leads_elsewhere_is_unset(
    home: Home, started: Any, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "1")
    _, environ, err = started("demo")
    assert name not in environ
    assert f"{name} is not passed on to Claude Code" in err
    script = home.run("env", "demo", "--shell", "sh").out
    done = subprocess.run(
        ["sh", "-c", f'{script} printf %s "${{{name}-unset}}"'],
        env={name: "1", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stdout == "unset"
    assert f"set -e {name}" in home.run("env", "demo", "--shell", "fish").out
    assert f"Remove-Item Env:{name}" in home.run("env", "demo", "--shell", "powershell").out
    assert f"unset {name}" in home.run("env", "demo", "--shell", "json").err


def test_calls_beside_those_of_the_model_are_switched_off(
    home: Home, started: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = (
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC",
        "CLAUDE_CODE_DISABLE_OFFICIAL_MARKETPLACE_AUTOINSTALL",
    )

    def switches(model: str) -> list[str | None]:
        return [variables(home, model).get(name) for name in names]

    assert switches("w128") == ["1", "1"]
    assert switches("anthropic") == [None, None]
    assert settings_of(started("w128")[0])["skipWebFetchPreflight"] is True
    assert "skipWebFetchPreflight" not in settings_of(started("anthropic")[0])
    monkeypatch.setenv(names[0], "")
    assert switches("w128") == [None, None], "the user's way to keep them"


@pytest.mark.parametrize("value", ["0", "false", ""])
def test_variable_that_is_off_is_left_alone(
    started: Any, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("CLAUDE_CODE_USE_BEDROCK", value)
    assert started("demo")[2] == ""


# -- keys


def test_missing_key_is_reported_before_anything_is_started(home: Home) -> None:
    home.write_models(MODELS)
    home.program("claude", CLAUDE)
    result = home.run("code", "keyed")
    assert result.code == 64
    assert result.err == "ANTHROPIC_AUTH_TOKEN must be your key for https://example.com/v1; it is not set\n"
    assert result.out == ""
    assert home.run("status").code != 0, "no daemon was started"


@pytest.mark.parametrize("model", ["demo", "w32", "own-key", "anthropic"])
def test_model_that_needs_no_key_of_the_client_starts(started: Any, model: str) -> None:
    started(model)


@pytest.mark.parametrize(
    "settings",
    [
        {"env": {"ANTHROPIC_AUTH_TOKEN": "k"}},
        {"env": {"ANTHROPIC_API_KEY": "k"}},
        {"apiKeyHelper": "/bin/echo k"},
    ],
)
def test_key_in_the_settings_is_enough(home: Home, started: Any, settings: dict[str, Any]) -> None:
    (home.path / ".claude").mkdir()
    (home.path / ".claude" / "settings.json").write_text(json.dumps(settings))
    started("keyed")


def test_key_in_the_environment_is_enough(started: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "k")
    assert started("keyed")[1]["ANTHROPIC_API_KEY"] == "k"


# -- arguments


@pytest.mark.parametrize(
    "arguments",
    [
        ("-p", "say hi"),
        ("--", "-p", "say hi"),
        ("-c",),
        ("--resume", "id", "--bare"),
        ("-p", "--verbose", "x"),
    ],
)
def test_other_options_are_claude_codes(started: Any, arguments: tuple[str, ...]) -> None:
    found, _, err = started("demo", *arguments)
    assert found[2:] == [each for each in arguments if each != "--"]
    assert err == ""


def test_options_of_the_daemon_are_ours(home: Home, started: Any) -> None:
    found, environ, _ = started("demo", "--port", "4321", "-p", "hi")
    assert found[2:] == ["-p", "hi"]
    assert environ["ANTHROPIC_BASE_URL"] == "http://localhost:4321"


def test_picker_has_the_entries_of_models_yaml(started: Any) -> None:
    settings = settings_of(started("w128")[0])
    picker = settings["modelPicker"]
    assert picker["replaceBuiltInOptions"] is True
    models = [option["model"] for option in picker["options"]]
    assert models[:3] == ["w128", "demo", "w32"]
    assert len(models) == len(set(models)) == 14
    options = {option["model"]: option["description"] for option in picker["options"]}
    assert options["w128"] == "real-name via localhost:1 · 128k"
    assert options["w1m"] == "w1m via localhost:1 · 1m"
    assert options["none"] == "none via localhost:1"
    assert options["demo"] == "built-in demo · 200k"
    windows = {name: each["autoCompactWindow"] for name, each in settings["modelSettings"].items()}
    assert windows == {"w128": 128_000, "claude-128": 128_000, "claude-500": 500_000}


def test_default_permission_mode_is_chosen_and_announced(started: Any) -> None:
    settings = settings_of(started("w128")[0])
    assert settings["permissions"] == {"defaultMode": "default"}
    assert settings["companyAnnouncements"] == [DEFAULT_MODE_NOTICE]
    assert "--permission-mode auto" in DEFAULT_MODE_NOTICE


@pytest.mark.parametrize("arguments", [("w1m",), ("anthropic",), ("w32", "--client-classifier", "demo")])
def test_mode_is_left_alone_where_auto_mode_is_checked(
    home: Home, started: Any, arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    judged = (
        "- {model_id: w1m, api_base: 'http://localhost:1/v1', context: 1m, auto_mode: {classifier: demo}}"
    )
    home.write_models(
        MODELS.replace("- {model_id: w1m, api_base: 'http://localhost:1/v1', context: 1m}", judged)
    )
    monkeypatch.setenv("ANTHROPIC_AUTH_TOKEN", "key")
    found, environ, err = started(*arguments)
    assert "permissions" not in settings_of(found)
    assert err == ""
    own = {name: value for name, value in environ.items() if name.startswith("CLAUDE_CODE_AUTO_MODE_")}
    if "--client-classifier" in arguments:
        assert own == {"CLAUDE_CODE_AUTO_MODE_SERVER": "0", "CLAUDE_CODE_AUTO_MODE_MODEL": "demo"}
    else:
        assert own == {}


def test_client_classifier_must_be_served(home: Home) -> None:
    home.write_models(MODELS)
    result = home.run("env", "demo", "--client-classifier", "nobody")
    assert result.code == 64
    assert "there is no model 'nobody'" in result.err
    assert variables(home, "demo", "--client-classifier", "w32")["CLAUDE_CODE_AUTO_MODE_MODEL"] == "w32"
    assert "CLAUDE_CODE_AUTO_MODE_MODEL" not in variables(home, "demo")


@pytest.mark.parametrize(
    "arguments",
    [("--permission-mode", "auto"), ("--permission-mode=plan",), ("--dangerously-skip-permissions",)],
)
def test_mode_of_the_arguments_is_kept(started: Any, arguments: tuple[str, ...]) -> None:
    found, _, err = started("w128", *arguments)
    assert found[2:] == list(arguments)
    settings = settings_of(found)
    assert "permissions" not in settings
    assert "companyAnnouncements" not in settings
    assert err == ""


@pytest.mark.parametrize("path", [".claude/settings.json", ".claude/settings.local.json"])
def test_settings_of_the_user_are_kept(home: Home, started: Any, path: str) -> None:
    own = {
        "permissions": {"defaultMode": "plan"},
        "modelPicker": {"options": []},
        "skipWebFetchPreflight": False,
    }
    (home.path / ".claude").mkdir()
    (home.path / path).write_text(json.dumps(own))
    settings = settings_of(started("w128")[0])
    assert set(settings) == {"modelSettings"}


@pytest.mark.parametrize("text", ["not JSON", "[]", '{"permissions": []}', '{"env": 5}'])
def test_odd_settings_file_is_left_to_claude_code(home: Home, started: Any, text: str) -> None:
    (home.path / ".claude").mkdir()
    (home.path / ".claude" / "settings.json").write_text(text)
    assert "permissions" in settings_of(started("w128")[0])


def test_settings_of_the_user_are_not_replaced(started: Any, tmp_path: Path) -> None:
    plain, with_mode = tmp_path / "plain.json", tmp_path / "mode.json"
    plain.write_text("{}")
    with_mode.write_text('{"permissions":{"defaultMode":"plan"}}')
    for own in ("{}", str(plain)):
        found, _, err = started("w128", "--settings", own)
        assert found == ["--permission-mode", "default", "--settings", own]
        assert err == f"{DEFAULT_MODE_NOTICE}\n"
        assert started("w128", f"--settings={own}", "-p", "x")[2] == ""
    for own in ('{"permissions":{"defaultMode":"auto"}}', str(with_mode)):
        found, _, err = started("w128", "--settings", own)
        assert found == ["--settings", own]
        assert err == ""


def test_anthropics_own_api_keeps_auto_mode(started: Any) -> None:
    assert "permissions" not in settings_of(started("anthropic")[0])
