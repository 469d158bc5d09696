"""Log lines: their forms, journald's priorities, the canonical line, and a stderr that nobody reads."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import structlog
from aiohttp import web
from structlog.testing import capture_logs

from proxyd.codecs.anthropic.usage import Usage
from proxyd.config.routes import Pricing
from proxyd.logs import setup as logs
from proxyd.logs.writer import LineQueue
from proxyd.secret import Secret
from tests.support.command_line import command, environment
from tests.support.harness import running_proxy, running_upstream, text_stream
from tests.support.observing import SESSION, ask, finished


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., list[str]]]:
    """Configures logging into a text, and gives its lines."""
    stream = io.StringIO()

    def configured(level: str = "info", log_format: str = "json") -> list[str]:
        if not stream.getvalue():
            logs.configure(level, log_format, stream)
            return []
        assert logs._queue is not None
        assert logs._queue.flush()
        return stream.getvalue().splitlines()

    yield configured
    if logs._queue is not None:
        logs._queue.close()
    structlog.reset_defaults()


def test_the_canonical_line(lines: Callable[..., list[str]]) -> None:
    lines()
    logs.log_calls([finished(retries=1, usage=Usage(10, 2, 30, 0, 1, True), is_stream=True)])
    (line,) = map(json.loads, _flushed())
    assert line["event"] == "call.finished"
    assert line["level"] == "info"
    expected = {
        "request_id": "req_test", "route": "m", "mode": "translated", "kind": "main", "status": 200,
        "outcome": "ok", "ttfb_ms": 250, "duration_ms": 2000, "input_tokens": 10, "output_tokens": 2,
        "cache_read_tokens": 30, "reasoning_tokens": 1, "usage_is_estimated": True, "retries": 1,
        "stop_reason": "end_turn", "session_id": SESSION,
    }  # fmt: skip
    assert {name: line[name] for name in expected} == expected
    assert "client_gone" not in line


def _flushed() -> list[str]:
    assert logs._queue is not None
    assert logs._queue.flush()
    assert isinstance(logs._queue.stream, io.StringIO)
    return logs._queue.stream.getvalue().split("\n")[:-1]  # JSON may hold other ends of a line


def test_failures_are_warnings(lines: Callable[..., list[str]]) -> None:
    lines("warning")
    logs.log_calls([finished()])
    logs.log_calls([finished(outcome="client_gone")])
    logs.log_calls([finished(outcome="failed", error_type="api_error")])
    (line,) = map(json.loads, _flushed())
    assert (line["level"], line["outcome"]) == ("warning", "failed")


#: A call with all that a line can say, in texts that JSON has to escape.
FULL = finished(
    model='"\\\n\u2028\ud800ä',
    outcome="client_gone",
    pricing=Pricing(10_000, 0, 0, 0),  # one dollar, which is no True
    usage=Usage(100, 20, 300, 7, 5, True),
    is_stream=True,
    fallback_from="m2",
    cache_break="tools",
    client_request_id="c-1",
    upstream_request_id="u-1",
    error_type="api_error",
    error="no\tmore" * 100,
)
FACTS = {
    "request_id": "req_test", "model": '"\\\n\u2028\ud800ä', "route": "m", "mode": "translated", "kind": "main",
    "status": 200, "outcome": "client_gone", "stream": True, "duration_ms": 2000, "bytes_in": 0, "bytes_out": 0,
    "events": 0, "input_tokens": 100, "cache_read_tokens": 300, "cache_write_tokens": 7, "output_tokens": 20,
    "retries": 0, "ttfb_ms": 250, "reasoning_tokens": 5, "usage_is_estimated": True, "client_gone": True,
    "cost_usd": 1.0, "stop_reason": "end_turn", "cache_break": "tools", "fallback_from": "m2", "session_id": SESSION,
    "upstream_request_id": "u-1", "client_request_id": "c-1", "error_type": "api_error", "error": "no\tmore" * 100,
}  # fmt: skip


def test_all_that_a_line_can_say(lines: Callable[..., list[str]]) -> None:
    lines()
    logs.log_calls([FULL, finished(model="m" * 5000)])
    line, long_line = map(json.loads, _flushed())
    when = {"timestamp": line["timestamp"]}
    assert line == {**FACTS, "event": "call.finished", "part": "call", "level": "info", **when}
    assert long_line["model"] == "m" * 200
    with capture_logs() as events:
        logs.log_calls([FULL])
    assert events == [{**FACTS, "event": "call.finished", "part": "call", "log_level": "info"}]
    assert logs.facts_of(FULL) == FACTS


def test_a_call_is_for_reading_on_a_terminal(lines: Callable[..., list[str]]) -> None:
    lines("info", "console")
    logs.log_calls([finished(retries=3)])
    (line,) = _flushed()
    assert "call.finished" in line
    assert "retries=3" in line


def test_keys_are_masked_in_the_line_of_their_call_and_all_beside_it(
    lines: Callable[..., list[str]],
) -> None:
    """One look at all lines together tells that they are clean, and none of them is where one is not."""
    lines()
    key = Secret('quoted"key\\of-a-client')
    calls = [
        finished(),
        finished(error=f"the upstream says {key.reveal()}"),
        finished(error="sk-abcdefgh12345"),
    ]
    logs.log_calls(calls)
    told = _flushed()
    assert [json.loads(line).get("error") for line in told] == [None, "the upstream says ***", "***"]
    assert not any("of-a-client" in line or "abcdefgh" in line for line in told)


def test_console_lines_are_for_reading(lines: Callable[..., list[str]]) -> None:
    lines("debug", "console")
    logs.get_logger("part").debug("thing.happened", key="sk-secret-123456789", count=3)
    (line,) = _flushed()
    assert "thing.happened" in line
    assert "count=3" in line
    assert "sk-secret" not in line


def test_under_journald_each_line_has_its_priority(tmp_path: Path) -> None:
    """Also each line of a traceback; and no time of our own, since journald keeps it."""
    script = (
        "from proxyd.logs import setup as logs; logs.configure('debug', 'json'); log = logs.get_logger('x')\n"
        "log.debug('a.b'); log.info('c.d', said='\\u2028'); log.warning('e.f')\n"
        "try: 1 / 0\n"
        "except ZeroDivisionError: log.error('g.h', exc_info=True)\n"
    )
    with (tmp_path / "journal").open("wb") as file:
        stat = os.fstat(file.fileno())
        env = {**environment(tmp_path), "JOURNAL_STREAM": f"{stat.st_dev}:{stat.st_ino}"}
        subprocess.run([sys.executable, "-c", script], env=env, stderr=file, check=True, timeout=30)
    found = (tmp_path / "journal").read_text().split("\n")[:-1]
    assert [line[:3] for line in found] == ["<7>", "<6>", "<4>", "<3>"]
    assert "timestamp" not in found[0]
    assert "ZeroDivisionError" in found[-1]


class Blocked(io.StringIO):
    """A stream that takes nothing until it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self._reads, self._writes = os.pipe()

    def write(self, text: str) -> int:
        os.read(self._reads, 1)
        return super().write(text)

    def let(self, writes: int) -> None:
        os.write(self._writes, b"x" * writes)

    def shut(self) -> None:
        os.close(self._writes)
        os.close(self._reads)


