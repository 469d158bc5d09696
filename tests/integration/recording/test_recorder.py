"""Records: what is kept of a call, on real sockets, and that keeping it never disturbs one."""

from __future__ import annotations

import dataclasses
import errno
import gzip
import json
import os
import stat
import threading
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from proxyd.config.routes import RouteTable
from proxyd.config.settings import Settings
from proxyd.hooks.loader import HookSet
from proxyd.providers.base import ClientKeys
from proxyd.recording import recorder as module
from proxyd.recording import store as record_files
from proxyd.recording.recorder import Recorder, is_kept
from proxyd.recording.serializer import files_of
from proxyd.recording.store import FOLDER
from proxyd.secret import Secret
from proxyd.telemetry import call_trace as trace
from proxyd.telemetry.call_trace import CallTrace
from proxyd.telemetry.finished_call import FinishedCall
from tests.support.daemon_process import process, write_models
from tests.support.harness import running_proxy
from tests.support.observing import finished
from tests.support.ports import free_port
from tests.support.raw_sockets import Fault, RawClient, RawUpstream, Step, post, until
from tests.support.recording import (
    GOOD,
    MODES,
    call_of,
    entry,
    one_record,
    play,
    records,
    steps_of,
    until_records,
    whole,
)
from tests.support.streams import CHUNKED, HELLO, TRANSLATED, as_chunks, judge

KEY = "sk-client-0123456789abcdef"
REFUSED = whole("429 Slow", b'{"error": {"message": "too fast, said the prompt", "type": "x"}}')
BROKEN = whole("500 No", b'{"error": {"message": "oops", "type": "x"}}')


def heads(path: Path, number: int) -> tuple[dict[str, Any], dict[str, Any] | None]:
    response = path / f"{number}-upstream-response.json"
    return json.loads((path / f"{number}-upstream-request.json").read_bytes()), (
        json.loads(response.read_bytes()) if response.exists() else None
    )


def text_of(path: Path) -> bytes:
    return b"".join(file.read_bytes() for file in sorted(path.iterdir()))


# -- what is kept


@pytest.mark.parametrize("mode", GOOD)
async def test_record_without_bodies(tmp_path: Path, mode: str) -> None:
    async with play(tmp_path, [GOOD[mode]], mode, None, f"X-Api-Key: {KEY}", "X-Own: sweet") as received:
        (path,) = await until_records(tmp_path, 1)
    call = call_of(path)
    facts = call["facts"]
    assert (facts["outcome"], facts["status"], facts["mode"]) == ("ok", 200, mode)
    assert facts["request_id"] == received.headers["request-id"]
    assert path.name.endswith(facts["request_id"])
    assert call["has_bodies"] is False
    client = json.loads((path / "client-request.json").read_bytes())
    assert (client["method"], client["path"]) == ("POST", "/v1/messages")
    assert (client["headers"]["x-api-key"], client["headers"]["x-own"]) == ("***", "***")
    request, response = heads(path, 1)
    assert response is not None
    credential = "x-api-key" if mode == "direct" else "authorization"
    assert request["headers"][credential].removeprefix("Bearer ") == "***"
    assert (response["status"], response["chunks"]) == (200, 11)
    lines = (path / "1-upstream-response.timing").read_text().splitlines()
    assert [int(line.split()[1]) for line in lines] == list(map(len, MODES[mode].values()))
    moments = [float(line.split()[0]) for line in lines]
    assert moments == sorted(moments)
    assert response["head_ms"] <= moments[0]
    written = (path / "client-response.timing").read_text().splitlines()
    assert sum(int(line.split()[1]) for line in written) == facts["bytes_out"] == len(received.body)
    everything = text_of(path)
    for word in (KEY, "Let me think", "write it", "a.txt", '"hi"', "sweet"):
        assert word.encode() not in everything, word


