"""Every command of the documents is run: ours in an empty HOME beside one daemon, make's as dry runs.

What needs the network, a terminal or another program is replaced or left to other tests by the tables below.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import NoReturn

import pytest

from tests.support.command_line import Home, Result
from tests.support.documents import blocks, documents
from tests.support.model_servers import ModelServer, serving_in_thread
from tests.support.paths import ROOT

MODELS = """\
settings: {{record_bodies: true}}
models:
- {{model_id: demo, api_base: 'builtin:demo'}}
- {{model_id: kimi, api_base: '{0}/v1', api_key: none}}
- {{model_id: kimi-k2.6, api_base: '{0}/v1', api_key: none}}
- {{model_id: qwen-local, api_base: '{0}/v1', api_key: none}}
"""
ROUTER = {
    "Providers": [{"name": "p", "api_base_url": "http://127.0.0.1:1/v1/chat/completions", "models": ["m"]}]
}
REQUEST = {"model": "kimi", "max_tokens": 50, "messages": [{"role": "user", "content": "hi"}]}
NAMES = ("qwen/qwen3-coder", "Qwen/Qwen3-Coder-30B", "new")
SERVER = {
    "/v1/models": {"data": [{"id": name} for name in NAMES]},
    "/models": {"data": [{"id": "qwen/qwen3-coder", "context_length": 262_144}]},
}
KEY = "sk-0123456789abcdef"
#: What a document writes -> what is run: our port, a server of this test for a vendor's, a value for its name.
REPLACED = {
    r"\s+#.*": "",
    r"localhost:8082": "localhost:{port}",
    r"~/": "{home}/",
    r"add http://localhost:8000$": "add {server} --model qwen/qwen3-coder",
    r"http://localhost:8000\b": "{server}",
    r" add (kimi|gemini|azure --api-base URL)$": " add --api-base {server}/v1 --key-env K --model new",
    r"add openrouter": "add openrouter --api-base {server}/v1",
    r"models refresh": "models refresh --from {server}/models",
    r"--output config/catalog.yaml": "--output catalog.yaml",
    r"add (NAME|PROVIDER|VENDOR)$": "add {server} --model new",
    r"models add \{server\}": "add {server}",
    r"req_AbCd|REQUEST_ID": "{request_id}",
    r"import config.yaml": "import .claude-code-router/config.json",
    r"import FILE": "import .claude-code-router/config.json",
    r"--(model|resume) ID": r"--\1 kimi",
    r"\b(MODEL|OTHER)\b|(?<=code )large": "kimi",
    r"(route|translate --model kimi)$": r"\1 < request.json",
    r"statusline$": "statusline < /dev/null",
    r"sk-cp-…": "sk-cp-0",
    r"^\.venv/bin/": "",
    r"completion fish \| source": "completion fish",
}  # fmt: skip
#: Programs that are run. Those of others, such as pip and systemctl, would change this machine;
#: tests/unit/test_documents.py lists them.
RUN = {"claude-proxy", "make", "claude", "curl", "mv", "eval"}
#: Commands that are not run here, by their beginning -> who runs them.
ELSEWHERE = {
    "claude-proxy service": "tests/system/service, with a real systemd: make service-check",
    'eval "$(claude-proxy completion zsh)"': "tests/integration/cli/commands/test_completion.py",
    "claude-proxy -d": "tests/system/test_foreground.py",
    "claude-proxy store migrate": "needs PostgreSQL: tests/integration/cli/commands/test_store.py",
    "claude-proxy stats --shared": "needs PostgreSQL: tests/integration/cli/commands/test_store.py",
}
#: It asks on a terminal: tests/integration/cli/commands/test_add.py has one.
ASKS = re.compile(r"claude-proxy add$")
#: A refusal of a command's name alone.
NAME_ALONE = re.compile(r"Missing (argument|option)|give the folder of a record")
#: What needs a shell: other programs, pipes, variables and substitutions.
SHELL = re.compile(r"[|<>]|\$\(|^(?!claude-proxy )")


class Stage:
    """An empty HOME with a daemon, a recorded call that failed, and the files that documents name."""

    def __init__(self, home: Home, server: ModelServer) -> None:
        self._home, self._models = home, MODELS.format(server.base)
        home.program("claude", "#!/bin/sh\necho claude $ANTHROPIC_MODEL $*\n")
        home.program("claude-proxy", f'#!/bin/sh\nexec {sys.executable} -m proxyd "$@"\n')
        for name, content in {".claude-code-router/config.json": ROUTER, "request.json": REQUEST}.items():
            path = home.path / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(json.dumps(content))
        self.reset()
        assert home.run("start").code == 0
        self._values = {"port": home.port, "server": server.base, "home": home.path}
        server.fails = True
        self._values["request_id"] = self._fail()
        server.fails = False

    def reset(self) -> None:
        """Write models.yaml and the hooks as they were, and forget virtual keys."""
        self._home.write_models(self._models).chmod(0o600)
        hooks = self._home.config / "hooks"
        hooks.mkdir(exist_ok=True)
        for path in (ROOT / "hooks").glob("_*.py"):
            (hooks / path.name).write_bytes(path.read_bytes())
        for path in self._home.path.glob(".local/state/claude-proxy/keys.db*"):
            path.unlink()

    def faults(self, place: str, line: str) -> list[str]:
        """Run a line; return what is wrong, with the place."""
        program = next((word for word in line.split() if not re.match(r"[A-Z_]+=", word)), "")
        if Path(program).name not in RUN or any(line.startswith(each) for each in ELSEWHERE):
            return []
        command = line
        for pattern, replacement in REPLACED.items():
            command = re.sub(pattern, replacement, command)
        for name, value in self._values.items():
            command = command.replace(f"{{{name}}}", str(value))
        done = self._run(command)
        expected = 64 if ASKS.search(command) else 0
        if done.code == expected or (done.code == 64 and NAME_ALONE.search(done.err)):
            return []
        return [f"{place}: {line}\n    ended with {done.code}, not {expected}: {done.err.strip()[-400:]}"]

    def _run(self, command: str) -> Result:
        if command.startswith("make "):
            return _process(["make", "-n", *shlex.split(command)[1:]], ROOT, None)
        if SHELL.search(command):
            return _process(
                ["bash", "-euc", command],
                self._home.path,
                {**self._home.environ, "ANTHROPIC_AUTH_TOKEN": KEY},
            )
        done = self._home.run(*shlex.split(command)[1:])
        if command == "claude-proxy stop":
            assert self._home.run("start").code == 0
        return done

    def _fail(self) -> str:
        """Let a call fail and return its id once it is recorded."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self._home.port}/v1/messages",
            json.dumps({**REQUEST, "model": "qwen-local"}).encode(),
            {"content-type": "application/json"},
        )
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(request, timeout=120)
        with caught.value as response:
            request_id = str(response.headers["request-id"])
        deadline = time.monotonic() + 20
        while request_id not in self._home.run("replay", "--list", "--json").out:
            assert time.monotonic() < deadline, "the call was not recorded"
            time.sleep(0.05)
        return request_id