@contextmanager
def stuck(most: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[LineQueue, Blocked]]:
    """A queue for `most` lines whose writer is stuck with the line "first", and its stream."""
    monkeypatch.setattr("proxyd.logs.writer._MAX_WAITING", most)
    stream = Blocked()
    queue = LineQueue(stream, lambda lines: f"{lines} lines were lost")
    try:
        queue.msg("first")
        while queue._waiting:  # until the writer has taken it
            time.sleep(0.001)
        yield queue, stream
    finally:
        stream.let(10)
        queue.close()
        stream.shut()


def test_a_blocked_stream_costs_lines_not_time(monkeypatch: pytest.MonkeyPatch) -> None:
    with stuck(10, monkeypatch) as (queue, stream):
        begun = time.perf_counter()
        for number in range(1000):
            queue.msg(f"line {number}")
        assert time.perf_counter() - begun < 0.5
        assert queue.dropped == 990
        stream.let(3)
        assert queue.flush()
        assert stream.getvalue().splitlines() == [
            "first",
            *(f"line {number}" for number in range(10)),
            "990 lines were lost",
        ]
        queue.msg("and on")
        assert queue.flush()
        assert stream.getvalue().endswith("and on\n")


def test_of_many_lines_those_are_lost_for_which_there_is_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    with stuck(3, monkeypatch) as (queue, stream):
        queue.take(["a", "b"])
        queue.take(["c", "d", "e"])
        queue.take([])
        stream.let(3)
        assert queue.flush()
        assert stream.getvalue().splitlines() == ["first", "a", "b", "c", "2 lines were lost"]


def test_many_lines_do_not_wait_for_the_writers_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxyd.logs.writer._LONG_REST_S", 3600)
    monkeypatch.setattr("proxyd.logs.writer._MANY", 20)
    stream = io.StringIO()
    queue = LineQueue(stream, str)
    try:
        for number in range(1, 4):
            queue.take([f"{number} {line}" for line in range(20)])
            deadline = time.monotonic() + 10
            while stream.getvalue().count("\n") < 20 * number and time.monotonic() < deadline:
                time.sleep(0.001)
            assert stream.getvalue().count("\n") == 20 * number
    finally:
        queue.close()
    assert queue.flush()  # and nothing is waited for when it is closed


def test_a_stream_that_breaks_ends_nothing() -> None:
    class Broken(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(28, "No space left on device")

    queue = LineQueue(Broken(), str)
    queue.msg("lost")
    assert queue.flush()
    queue.msg("lost too")
    queue.close()
    assert queue.dropped == 2


def test_a_daemon_whose_stderr_nobody_reads_goes_on(tmp_path: Path) -> None:
    """The pipe holds 64 KiB; the daemon answers long after it is full."""
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
                urllib.request.urlopen(request, timeout=10)
            assert caught.value.code == 404
            caught.value.close()
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("is_on", [True, False])
async def test_prompts_and_answers_are_logged_for_who_asks_for_it(
    lines: Callable[..., list[str]], is_on: bool
) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        return web.Response(body=text_stream("the answer"), content_type="text/event-stream")

    lines("debug")
    prompt = "the prompt, with sk-ant-planted-0123456789"
    async with running_upstream(answer) as upstream:
        entry = {"model_id": "m", "api_base": upstream.base + "/v1"}
        async with running_proxy([entry], log_bodies=is_on) as base, aiohttp.ClientSession() as session:
            await ask(session, base, stream=True, messages=[{"role": "user", "content": prompt}])
    text = "\n".join(_flushed())
    assert ("the prompt" in text) is is_on
    assert ("the answer" in text) is is_on
    assert "planted" not in text


def test_logging_bodies_is_warned_of(tmp_path: Path) -> None:
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
