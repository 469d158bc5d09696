"""The output of the daemon in the foreground."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Sequence

import pytest

from tests.support.command_line import Home

DEMO = "- {model_id: demo, api_base: 'builtin:demo'}\n"


def output_of(home: Home, arguments: Sequence[str]) -> tuple[str, str]:
    """Run the daemon until SIGTERM; return stdout and stderr."""
    process = subprocess.Popen(
        [sys.executable, "-m", "proxyd", *arguments],
        env=home.environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        seen = ""
        for line in process.stderr:
            seen += line
            if "server.started" in line:
                break
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=20)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 0, seen + err
    return out, seen + err


@pytest.mark.parametrize("arguments", [[], ["run"]])
def test_prints_how_to_connect(home: Home, arguments: list[str]) -> None:
    home.write_models(DEMO)
    out, _ = output_of(home, arguments)
    url = f"http://localhost:{home.port}"
    assert out.splitlines() == [
        f"claude-proxy listens on {url}. To use it, in another terminal:",
        f"  ANTHROPIC_BASE_URL={url} ANTHROPIC_AUTH_TOKEN=any claude --model demo",
        "Ctrl-C stops it; models are configured in models.yaml.",
    ]


@pytest.mark.parametrize(
    ("models", "token", "note"),
    [
        (
            "settings: {auth_token: a-token-of-sixteen}\nmodels: [{model_id: demo, api_base: 'builtin:demo'}]\n",
            "TOKEN",
            "(TOKEN is the auth_token of this daemon; 'claude-proxy env demo' prints it.)",
        ),
        (
            "- {model_id: a, api_base: 'https://api.moonshot.ai/anthropic', direct: true}\n",
            "KEY",
            "(KEY is your key for api.moonshot.ai.)",
        ),
    ],
)
def test_hint_does_not_say_any_where_a_token_is_needed(
    home: Home, models: str, token: str, note: str
) -> None:
    home.write_models(models)
    out, _ = output_of(home, [])
    assert f"ANTHROPIC_AUTH_TOKEN={token} claude" in out
    assert note in out
    assert "a-token-of-sixteen" not in out


def test_supervised_daemon_prints_nothing(home: Home) -> None:
    home.write_models(DEMO)
    out, _ = output_of(home, ["run", "--supervised", "detached"])
    assert out == ""


def test_development_mode_logs_text(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    home.write_models(DEMO)
    process = subprocess.Popen(
        [sys.executable, "-m", "proxyd", "-d"],
        env={**home.environ, "PROXYD_DEV_CHILD": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        line = next(line for line in process.stderr if "server.started" in line)
        process.send_signal(signal.SIGTERM)
        _, rest = process.communicate(timeout=20)
    finally:
        process.kill()
        process.communicate()
    assert not line.startswith("{")
    assert "not a variable of claude-proxy" not in rest
