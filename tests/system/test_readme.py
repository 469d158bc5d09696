"""The README's first conversation, command by command, in an empty HOME."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.command_line import Home
from tests.support.documents import commands_in
from tests.support.model_servers import OLLAMA, serving_in_thread
from tests.support.paths import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
#: Stands in for Claude Code: it says what it was given.
CLAUDE = """#!/bin/sh
echo "$ANTHROPIC_BASE_URL $ANTHROPIC_MODEL $*"
"""


def section(title: str) -> list[str]:
    """The shell blocks of a section."""
    text = README.partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    assert text, f"the README has no section {title!r}"
    return re.findall(r"```sh\n(.*?)```", text, re.DOTALL)


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_first_conversation(home: Home) -> None:
    run, code, add, curl = section("First conversation")
    assert [list(each) for each in commands_in(run)] == [["make", "run"], ["make", "test"]]
    recipe = (ROOT / "Makefile").read_text().partition("\nrun: $(VENV)")[2].partition("\n\n")[0]
    assert "claude-proxy" in recipe, "make run starts the daemon with the user's models.yaml"
    assert home.run("start").code == 0

    home.program("claude", CLAUDE)
    ((program, *arguments),) = commands_in(code)
    assert Path(program).name == "claude-proxy"
    said = home.process(*arguments)
    assert said.code == 0, said.err
    assert said.out.startswith(f"http://localhost:{home.port} demo ")

    asked = subprocess.run(
        ["sh", "-c", curl.replace(":8082", f":{home.port}")],
        env=home.environ,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert "event: message_start" in asked.stdout
    assert asked.stdout.rstrip().endswith('data: {"type":"message_stop"}')

    (_, verb), (_, code_word, _) = commands_in(add)
    assert (verb, code_word) == ("add", "code")
    with serving_in_thread(OLLAMA) as server:
        added = home.run("add", server.base)
        assert added.code == 0, added.err
        line = next(line for line in added.out.splitlines() if line.startswith("Start Claude Code on it:"))
        ((_, *arguments),) = commands_in(line.partition(":  ")[2])
        said = home.process(*arguments)
    assert said.code == 0, said.err
    assert " qwen3-coder:30b" in said.out


def test_everyday_commands(home: Home) -> None:
    (block,) = section("Every day")
    words = list(commands_in(block))
    assert words[0] == ["./install.sh"]
    assert subprocess.run(["sh", str(ROOT / "install.sh"), "--help"], capture_output=True).returncode == 0
    assert [command[1] for command in words[1:]] == ["code", "service"]
    for name in re.findall(
        r"(start|stop|restart|reload|status|logs)(?= |`)", README.partition("run it in the")[0]
    ):
        assert home.run(name, "--help").code == 0