@pytest.mark.parametrize("mode", GOOD)
async def test_record_with_bodies_has_every_byte(tmp_path: Path, mode: str) -> None:
    async with play(tmp_path, [GOOD[mode]], mode, record_bodies=True) as response:
        (path,) = await until_records(tmp_path, 1)
    record = record_files.load(path)
    assert json.loads(record.body or b"") == HELLO
    (attempt,) = record.attempts
    assert attempt.chunks is not None
    assert [chunk for _, chunk in attempt.chunks] == list(MODES[mode].values())
    assert record.response_chunks is not None
    assert b"".join(chunk for _, chunk in record.response_chunks) == response.body
    assert record.call["entries"]["m"]["model_name"] == "m"


async def test_files_are_private(tmp_path: Path) -> None:
    state = tmp_path / "state"
    path = await one_record(state, [GOOD["translated"]])
    for each in (state / FOLDER, path):
        assert stat.S_IMODE(each.stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in path.iterdir()} == {0o600}


async def test_response_that_is_not_streamed(tmp_path: Path) -> None:
    async with play(
        tmp_path, [GOOD["translated"]], payload={"stream": False}, record_bodies=True
    ) as response:
        (path,) = await until_records(tmp_path, 1)
    assert (path / "client-response.body.json").read_bytes() == response.body


async def test_compressed_response_is_kept_decompressed_and_masked(tmp_path: Path) -> None:
    said = json.dumps(
        {"type": "message", "content": [{"type": "text", "text": f"your key is {KEY}"}]}
    ).encode()
    compressed = gzip.compress(said)
    steps = whole("200 OK", compressed, "Content-Encoding: gzip")
    async with play(tmp_path, [steps], "direct", None, f"X-Api-Key: {KEY}", record_bodies=True) as received:
        assert received.body == compressed
        (path,) = await until_records(tmp_path, 1)
    for name in ("1-upstream-response.body.json", "client-response.body.json"):
        kept = (path / name).read_bytes()
        assert len(kept) == len(said)
        assert kept.startswith(said.partition(KEY.encode())[0])
        assert KEY.encode() not in kept
    _, response = heads(path, 1)
    assert response is not None
    assert (response["body_decompressed"], response["body_bytes"]) == ("gzip", len(compressed))


async def test_unknown_compression_is_left_out(tmp_path: Path) -> None:
    steps = whole("200 OK", b"\x0b\x02\x80brotli\x03", "Content-Encoding: br")
    path = await one_record(tmp_path, [steps], "direct")
    _, response = heads(path, 1)
    assert response is not None
    assert "compressed (br)" in response["body_left_out"]
    assert not list(path.glob("*upstream-response.body*"))


# -- failures


@pytest.mark.parametrize("mode", GOOD)
async def test_each_attempt_is_recorded(tmp_path: Path, mode: str) -> None:
    """The connection is closed without a response, at once and again, and then it works."""
    async with play(
        tmp_path, [(Fault.CLOSE,), (Fault.CLOSE,), GOOD[mode]], mode, record="failures", max_retries=2
    ) as response:
        assert response.status == 200
        (path,) = await until_records(tmp_path, 1)
    assert call_of(path)["attempts"] == 3
    assert call_of(path)["facts"]["retries"] == 2
    assert [heads(path, number)[1] is None for number in (1, 2, 3)] == [True, True, False]


async def test_error_and_then_success(tmp_path: Path) -> None:
    async with play(tmp_path, [BROKEN, GOOD["translated"]], record="failures") as response:
        assert response.status == 200
        (path,) = await until_records(tmp_path, 1)
    responses = [heads(path, number)[1] for number in (1, 2)]
    assert [each["status"] for each in responses if each is not None] == [500, 200]
    assert b"oops" not in text_of(path)


