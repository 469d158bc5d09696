"""``start``, ``status``, ``restart``, ``stop``: the daemon in the background, without a service manager."""

from __future__ import annotations

import http.server
import json
import os
import signal
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.command_line import Home
from tests.support.ports import free_port

DEMO = "- {model_id: demo, api_base: 'builtin:demo'}\n"


def status(home: Home) -> dict[str, object]:
    shown: dict[str, object] = json.loads(home.run("status", "--json").out)
    return shown


def test_start_status_restart_stop(home: Home) -> None:
    home.write_models(DEMO)
    assert home.run("status").code == 3
    started = home.run("start")
    assert started.code == 0, started.err
    assert f"listens on http://localhost:{home.port}" in started.out
    assert "models: demo" in started.out
    log = started.out.rpartition("log: ")[2].strip()
    assert Path(log).is_file()

    again = home.run("start")
    assert (again.code, "runs already" in again.out) == (0, True)

    shown = home.run("status")
    assert shown.code == 0
    assert "is running on" in shown.out
    assert "in the background" in shown.out
    first = status(home)
    assert first["supervisor"] == "detached"
    assert first["models"] == ["demo"]

    restarted = home.run("restart")
    assert restarted.code == 0, restarted.err
    second = status(home)
    assert second["pid"] != first["pid"]

    assert "server.started" in home.run("logs", "-n", "500").out

    stopped = home.run("stop")
    assert (stopped.code, stopped.out) == (0, "claude-proxy has stopped.\n")
    assert Path(log).read_text().count("server.started") == 2
    assert home.run("stop").code == 3
    assert home.run("restart").code == 3


@pytest.mark.parametrize("is_in_file", [True, False])
def test_commands_find_the_access_token(home: Home, is_in_file: bool) -> None:
    """The daemon's state needs the token, which the commands find where the daemon does."""
    if is_in_file:
        home.write_models(
            "settings: {auth_token: '${TOKEN}'}\nmodels: [{model_id: demo, api_base: 'builtin:demo'}]\n"
        )
        (home.config / "env").write_text("TOKEN=a-token-of-the-env-file\n")
    else:
        home.write_models(DEMO)
        (home.config / "env").write_text("CLAUDE_PROXY_AUTH_TOKEN=a-token-of-the-env-file\n")
    assert home.run("start").code == 0
    assert home.run("status").code == 0
    assert status(home)["supervisor"] == "detached"
    home.write_models("- {}\n")
    if not is_in_file:
        assert home.run("status").code == 0, "the token is found whatever is wrong with models.yaml"
    else:
        result = home.run("status")
        assert "CLAUDE_PROXY_AUTH_TOKEN" in result.out + result.err
    home.write_models(
        "settings: {auth_token: '${TOKEN}'}\nmodels: [{model_id: demo, api_base: 'builtin:demo'}]\n"
        if is_in_file
        else DEMO
    )
    assert home.run("stop").code == 0


def test_log_and_its_folder_are_private(home: Home) -> None:
    home.write_models(DEMO)
    before = os.umask(0)
    try:
        started = home.run("start")
    finally:
        os.umask(before)
    assert started.code == 0, started.err
    log = Path(started.out.rpartition("log: ")[2].strip())
    assert home.run("stop").code == 0
    for path in (log, log.parent, log.parent.parent, log.parent.parent.parent):
        assert path.stat().st_mode & 0o077 == 0, path
    log.chmod(0o644)
    assert home.run("start").code == 0
    assert log.stat().st_mode & 0o077 == 0, "permissions of an existing log are repaired"


def test_restart_lets_an_open_stream_finish(home: Home) -> None:
    home.write_models(DEMO)
    assert home.run("start").code == 0
    body = {
        "model": "demo",
        "max_tokens": 2000,
        "stream": True,
        "messages": [{"role": "user", "content": "a long story"}],
    }
    request = urllib.request.Request(
        f"http://127.0.0.1:{home.port}/v1/messages",
        json.dumps(body).encode(),
        {"content-type": "application/json"},
    )
    old = status(home)["pid"]
    with urllib.request.urlopen(request, timeout=120) as response:
        start = response.read(20)
        assert home.run("restart").code == 0
        body_bytes = start + response.read()
    assert b"event: message_stop" in body_bytes
    assert status(home)["pid"] != old


def test_invalid_configuration(home: Home) -> None:
    home.write_models("- {model_id: demo, api_base: 'builtin:demo', max_token: 5}\n")
    result = home.run("start")
    assert result.code == 78
    assert "models.yaml:1:46: models[0].max_token: unknown key" in result.err
    assert "Traceback" not in result.err


def test_restart_with_an_invalid_configuration_keeps_the_daemon(home: Home) -> None:
    home.write_models(DEMO)
    assert home.run("start").code == 0
    before = status(home)["pid"]
    home.write_models("- {}\n")
    assert home.run("restart").code == 78
    assert status(home)["pid"] == before


def test_without_a_configuration_only_the_demo_is_offered(home: Home) -> None:
    result = home.run("start")
    assert result.code == 0
    assert "models.yaml: there is none yet, so only the model 'demo' is offered" in result.err


