"""The output of the daemon in the foreground."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import select
import shlex
import signal
import socket
import subprocess
import sys
import termios
from collections.abc import Sequence

import pytest

from proxyd.cli.package_data import own_command
from tests.support.command_line import Home
from tests.support.ports import free_port

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
        out, err = process.communicate(timeout=120)
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
        f"  {shlex.join(own_command())} code demo",
        f"Others: ANTHROPIC_BASE_URL={url} ANTHROPIC_AUTH_TOKEN=any",
        f"Calls and models: {url}/dashboard  Stop it: Ctrl-C",
    ]


def test_programs_that_read_json_logs_get_nothing_else(home: Home) -> None:
    home.write_models(DEMO)
    out, err = output_of(home, ["--log-format", "json"])
    assert out == ""
    assert all(isinstance(json.loads(line), dict) for line in err.splitlines())


def test_command_names_what_is_not_the_default(home: Home) -> None:
    home.write_models(DEMO)
    other = home.path / "other.yaml"
    other.write_text(DEMO)
    port = free_port()
    out, _ = output_of(home, ["--port", str(port), "--models", str(other)])
    command = f"{shlex.join(own_command())} code demo --port {port} --models"
    assert out.splitlines()[1].rpartition(" ")[0] == f"  {command}"
    assert out.splitlines()[1].endswith("other.yaml")


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
    assert f"ANTHROPIC_AUTH_TOKEN={token}\n" in out
    assert ("  ANTHROPIC_AUTH_TOKEN=KEY " in out) is (token == "KEY")
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
        _, rest = process.communicate(timeout=120)
    finally:
        process.kill()
        process.communicate()
    assert not line.startswith("{")
    assert "not a variable of claude-proxy" not in rest


# -- signals

#: Runs the daemon and sends it a signal as soon as the port is open, before it does anything else.
EARLY_SIGNAL = """
import os, signal
from proxyd.daemon.server import Daemon
start = Daemon.start
async def start_and_signal(self):
    await start(self)
    os.kill(os.getpid(), signal.{name})
Daemon.start = start_and_signal
from proxyd.cli.main import main
main()
"""


def test_a_stop_right_after_the_port_opens_is_orderly(home: Home) -> None:
    home.write_models(DEMO)
    program = [sys.executable, "-c", EARLY_SIGNAL.format(name="SIGTERM"), "run"]
    ran = subprocess.run(program, env=home.environ, capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 0, ran.stderr
    assert "server.stopped" in ran.stderr


class Terminal:
    """The daemon as the foreground job of a terminal."""

    def __init__(self, home: Home, *, ignores_hangup: bool = False) -> None:
        self.output = ""
        self._master, slave = pty.openpty()

        def take_terminal() -> None:
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)
            if ignores_hangup:  # as nohup does
                signal.signal(signal.SIGHUP, signal.SIG_IGN)

        self.process = subprocess.Popen(
            [sys.executable, "-m", "proxyd", "run"],
            env=home.environ,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            preexec_fn=take_terminal,
        )
        os.close(slave)
        self.read_until("server.started")

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        self.close()

    def read_until(self, text: str) -> None:
        while text not in self.output:
            assert select.select([self._master], [], [], 30)[0], self.output
            self.output += os.read(self._master, 65536).decode()

    def close(self) -> None:
        if self._master >= 0:
            os.close(self._master)
            self._master = -1


def test_closing_the_terminal_stops_the_daemon(home: Home) -> None:
    home.write_models(DEMO)
    with Terminal(home) as terminal:
        terminal.close()
        assert terminal.process.wait(30) == 0


def test_sighup_on_an_open_terminal_reloads(home: Home) -> None:
    home.write_models(DEMO)
    with Terminal(home) as terminal:
        terminal.process.send_signal(signal.SIGHUP)
        terminal.read_until("config.reloaded")


def test_closing_the_terminal_does_not_stop_a_daemon_under_nohup(home: Home) -> None:
    home.write_models(DEMO)
    with Terminal(home, ignores_hangup=True) as terminal:
        terminal.close()
        with pytest.raises(subprocess.TimeoutExpired):
            terminal.process.wait(2)
        with socket.create_connection(("127.0.0.1", home.port), 10):
            pass