@pytest.mark.parametrize(
    ("steps", "outcome", "status", "error"),
    [
        (REFUSED, "refused", 429, None),
        ((Fault.RESET,), "refused", 502, "closed the connection without an answer"),
        (steps_of("translated", until=5, end=(Fault.RESET,)), "failed", 200, "closed the stream"),
        (steps_of("translated", until=5, end=(b"0\r\n\r\n",)), "failed", 200, "closed the stream"),
    ],
)
async def test_failures(
    tmp_path: Path, steps: list[Step], outcome: str, status: int, error: str | None
) -> None:
    async with play(tmp_path, [steps], record="failures", max_retries=0):
        (path,) = await until_records(tmp_path, 1)
    facts = call_of(path)["facts"]
    assert (facts["outcome"], facts["status"]) == (outcome, status)
    assert (error in facts["error"]) if error else ("error" not in facts)
    assert b"said the prompt" not in text_of(path), "an upstream's own words may be the prompt's"


async def test_upstream_error_message_is_kept_with_bodies(tmp_path: Path) -> None:
    path = await one_record(tmp_path, [REFUSED], max_retries=0)
    assert "said the prompt" in call_of(path)["facts"]["error"]


async def test_refused_connection(tmp_path: Path) -> None:
    upstream = RawUpstream(lambda _: (), port=free_port())
    async with running_proxy([entry(upstream)], state_folder=tmp_path, max_retries=0) as base:
        async with RawClient.to(base) as client:
            await client.send(post(HELLO))
            assert (await client.response()).status == 502
        (path,) = await until_records(tmp_path, 1)
    assert "could not connect to http://127.0.0.1" in call_of(path)["facts"]["error"]


async def test_fallback_is_recorded(tmp_path: Path) -> None:
    upstream = RawUpstream(lambda number: BROKEN if number == 0 else GOOD["translated"])
    async with upstream.running():
        entries = [
            entry(upstream, fallback=["second"]),
            {**entry(upstream), "model_id": "second"},
        ]
        async with running_proxy(entries, state_folder=tmp_path, max_retries=0) as base:
            async with RawClient.to(base) as client:
                await client.send(post(HELLO))
                assert (await client.response()).status == 200
            (path,) = await until_records(tmp_path, 1)
    assert call_of(path)["facts"]["fallback_from"] == "m"
    assert [heads(path, number)[0]["route"] for number in (1, 2)] == ["m", "second"]


@pytest.mark.parametrize(("patience_s", "kept"), [(0.0, 1), (60.0, 0)])
async def test_client_that_leaves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, patience_s: float, kept: int
) -> None:
    """Kept where it had waited for the upstream, not where it changed its mind."""
    monkeypatch.setattr(module, "SILENCE_S", patience_s)
    upstream = RawUpstream(lambda number: (CHUNKED, as_chunks(*list(TRANSLATED.values())[:4]), Fault.STALL))
    with capture_logs() as lines:
        async with upstream.running():
            async with running_proxy([entry(upstream)], state_folder=tmp_path) as base:
                async with RawClient.to(base) as client:
                    await client.send(post(HELLO))
                    await client.head()
                    await client.reader.read(10)
                await until(lambda: any(line["event"] == "call.finished" for line in lines))
    assert len(records(tmp_path)) == kept
    for path in records(tmp_path):
        assert call_of(path)["facts"]["outcome"] == "client_gone"


def test_is_kept() -> None:
    assert not is_kept(finished(), "failures")
    assert is_kept(finished(), "all")
    assert is_kept(finished(retries=1), "failures")
    assert is_kept(finished(fallback_from="a"), "failures")
    assert is_kept(finished(outcome="crashed"), "failures")
    patient = finished(outcome="client_gone", trace=CallTrace(), begun=0.0, ended=module.SILENCE_S)
    assert is_kept(patient, "failures")
    assert not is_kept(finished(outcome="client_gone", trace=CallTrace()), "failures")
    for call in (patient, finished(outcome="failed", retries=1)):
        assert not is_kept(call, "off"), "switched off while the call went on"


async def test_successful_call_is_not_kept(tmp_path: Path) -> None:
    async with play(tmp_path, [GOOD["translated"]], record="failures") as response:
        assert response.status == 200
    assert records(tmp_path) == []


# -- limits


