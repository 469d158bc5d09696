"""Bodies that are no gzip, and control characters from outside on a terminal."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import os
from pathlib import Path
from typing import Any

import pytest
import structlog
from structlog.testing import capture_logs

from proxyd.logs import setup as logs
from proxyd.telemetry.access_log import log_calls
from proxyd.telemetry.call_record import CallRecord
from proxyd.telemetry.finished_call import FinishedCall
from proxyd.terminal import printable
from tests.support.daemon_process import process
from tests.support.harness import running_proxy
from tests.support.raw_sockets import RawClient, RawUpstream, complaints, post
from tests.support.streams import HELLO

DEMO = {"model_id": "demo", "api_base": "builtin:demo"}
WHOLE = gzip.compress(json.dumps({**HELLO, "model": "demo", "stream": False}).encode())
BROKEN = {
    "no gzip": b"abcde",
    "cut": WHOLE[:-30],
    "wrong checksum": WHOLE[:-8] + b"\0" * 8,
    "a bit turned": WHOLE[:20] + bytes([WHOLE[20] ^ 0xFF]) + WHOLE[21:],
    "a member of rubbish": WHOLE + b"\x1f\x8brubbish",
}


@pytest.mark.statement("E8")
@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.parametrize(
    "path", ["/v1/messages", "/v1/messages/count_tokens", "/test-connection", "/nothing"]
)
async def test_a_body_that_is_no_gzip_is_one_line_in_the_log(name: str, path: str) -> None:
    with capture_logs() as lines:
        async with running_proxy([DEMO]) as base, RawClient.to(base) as client:
            await client.send(post(BROKEN[name], "Content-Encoding: gzip", path=path))
            response = await client.response()
            await client.send(b"")
    assert response.status == (404 if path == "/nothing" else 400), response.body
    assert response.error()[1]
    assert complaints(lines) == []
    logged = [line["event"] for line in lines if line["event"].startswith("request.")]
    assert logged == ["request.refused"]


#: Sets a window's title, colours, and does the same with C1 controls.
EVIL = "\x1b]0;PWNED\x07\x1b[31mRED\x9b31m\x85\x7f\r\b"
CONTROLS = {chr(code) for code in (*range(0x20), *range(0x7F, 0xA0))}


def written(log_format: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """What the log has of a line with `EVIL` everywhere, of a crash, and of a call."""
    monkeypatch.delenv("JOURNAL_STREAM", raising=False)
    stream = io.StringIO()
    logs.configure("debug", log_format, stream)
    try:
        log: Any = logs.get_logger("x")
        log.warning(f"e{EVIL}", text=EVIL, items=[EVIL, {EVIL: EVIL}], other=Path(EVIL))
        try:
            raise OSError(EVIL)
        except OSError as exc:
            log.error("crashed", exc_info=exc)
        record = CallRecord(request_id="r", model=EVIL, ended=0.0)
        record.error = record.session_id = EVIL
        log_calls([FinishedCall.of(record)])
    finally:
        assert logs._queue is not None
        logs._queue.close()
        structlog.reset_defaults()
    return stream.getvalue()


@pytest.mark.statement("E7")
@pytest.mark.parametrize("log_format", ["console", "json"])
def test_no_control_character_reaches_a_terminal_by_the_log(
    log_format: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = written(log_format, monkeypatch)
    assert "PWNED" in text
    assert {char for char in text if char in CONTROLS} <= {"\n", "\t"}
    if log_format == "json":
        first = json.loads(text.splitlines()[0])
        assert first["text"] == EVIL, "nothing is lost of it"
        assert [json.loads(line)["event"] for line in text.splitlines()][1:] == ["crashed", "call.finished"]


def test_printable() -> None:
    assert printable("plain \u00e4\u4e2d text") == "plain \u00e4\u4e2d text"
    assert printable("a\x1b[0m\x9b\nb") == "a\\x1b[0m\\x9b\\x0ab"
    assert printable("a\n\tb\r", has_lines=True) == "a\n\tb\\x0d"
    assert not CONTROLS & set(printable("".join(sorted(CONTROLS))))


@pytest.mark.statement("E7")
def test_no_control_character_reaches_a_terminal_by_top() -> None:
    from rich.console import Console

    from proxyd.cli.commands.top import _State, _view

    call = {
        "route": EVIL, "model": EVIL, "kind": EVIL, "phase": EVIL, "duration_ms": 1, "output_tokens": 1,
        "tokens_per_s": 1.0, "retries": 0, "started_at": 1.0, "outcome": EVIL, "stop_reason": EVIL, "error": EVIL,
        "error_type": EVIL, "input_tokens": 1, "cache_read_tokens": 0, "cache_write_tokens": 0, "is_estimated": False,
        "ttfb_ms": 1,
    }  # fmt: skip
    state = _State("http://localhost:8082")
    totals: list[Any] = []
    hello = {
        "version": EVIL, "started_at": 1.0, "now": 2.0, "is_draining": False, "totals": totals, "active": [call],
        "recent": [call],
    }  # fmt: skip
    state.update("hello", hello)
    out = io.StringIO()
    Console(file=out, width=400, force_terminal=False).print(_view(state))
    assert out.getvalue().count("PWNED") >= 6
    assert {char for char in out.getvalue() if char in CONTROLS} <= {"\n"}


# -- files and folders of ours


@pytest.mark.statement("E7")
@pytest.mark.parametrize("umask", [0, 0o022, 0o077])
async def test_folders_are_ours_alone_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    from proxyd.config.paths import make_private_folder

    before = os.umask(umask)
    try:
        make_private_folder(tmp_path / "a" / "b" / "c")
        make_private_folder(tmp_path / "a" / "b" / "c")
        state = tmp_path / "state" / "claude-proxy"
        async with (
            running_proxy([DEMO], state_folder=state, record="all") as base,
            RawClient.to(base) as client,
        ):
            await client.send(post({**HELLO, "model": "demo", "stream": False}))
            assert (await client.response()).status == 200
    finally:
        os.umask(before)
    found = await asyncio.to_thread(lambda: list(tmp_path.rglob("*")))
    assert (state / "usage.db") in found
    wrong = {str(path): oct(path.stat().st_mode) for path in found if path.stat().st_mode & 0o077}
    assert wrong == {}


@pytest.mark.statement("E7")
@pytest.mark.parametrize(("mode", "what"), [(0o644, "read"), (0o620, "change"), (0o666, "change")])
async def test_the_daemon_warns_of_an_env_file_that_is_open_to_others(
    tmp_path: Path, mode: int, what: str
) -> None:
    (tmp_path / "env").write_text("A_KEY=sk-0123456789abcdef\n")
    (tmp_path / "env").chmod(mode)
    upstream = RawUpstream(lambda _: ())
    async with upstream.running(), process(tmp_path, upstream) as daemon:
        warning = await daemon.says("config.warning")
    assert warning["what"] == f"{tmp_path}/env: others can {what} this file; run 'chmod 600 {tmp_path}/env'"
