"""The root command, ``env`` and ``code``."""

from __future__ import annotations

import json
import resource
import subprocess
import sys

import click
import pytest

from proxyd.cli.main import COMMANDS, cli
from tests.support.command_line import Home

DEMO = "- {model_id: demo, api_base: 'builtin:demo'}\n"
MODELS = """
- {model_id: demo, api_base: 'builtin:demo'}
- {model_id: near, api_base: 'http://localhost:1/v1', context: 32k, max_tokens: 8k}
- {model_id: keyed, api_base: 'https://example.com/v1', api_key: '${KEY_OF_EXAMPLE}'}
- {model_id: direct, api_base: 'https://example.com', direct: true, aliases: ['claude-*']}
"""


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_has_help_with_an_example(name: str) -> None:
    context = click.Context(cli)
    command = cli.get_command(context, name)
    assert command is not None
    text = command.get_help(click.Context(command, info_name=name, parent=context))
    assert "Example" in text
    assert command.get_short_help_str(200).rstrip(".") in COMMANDS[name][2] or command.help


@pytest.mark.parametrize("arguments", [("--help",), ("status",), ("statusline",)])
def test_fast_commands_import_little(home: Home, arguments: tuple[str, ...]) -> None:
    """Imports take most of the time; counting them does not depend on the machine's load."""
    heavy = {"aiohttp", "structlog", "ruamel", "rich", "asyncio", "ssl", "http.client"}
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "proxyd", *arguments],
        env=home.environ,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )
    names = [line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if "import time:" in line]
    ours = [name for name in names if name.startswith("proxyd")]
    assert 5 < len(ours) < 20
    assert not heavy & set(names), heavy & set(names)


def cpu_seconds_of(*command: str, environ: dict[str, str]) -> float:
    """Return the least processor time of some runs: less than the time on the clock, and independent of other load."""
    found = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command, env=environ, stdin=subprocess.DEVNULL, capture_output=True, timeout=120)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        found.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(found)


def test_statusline_takes_less_than_100_ms(home: Home) -> None:
    """An interpreter that does nothing takes 20 ms on an idle machine, which is the unit here."""
    unit = cpu_seconds_of(sys.executable, "-c", "pass", environ=home.environ)
    assert cpu_seconds_of(sys.executable, "-m", "proxyd", "statusline", environ=home.environ) < 5 * unit


def test_unexpected_exception_is_one_sentence(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxyd.cli.commands.lifecycle.find_target", lambda *_: 1 / 0)
    result = home.run("status")
    assert result.code == 1
    assert result.err.startswith("a bug in claude-proxy: ZeroDivisionError")
    assert len(result.err.splitlines()) == 1


# -- env


def variables(home: Home, *arguments: str) -> dict[str, str]:
    found: dict[str, str] = json.loads(home.run("env", *arguments, "--shell", "json").out)["env"]
    return found


def test_env_says_what_claude_code_cannot_know(home: Home) -> None:
    home.write_models(MODELS)
    found = variables(home, "near")
    assert found["ANTHROPIC_BASE_URL"] == f"http://localhost:{home.port}"
    assert {found[f"ANTHROPIC_DEFAULT_{kind}_MODEL"] for kind in ("OPUS", "SONNET", "HAIKU")} == {"near"}
    assert found["CLAUDE_CODE_ATTRIBUTION_HEADER"] == "0"
    assert found["ANTHROPIC_AUTH_TOKEN"] == "any"
    assert variables(home)["ANTHROPIC_MODEL"] == "demo"


def test_env_leaves_the_users_key_to_the_user(home: Home) -> None:
    home.write_models(MODELS)
    found = variables(home, "claude-something")
    assert found["ANTHROPIC_MODEL"] == "claude-something"
    assert "ANTHROPIC_AUTH_TOKEN" not in found
    assert "CLAUDE_CODE_ATTRIBUTION_HEADER" not in found
    assert "must be your key for https://example.com" in home.run("env", "direct", "--shell", "sh").out


def test_env_gives_the_token_of_a_daemon_that_wants_one(home: Home) -> None:
    home.write_models(f"settings: {{auth_token: 'it''s a long secret'}}\nmodels:\n{DEMO}")
    assert variables(home, "demo")["ANTHROPIC_AUTH_TOKEN"] == "it's a long secret"
    script = home.run("env", "demo", "--shell", "sh").out + 'printf %s "$ANTHROPIC_AUTH_TOKEN"'
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, timeout=120)
    assert done.stdout == "it's a long secret"


def test_a_broken_hook_does_not_spoil_what_a_shell_evaluates(home: Home) -> None:
    home.write_models(DEMO)
    hooks = home.config / "hooks"
    hooks.mkdir(mode=0o755)
    (hooks / "bad.py").write_text("def request_hook(:\n")
    (hooks / "bad.py").chmod(0o644)
    result = home.run("env", "demo", "--shell", "sh")
    assert all(line.startswith("export ") for line in result.out.splitlines())


def test_env_of_a_model_that_is_not_there(home: Home) -> None:
    home.write_models(DEMO)
    result = home.run("env", "dmo")
    assert result.code == 64
    assert "there are: demo" in result.err


# -- code


def test_code_starts_the_daemon_and_runs_claude_with_its_arguments_and_exit_code(home: Home) -> None:
    home.write_models(DEMO)
    home.program("claude", '#!/bin/sh\nenv | grep -E "^(ANTHROPIC|CLAUDE)_"; echo "args: $*"; exit 5\n')
    result = home.process("code", "demo", "-p", "say hi")
    assert result.code == 5, result.err
    assert f"ANTHROPIC_BASE_URL=http://localhost:{home.port}" in result.out
    assert "ANTHROPIC_MODEL=demo" in result.out
    assert " -p say hi" in result.out
    assert "was started" in result.err
    assert home.process("code", "demo").err == ""


def test_code_without_claude(home: Home) -> None:
    home.write_models(DEMO)
    result = home.run("code", "demo")
    assert result.code == 127
    assert "npm install" in result.err
