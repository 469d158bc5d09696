"""Log lines: their formats, journald's priorities, bodies, and a stderr that nobody reads."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from proxyd.logs.setup import get_logger
from tests.support.command_line import command, environment
from tests.support.harness import running_proxy, running_upstream, text_stream
from tests.support.log_text import logging_to_text
from tests.support.observing import ask


def test_console_lines_name_event_and_fields() -> None:
    with logging_to_text("debug", "console") as log:
        get_logger("part").debug("thing.happened", key="sk-secret-123456789", count=3)
        (line,) = log.lines()
    assert "thing.happened" in line
    assert "count=3" in line
    assert "sk-secret" not in line


def test_journald_lines_have_priorities(tmp_path: Path) -> None:
    """Each line of a traceback has one, too. Timestamps are left to journald."""
    script = (
        "from proxyd.logs import setup as logs; logs.configure('debug', 'json'); log = logs.get_logger('x')\n"
        "log.debug('a.b'); log.info('c.d', said='\\u2028'); log.warning('e.f')\n"
        "try: 1 / 0\n"
        "except ZeroDivisionError: log.error('g.h', exc_info=True)\n"
    )
    with (tmp_path / "journal").open("wb") as file:
        stat = os.fstat(file.fileno())
        env = {**environment(tmp_path), "JOURNAL_STREAM": f"{stat.st_dev}:{stat.st_ino}"}
        subprocess.run([sys.executable, "-c", script], env=env, stderr=file, check=True, timeout=120)
    found = (tmp_path / "journal").read_text().split("\n")[:-1]
    assert [line[:3] for line in found] == ["<7>", "<6>", "<4>", "<3>"]
    assert "timestamp" not in found[0]
    assert "ZeroDivisionError" in found[-1]


def test_daemon_with_an_unread_stderr_keeps_serving(tmp_path: Path) -> None:
    """The pipe holds 64 KiB; the daemon responds long after it is full."""
    models = tmp_path / "models.yaml"
    models.write_text("- {model_id: m, api_base: 'builtin:demo'}\n")
    process = subprocess.Popen(
        command("--port", "0", "--models", str(models)),
        env={**environment(tmp_path), "LOG_LEVEL": "debug"},
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        base = next(json.loads(line)["address"] for line in process.stderr if "server.started" in line)
        body: dict[str, Any] = {"model": "x" * 190, "messages": [{"role": "user", "content": "hi"}]}
        request = urllib.request.Request(
            f"{base}/{'long' * 45}", json.dumps(body).encode(), {"content-type": "application/json"}
        )
        for _ in range(400):
            with pytest.raises(urllib.error.HTTPError) as caught:
                urllib.request.urlopen(request, timeout=120)
            assert caught.value.code == 404
            caught.value.close()
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("is_on", [True, False])
async def test_bodies_are_logged_only_with_log_bodies(is_on: bool) -> None:
    async def respond(request: web.Request) -> web.StreamResponse:
        return web.Response(body=text_stream("the answer"), content_type="text/event-stream")

    prompt = "the prompt, with sk-ant-planted-0123456789"
    with logging_to_text("debug") as log:
        async with running_upstream(respond) as upstream:
            entry = {"model_id": "m", "api_base": upstream.base + "/v1"}
            async with running_proxy([entry], log_bodies=is_on) as base, aiohttp.ClientSession() as session:
                await ask(session, base, stream=True, messages=[{"role": "user", "content": prompt}])
        text = "\n".join(log.lines())
    assert ("the prompt" in text) is is_on
    assert ("the answer" in text) is is_on
    assert "planted" not in text


def test_log_bodies_is_warned_about(tmp_path: Path) -> None:
    models = tmp_path / "models.yaml"
    models.write_text("- {model_id: m, api_base: 'builtin:demo'}\n")
    process = subprocess.Popen(
        command("--port", "0", "--models", str(models), "--log-bodies"),
        env=environment(tmp_path),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        events = []
        while "server.started" not in events:
            line = json.loads(process.stderr.readline())
            events.append(line["event"])
            if line["event"] == "server.logs_bodies":
                assert line["level"] == "warning"
        assert "server.logs_bodies" in events
    finally:
        process.kill()
        process.communicate()