async def test_oldest_records_are_deleted(tmp_path: Path) -> None:
    upstream = RawUpstream(lambda _: GOOD["translated"])
    ids: list[str] = []

    def names() -> list[str]:
        return [path.name[-26:] for path in records(tmp_path)]

    async with upstream.running():
        settings: dict[str, Any] = {"record": "all", "record_max": 3}
        async with running_proxy([entry(upstream)], state_folder=tmp_path, **settings) as base:
            for _ in range(5):
                async with RawClient.to(base) as client:
                    await client.send(post(HELLO))
                    ids.append((await client.response()).headers["request-id"])
                await until(lambda: ids[-1] in names(), 30)
    assert names() == ids[-3:]


def _traced(size: int = 0) -> Any:
    """A finished call with a body of `size`."""
    in_force = (Settings(), RouteTable(), HookSet())
    found = CallTrace(in_force, size)
    if size:
        found.keep_bodies(b"x" * size)
    return finished(outcome="failed", trace=found)


def test_queue_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    go_on = threading.Event()
    monkeypatch.setattr(module, "write_folder", lambda *_: go_on.wait(10))
    recorder = Recorder(tmp_path / FOLDER, lambda: Settings(record_max=5))
    (tmp_path / FOLDER).mkdir()
    try:
        for _ in range(1000):
            recorder.observe(_traced())
        assert len(recorder._waiting) == 5
        assert recorder.dropped == 0, "the others would have been the first to go"
        monkeypatch.setattr(module, "_MAX_WAITING_BYTES", 2500)
        for _ in range(5):
            recorder.observe(_traced(1000))
        assert len(recorder._waiting) == 2
        assert recorder.dropped > 0
    finally:
        go_on.set()
        recorder.close()


async def test_memory_of_a_call_is_bounded_and_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace, "MAX_BYTES", 600)
    monkeypatch.setattr(trace, "MAX_MARKS", 4)
    async with play(tmp_path, [GOOD["direct"]], "direct", record_bodies=True) as received:
        (path,) = await until_records(tmp_path, 1)
    assert judge(received.events()) == "message_stop"
    call = call_of(path)
    assert any("cut" in note for note in call["notes"])
    assert len((path / "1-upstream-response.timing").read_text().splitlines()) == 4
    bodies = [
        file.stat().st_size for file in path.iterdir() if file.suffix in (".sse",) or ".body." in file.name
    ]
    # What went on as it came is in memory once and in the folder twice.
    assert sum(bodies) <= 2 * 600
    _, response = heads(path, 1)
    assert response is not None
    assert response["chunks"] == 11
    assert response["body_bytes"] > 600


async def test_request_that_is_too_large_to_keep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace, "MAX_BYTES", 100)
    path = await one_record(tmp_path, [GOOD["translated"]])
    notes = call_of(path)["notes"]
    assert "the client's request is too large to be kept" in notes
    assert not (path / "client-request.body.json").exists()


def test_two_recorders_share_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PAUSE_S", 0)
    both = [Recorder(tmp_path / FOLDER, lambda: Settings(record_max=10)) for _ in range(2)]
    for number in range(200):
        record = dataclasses.replace(_traced(), request_id=f"req_{number:022}")
        both[number % 2].observe(record)
    for recorder in both:
        assert recorder.flush(10)
        recorder.close()
        assert (recorder.trouble, recorder.dropped) == (None, 0)
    assert 10 <= len(records(tmp_path)) <= 11, "one may have written while the other counted"


# -- failures of the recorder


async def test_unwritable_folder_is_reported_once(tmp_path: Path) -> None:
    (tmp_path / FOLDER).write_text("in the way")
    upstream = RawUpstream(lambda _: GOOD["translated"])
    with capture_logs() as lines:
        async with upstream.running():
            async with running_proxy([entry(upstream)], state_folder=tmp_path, record="all") as base:
                for _ in range(3):
                    async with RawClient.to(base) as client:
                        await client.send(post(HELLO))
                        assert judge((await client.response()).events()) == "message_stop"
                await until(lambda: any(line["event"] == "record.write_failed" for line in lines))
    (said,) = [line for line in lines if line["event"] == "record.write_failed"]
    assert "cannot be written" in said["why"]


