"""``claude-proxy completion``: scripts of the shells, and what they complete."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.command_line import Home

MODELS = (
    "- {model_id: demo, api_base: 'builtin:demo'}\n- {model_id: keyed, api_base: 'https://example.com/v1'}\n"
)
_SHELLS = ("bash", "zsh", "fish")


@pytest.mark.parametrize("shell", _SHELLS)
def test_scripts_have_valid_syntax(home: Home, shell: str, tmp_path: Path) -> None:
    result = home.run("completion", shell)
    assert result.code == 0
    assert "_CLAUDE_PROXY_COMPLETE" in result.out
    from shutil import which

    if which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    script = tmp_path / "script"
    script.write_text(result.out)
    done = subprocess.run([shell, "-n", str(script)], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("claude-proxy st", "start"),
        ("claude-proxy service in", "install"),
        ("claude-proxy start --po", "--port"),
        ("claude-proxy code ke", "keyed"),
    ],
)
def test_completions(home: Home, words: str, expected: str) -> None:
    home.write_models(MODELS)
    environ = {
        **home.environ,
        "_CLAUDE_PROXY_COMPLETE": "bash_complete",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split()) - 1),
    }
    done = subprocess.run(
        [sys.executable, "-m", "proxyd"], env=environ, capture_output=True, text=True, timeout=10
    )
    assert f"plain,{expected}" in done.stdout.splitlines()