def test_killed_daemon_can_be_started_again(home: Home) -> None:
    home.write_models(DEMO)
    assert home.run("start").code == 0
    pid = status(home)["pid"]
    assert isinstance(pid, int)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert home.run("status").code == 3
    assert home.run("start").code == 0


class _Foreign(http.server.BaseHTTPRequestHandler):
    body = b'{"name": "claude-proxy", "status": "ready"}'

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def foreign(port: int, body: bytes) -> Iterator[None]:
    class Handler(_Foreign):
        pass

    Handler.body = body
    with http.server.HTTPServer(("127.0.0.1", port), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("command", ["start", "stop", "restart", "status"])
@pytest.mark.parametrize("body", [b"hello", b'{"name": "claude-proxy", "status": "ready"}'])
def test_foreign_server_is_left_alone(home: Home, command: str, body: bytes) -> None:
    home.write_models(DEMO)
    with foreign(home.port, body):
        result = home.run(command)
    assert result.code == (3 if command == "status" else 75)
    assert "another program" in result.out + result.err


def test_claimed_pid_of_another_program_is_not_signalled(home: Home) -> None:
    home.write_models(DEMO)
    about = {
        "name": "claude-proxy", "status": "ready", "pid": 1, "calls": 0, "supervisor": "detached",
        "version": "0", "uptime_s": 1, "config": "x", "models": [], "hooks": [], "circuits": [],
    }  # fmt: skip
    with foreign(home.port, json.dumps(about).encode()):
        result = home.run("stop")
    assert result.code == 1
    assert "is no claude-proxy here" in result.err


def test_server_without_response_is_foreign(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxyd.cli.daemon_client.RESPONSE_TIMEOUT_S", 0.1)
    with socket.create_server(("127.0.0.1", home.port)):
        from proxyd.cli.daemon_client import State, ask, find_target

        peer = ask(find_target(None, None, None), timeout_s=0.1)
    assert peer.state is State.FOREIGN
    assert "did not respond" in peer.why


def test_port_and_host_from_models_yaml(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    from proxyd.cli.daemon_client import find_target

    monkeypatch.delenv("PORT")
    home.write_models(f"settings:\n  # port: 1\n  port: 4321\n  host: 0.0.0.0\nmodels:\n{DEMO}")
    target = find_target(None, None, None)
    assert (target.host, target.port) == ("127.0.0.1", 4321)
    (home.config / "env").write_text("PORT=4322\n")
    assert find_target(None, None, None).port == 4322
    assert find_target(7, None, None).port == 7
    home.write_models("settings: {port: 5, models: [\n")
    (home.config / "env").unlink()
    assert find_target(None, None, None).port == 8082


def test_port_0_is_refused(home: Home) -> None:
    assert home.run("start", "--port", "0").code == 64


def test_status_names_what_cannot_work(home: Home) -> None:
    address = f"http://127.0.0.1:{free_port()}"
    path = home.write_models(
        "settings: {circuit_failures: 2, max_retries: 0}\n"
        f"models: [{{model_id: local, api_base: '{address}/v1'}}]\n"
    )
    assert home.run("start").code == 0
    body = json.dumps({"model": "local", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]})
    cause = f"could not connect to {address}/v1/chat/completions: connection refused"
    for word, failures in (("failing", "1 failure in a row"), ("paused", "2 failures in a row")):
        request = urllib.request.Request(
            f"http://127.0.0.1:{home.port}/v1/messages", body.encode(), {"content-type": "application/json"}
        )
        with pytest.raises(urllib.error.HTTPError):
            urllib.request.urlopen(request, timeout=120)
        (line,) = [line for line in home.run("status").out.splitlines() if address in line]
        assert line.split()[:2] == [word, address + ("," if word == "failing" else "")]
        assert f"{failures}: {cause}" in line
    path.write_text("models: [\n")
    deadline = time.monotonic() + 30
    while f"rejected   {path}:" not in (shown := home.run("status").out):
        assert time.monotonic() < deadline, shown
        time.sleep(0.1)


def test_logs_without_a_log(home: Home) -> None:
    result = home.run("logs")
    assert result.code == 3
    assert "there is no log" in result.err


def test_reload(home: Home) -> None:
    assert home.run("reload").code == 3
    home.write_models(DEMO)
    assert home.run("start").code == 0
    home.write_models("- {}\n")
    refused = home.run("reload")
    assert refused.code == 78
    assert "model_id is missing" in refused.err
    assert status(home)["models"] == ["demo"]
    home.write_models(DEMO + "- {model_id: b, api_base: 'https://api.openai.com', api_key: sk-0123456789}\n")
    assert "warning: " in home.run("reload").err
    path = home.write_models(DEMO)
    assert home.run("restart").code == 0
    first = status(home)
    before = path.stat()
    path.write_text(DEMO.replace("demo", "same", 1))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))  # the watch of the file sees no change
    result = home.run("reload")
    assert (result.code, result.err) == (0, "")
    assert f"reads {path}, the env file and hooks again" in result.out
    deadline = time.monotonic() + 30
    while status(home)["models"] != ["same"]:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert status(home)["pid"] == first["pid"]