async def test_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = record_files.write_folder

    def full(root: Path, name: str, files: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module, "write_folder", full)
    recorder = Recorder(tmp_path / FOLDER, lambda: Settings())
    with capture_logs() as lines:
        for _ in range(2):
            recorder.observe(_traced())
        assert recorder.flush()
        monkeypatch.setattr(module, "write_folder", real)
        recorder.observe(_traced())
        assert recorder.flush()
        recorder.close()
    assert [line["event"] for line in lines] == ["record.write_failed", "record.recovered"]
    assert "no space left" in lines[0]["why"]
    assert lines[1]["records_lost"] == 2
    assert len(records(tmp_path)) == 1


@pytest.mark.parametrize("mode", GOOD)
@pytest.mark.parametrize("where", ["begin", "flow", "attempt", "files"])
async def test_bug_in_the_recorder_ends_no_stream(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str, where: str
) -> None:
    def bug(*_: Any, **__: Any) -> Any:
        raise ZeroDivisionError

    place: dict[str, tuple[Any, str]] = {
        "begin": (trace, "_Budget"),
        "flow": (trace, "monotonic"),
        "attempt": (trace, "AttemptTrace"),
        "files": (module, "files_of"),
    }
    monkeypatch.setattr(*place[where], bug)
    with capture_logs() as lines:
        async with play(tmp_path, [GOOD[mode]], mode, record_bodies=True) as response:
            assert judge(response.events()) == "message_stop"
            if where != "files":
                (path,) = await until_records(tmp_path, 1)
                assert any("failed while it traced" in note for note in call_of(path)["notes"])
            else:
                await until(lambda: any(line["event"] == "record.crashed" for line in lines))


async def test_reload_switches_recording(tmp_path: Path) -> None:
    upstream = RawUpstream(lambda _: GOOD["translated"])
    state = tmp_path / ".local/state/claude-proxy"
    async with upstream.running():
        async with process(tmp_path, upstream, record="off") as daemon:

            async def call() -> None:
                async with RawClient.to(daemon.base) as client:
                    await client.send(post(HELLO))
                    assert (await client.response()).status == 200

            await call()
            write_models(tmp_path, upstream, record="all", record_bodies=True)
            await daemon.says("config.reloaded")
            warned = await daemon.says("server.records_bodies")
            assert warned["level"] == "warning"
            await call()
            (path,) = await until_records(state, 1)
            assert call_of(path)["has_bodies"] is True
            write_models(tmp_path, upstream, record="off")
            await daemon.says("config.reloaded", times=2)
            await call()
            await daemon.says("call.finished", times=3)
    assert len(records(state)) == 1


async def test_record_bodies_is_warned_about(tmp_path: Path) -> None:
    upstream = RawUpstream(lambda _: ())
    async with upstream.running():
        async with process(tmp_path, upstream, record_bodies=True) as daemon:
            (line,) = daemon.log("server.records_bodies")
        assert line["level"] == "warning"
        assert "prompts and responses" in line["what"]
        async with process(tmp_path, upstream, record_bodies=True, record="off") as daemon:
            assert daemon.log("server.records_bodies") == []


# -- masks