def _process(command: list[str], folder: Path, environ: dict[str, str] | None) -> Result:
    done = subprocess.run(
        command, cwd=folder, env=environ, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL
    )
    return Result(done.returncode, done.stdout, done.stderr)


def _run_and_exit(program: str, arguments: tuple[str, ...], environ: dict[str, str]) -> NoReturn:
    """Stand in for `os.execve`, which would replace the process of the tests."""
    sys.exit(subprocess.run([program, *arguments[1:]], env=environ, timeout=60).returncode)


def lines_of(text: str) -> list[str]:
    """The commands of a script: lines that are continued by a backslash or within quotes are one."""
    found, rest = [], ""
    for line in text.splitlines():
        rest += line.removesuffix("\\")
        if line.endswith("\\"):
            continue
        if rest.count("'") % 2:
            rest += "\n"
            continue
        found.append(rest.strip())
        rest = ""
    assert rest == ""
    return [line for line in found if line and not line.startswith("#")]


def spans() -> list[tuple[str, str]]:
    """Commands within sentences, each once, with the page."""
    found: dict[str, str] = {}
    for page in documents():
        text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
        for span in re.findall(r"(?<!`)`(claude-proxy [^`]+)`(?!`)", text):
            if not re.search(r"[|…]|^claude-proxy/|\bOPTION\b", span):
                found.setdefault(" ".join(span.split()), page.name)
    return [(page, span) for span, page in found.items()]


def test_commands_of_the_documents(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("K", "OPENROUTER_API_KEY"):
        monkeypatch.setenv(name, KEY)
    monkeypatch.setattr(os, "execve", _run_and_exit)
    faults = []
    with serving_in_thread(SERVER) as server:
        stage = Stage(home, server)
        for block in blocks("sh"):
            stage.reset()
            for line in lines_of(block.text):
                faults += stage.faults(block.place, line)
        for page, span in spans():
            stage.reset()
            faults += stage.faults(page, span)
    assert faults == [], "\n".join(faults)


def test_a_wrong_command_would_be_found(home: Home) -> None:
    with serving_in_thread(SERVER) as server:
        stage = Stage(home, server)
        assert stage.faults("page:1", "claude-proxy check --models missing.yaml") != []
        assert stage.faults("page:1", "make no-such-goal") != []
        assert stage.faults("page:1", "curl -f http://localhost:8082/nothing") != []
