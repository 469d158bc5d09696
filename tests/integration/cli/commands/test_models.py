"""``claude-proxy models``: list, add and remove; the rest of the file is unchanged."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from proxyd.cli.commands.models import models_command
from proxyd.errors import ConfigError
from tests.support.command_line import environment

TEXT = """\
# My models.

# The first.
- model_id: "a"   # quoted
  api_base: builtin:demo

# The second, with this comment.
- {model_id: b, api_base: 'builtin:demo'}
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "models.yaml"
    file.write_text(TEXT)
    file.chmod(0o600)
    return file


def models(path: Path, *arguments: str) -> str:
    result = CliRunner().invoke(models_command, [*arguments, "--models", str(path)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_add_keeps_the_rest_of_the_file(path: Path) -> None:
    models(
        path, "add", "c", "--api-base", "https://openrouter.ai/api/v1", "--model-name", "x/y", "--api-key", "${C_KEY}",
        "--set", "context=256k", "--set", "pricing={input: 0.5, output: 1}", "--set", "aliases=[d, 'e-*']",
    )  # fmt: skip
    text = path.read_text()
    assert text.startswith(TEXT)
    assert (path.stat().st_mode & 0o777) == 0o600
    listed = json.loads(models(path, "list", "--json"))
    assert [each["model_id"] for each in listed] == ["a", "b", "c"]
    assert listed[2] == {
        "model_id": "c", "mode": "translated", "model_name": "x/y", "upstream": "openrouter.ai",
        "address": "https://openrouter.ai/api/v1",
        "key": "missing: ${C_KEY}", "aliases": ["d", "e-*"],
    }  # fmt: skip


def test_remove_deletes_the_entry_and_its_comment(path: Path) -> None:
    models(path, "add", "c", "--api-base", "https://api.z.ai/api/anthropic", "--direct")
    models(path, "remove", "b")
    text = path.read_text()
    assert "The second" not in text
    assert text.startswith(TEXT[: TEXT.index("# The second")])
    assert [each["mode"] for each in json.loads(models(path, "list", "--json"))] == ["translated", "direct"]
    assert "c      direct" in models(path, "list")
    assert "  api.z.ai/api/anthropic  " in models(path, "list")


def test_add_creates_the_file(tmp_path: Path) -> None:
    path = tmp_path / "new" / "models.yaml"
    models(path, "add", "a", "--api-base", "builtin:demo")
    assert json.loads(models(path, "list", "--json"))[0]["model_id"] == "a"
    assert (path.stat().st_mode & 0o777) == 0o600


def test_add_warns_of_probable_mistakes(path: Path) -> None:
    arguments = [
        "add",
        "c",
        "--api-base",
        "https://api.openai.com",
        "--api-key",
        "${C_KEY}",
        "--models",
        str(path),
    ]
    result = CliRunner().invoke(models_command, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    assert "warning: models[2].api_base: OpenAI" in result.stderr
    assert "warning: model 'c' has no key: C_KEY is not set" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["add", "a", "--api-base", "builtin:demo"], "is the id of the entry on line 4 too"),
        (["add", "c", "--api-base", "ftp://x"], "expected an http:// or https:// address"),
        (
            ["add", "c", "--api-base", "http://localhost:1/v1", "--set", "contxt=1k"],
            "did you mean 'context'?",
        ),
        (
            ["add", "c", "--api-base", "http://localhost:1/v1", "--set", "fallback=[z]"],
            "no entry has the model_id 'z'",
        ),
        (["remove", "z"], "no entry has the model_id 'z'"),
    ],
)
def test_invalid_result_is_not_saved(path: Path, arguments: list[str], message: str) -> None:
    result = CliRunner().invoke(models_command, [*arguments, "--models", str(path)])
    assert isinstance(result.exception, ConfigError)
    assert message in result.exception.message
    assert path.read_text() == TEXT


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("context", "expected KEY=VALUE; got 'context'"),
        ("=3", "expected KEY=VALUE"),
        ("api_base=x", "api_base is given already"),
        ("aliases=[a", "--set aliases:1:"),
    ],
)
def test_invalid_assignment_is_a_usage_error(path: Path, assignment: str, message: str) -> None:
    arguments = ["add", "c", "--api-base", "builtin:demo", "--set", assignment, "--models", str(path)]
    result = CliRunner().invoke(models_command, arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert path.read_text() == TEXT


def test_exit_codes_of_the_process(path: Path) -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "proxyd", "models", *arguments]
        return subprocess.run(
            command, env=environment(path.parent), capture_output=True, text=True, timeout=30
        )

    missing = run("remove", "z", "--models", str(path))
    assert (missing.returncode, missing.stdout) == (78, "")
    assert "no entry has the model_id 'z'" in missing.stderr
    assert run("add", "c").returncode == 64