async def test_keys_in_bodies_are_masked_with_their_length(tmp_path: Path) -> None:
    """By value, cut in two by a chunk's end, and by what they look like."""
    own, pasted = "plain.key/of+the=client", "sk-ant-pasted-0123456789"
    frame = TRANSLATED["text"].replace(b"I will ", b"key " + own.encode())
    half = frame.index(b"of+the")
    steps = [
        CHUNKED,
        as_chunks(TRANSLATED["role"], frame[:half]),
        as_chunks(frame[half:]),
        as_chunks(*list(TRANSLATED.values())[8:]),
        b"0\r\n\r\n",
    ]
    payload = {"messages": [{"role": "user", "content": f"see\n{pasted} and {own}"}]}
    path = await one_record(tmp_path, [steps], "translated", payload, f"X-Api-Key: {own}")
    everything = text_of(path)
    for secret in (own, pasted):
        assert secret.encode() not in everything
    record = record_files.load(path)
    assert record.body is not None
    assert len(record.body) == record.client["body_bytes"]
    content = json.loads(record.body)["messages"][0]["content"]
    assert content.startswith("see\n")
    masked = [content.split()[1], content.split()[3]]
    assert [len(each) for each in masked] == [len(pasted), len(own)]
    assert set(masked) <= set(record.masks)
    assert masked[1].encode() in b"".join(chunk for _, chunk in record.attempts[0].chunks or ())


def test_key_is_masked_after_the_end_of_its_call(tmp_path: Path) -> None:
    """The record is written later than the call ends; until then its keys are known."""
    record = _traced(1)
    record.trace.body = b"the key is correct-horse-battery"
    record.trace.keys = ClientKeys(Secret("correct-horse-battery"))
    files = files_of(record)
    assert b"correct-horse" not in b"".join(files.values())


def test_foreign_error_types_are_left_out_without_bodies() -> None:
    record = dataclasses.replace(
        _traced(), stop_reason="your prompt was: hello", error_type="overloaded_error"
    )
    facts = json.loads(files_of(record)["call.json"])["facts"]
    assert "stop_reason" not in facts
    assert facts["error_type"] == "overloaded_error"


# -- reading what somebody else wrote


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 99, "claude_proxy": "9.9"}, "use the version that wrote it"),
        (b"[]", "expected a JSON object"),
        (b"[" * 100_000, "expected a JSON object"),
        (None, "is no record"),
    ],
)
async def test_invalid_records_are_refused(tmp_path: Path, change: Any, message: str) -> None:
    path = await one_record(tmp_path, [GOOD["translated"]])
    file = path / "call.json"
    if change is None:
        file.unlink()
    else:
        file.write_bytes(
            change if isinstance(change, bytes) else json.dumps({**call_of(path), **change}).encode()
        )
    with pytest.raises(record_files.BadRecord, match=message):
        record_files.load(path)


async def test_links_in_records_are_not_followed(tmp_path: Path) -> None:
    path = await one_record(tmp_path, [GOOD["translated"]])
    (tmp_path / "secret").write_text("x")
    client = json.loads((path / "client-request.json").read_bytes())
    for name in ("../secret", "/etc/passwd", "..", ""):
        (path / "client-request.json").write_text(json.dumps({**client, "body_file": name}))
        with pytest.raises(record_files.BadRecord, match="another folder"):
            record_files.load(path)
    (path / "client-request.json").unlink()
    (path / "client-request.json").symlink_to(tmp_path / "secret")
    with pytest.raises(record_files.BadRecord, match="is a link"):
        record_files.load(path)


async def test_record_off_creates_no_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[FinishedCall] = []
    monkeypatch.setattr(Recorder, "observe", lambda self, record: made.append(record))
    async with play(tmp_path, [GOOD["translated"]], record="off") as response:
        assert response.status == 200
        await until(lambda: bool(made))
    assert made[0].trace is None
    assert not (tmp_path / FOLDER).exists()


@pytest.mark.parametrize("kind", ["fifo", "folder", "socket"])
async def test_special_files_in_records_do_not_block(tmp_path: Path, kind: str) -> None:
    path = await one_record(tmp_path, [GOOD["translated"]])
    target = path / "client-request.json"
    target.unlink()
    if kind == "fifo":
        os.mkfifo(target, 0o600)
    elif kind == "folder":
        target.mkdir()
    else:
        os.mknod(target, 0o600 | stat.S_IFSOCK)
    with pytest.raises(record_files.BadRecord, match="no regular file"):
        record_files.load(path)
