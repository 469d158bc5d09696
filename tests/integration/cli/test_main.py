"""The root command: mistyped commands, misplaced options, and options of ``run``."""

from __future__ import annotations

import json
import signal
import subprocess
import sys

import click
import pytest

from proxyd.cli.options import LOG_FORMATS, LOG_LEVELS
from proxyd.config.kinds import Kind
from proxyd.config.settings import TABLE
from tests.support.command_line import Home

DEMO = "- {model_id: demo, api_base: 'builtin:demo'}\n"


@pytest.mark.parametrize(
    ("arguments", "remedy"),
    [
        (["strat"], "there is no command 'strat'; write 'claude-proxy start' or 'claude-proxy stats'"),
        (["log"], "write 'claude-proxy logs'"),
        (["install"], "write 'claude-proxy service install'"),
        (["models", "lst"], "there is no command 'lst'; write 'claude-proxy models list'"),
        (["service", "statsu"], "write 'claude-proxy service status'"),
        (["frobnicate"], "write 'claude-proxy --help' for a list"),
        (["--port", "1", "status"], "write 'claude-proxy status --port 1'"),
        (["-d", "start"], "write 'claude-proxy -d', or 'LOG_LEVEL=debug claude-proxy start'"),
        (["--log-level", "debug", "stop"], "write 'claude-proxy run --log-level debug'"),
        (["--insecure", "start"], "write 'claude-proxy run --insecure'"),
    ],
)
def test_usage_errors_say_what_to_write(home: Home, arguments: list[str], remedy: str) -> None:
    result = home.run(*arguments)
    assert result.code == 64
    assert remedy in result.err


def accepts(kind: Kind, value: str) -> bool:
    faults: list[str] = []
    kind.read(value, lambda path, text, on_key: faults.append(text))
    return not faults


def test_choices_are_those_of_the_settings() -> None:
    assert all(accepts(TABLE["log_level"].kind, level) for level in LOG_LEVELS)
    assert all(accepts(TABLE["log_format"].kind, form) for form in LOG_FORMATS)


def test_every_documented_flag_is_an_option_of_run(home: Home) -> None:
    from proxyd.cli.main import cli

    command = cli.get_command(click.Context(cli), "run")
    assert command is not None
    options = {name for parameter in command.params for name in parameter.opts}
    assert {row.flag for row in TABLE.values() if row.flag is not None} <= options


def test_flags_override_models_yaml(home: Home) -> None:
    home.write_models(f"settings: {{max_retries: 5, log_level: error}}\nmodels:\n{DEMO}")
    arguments = ("--log-level", "info", "--log-format", "json", "--max-retries", "0")
    process = subprocess.Popen(
        [sys.executable, "-m", "proxyd", *arguments],
        env=home.environ,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        line = next(line for line in process.stderr if "server.started" in line)
        assert json.loads(line)["level"] == "info"
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=120)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 0
