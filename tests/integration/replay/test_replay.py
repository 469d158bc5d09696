"""Replays: an untouched record shows no difference, whatever happened in its call; a touched one the right one."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from proxyd.cli.commands.replay import read_entry
from proxyd.recording import recorder as records_module
from proxyd.recording import store as record_files
from proxyd.recording.store import BadRecord
from proxyd.replay.diff import Difference
from proxyd.replay.replay import Found, Replay
from tests.support.harness import running_proxy
from tests.support.raw_sockets import Fault, RawClient, RawUpstream, Step, post
from tests.support.recording import (
    GOOD,
    MODES,
    call_of,
    entry,
    one_record,
    records,
    steps_of,
    until_records,
    whole,
)
from tests.support.streams import CHUNKED, HELLO, TRANSLATED, as_chunks

KEY = "sk-client-0123456789abcdef"
FRAMES = list(TRANSLATED.values())
ERROR_FRAME = b'data: {"error": {"message": "the server is overloaded", "code": 503}}\n\n'
LONG_TOOLS = [{"name": "mcp__" + "x" * 70, "input_schema": {"type": "object"}}]


def replayed(path: Path) -> tuple[list[Found], list[str]]:
    replay = Replay(record_files.load(path), read_entry)
    return replay.run(), replay.notes


def unlike(path: Path) -> list[tuple[str, Difference]]:
    """The parts that differ."""
    return [(each.part, each.difference) for each in replayed(path)[0] if each.difference is not None]


def edit(path: Path, name: str, old: str, new: str) -> None:
    """Change a file of a record; sizes stay."""
    file = path / name
    text = file.read_text()
    assert text.count(old) >= 1, text
    assert len(old) == len(new) or file.suffix == ".json"
    file.write_text(text.replace(old, new))


def refusal(status: str, message: str, **more: Any) -> list[Step]:
    return whole(status, json.dumps({"error": {"message": message, "type": "x", **more}}).encode())


# -- no difference

STREAMS: dict[str, Sequence[Step]] = {
    "good": (),
    "reset": steps_of("translated", until=6, end=(Fault.RESET,)),
    "cut": steps_of("translated", until=6, end=(Fault.CLOSE,)),
    "ended without its end": steps_of("translated", until=6, end=(b"0\r\n\r\n",)),
    "reset at once": [CHUNKED, Fault.RESET],
    "nothing": [CHUNKED, b"0\r\n\r\n"],
    "cut in a frame": [CHUNKED, as_chunks(*FRAMES[:4], FRAMES[4][:40]), Fault.CLOSE],
    "finished but cut": steps_of("translated", until=9, end=(Fault.CLOSE,)),
    "an error in it": [CHUNKED, as_chunks(*FRAMES[:5], ERROR_FRAME), b"0\r\n\r\n"],
    "an error at once": [CHUNKED, as_chunks(ERROR_FRAME), b"0\r\n\r\n"],
    "garbage": whole("200 OK", b"<html>no</html>", kind="text/html"),
    "refused": refusal("400 No", "maximum context length is 1000 tokens, however you requested 2000"),
    "key refused": refusal("401 No", f"Incorrect API key provided: {KEY}"),
    "busy": refusal("429 Slow", "slow down"),
    "no response": (Fault.CLOSE,),
    "in two pieces a frame": [
        CHUNKED,
        *(as_chunks(frame[:30], frame[30:]) for frame in FRAMES),
        b"0\r\n\r\n",
    ],
    "redirect": whole("307 There", b"", "Location: http://127.0.0.1:9/"),
}


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("name", STREAMS)
async def test_translated(tmp_path: Path, name: str, stream: bool) -> None:
    path = await one_record(
        tmp_path,
        [STREAMS[name] or GOOD["translated"]],
        "translated",
        {"stream": stream, "tools": LONG_TOOLS},
        f"X-Api-Key: {KEY}",
        max_retries=1,
    )
    found, notes = replayed(path)
    assert [each for each in found if each.difference] == []
    parts = [each.part for each in found]
    has_response = name not in ("no response", "redirect")
    assert parts == [*(f"request {number + 1}" for number in range(call_of(path)["attempts"]))] + (
        ["response"] if has_response else []
    )
    assert bool(notes) is not has_response


@pytest.mark.parametrize("stream", [True, False])
async def test_probe_of_one_token_that_the_upstream_refuses(tmp_path: Path, stream: bool) -> None:
    words = "Could not finish the message because max_tokens or model output limit was reached."
    path = await one_record(
        tmp_path, [refusal("400 No", words)], "translated", {"stream": stream, "max_tokens": 1}
    )
    assert replayed(path) == ([Found("request 1", None), Found("response", None)], [])


@pytest.mark.parametrize(
    "name", ["good", "reset", "cut", "ended without its end", "in two pieces a frame", "busy"]
)
async def test_direct(tmp_path: Path, name: str) -> None:
    frames = list(MODES["direct"].values())
    plays: dict[str, Sequence[Step]] = {
        "good": GOOD["direct"],
        "reset": steps_of("direct", until=6, end=(Fault.RESET,)),
        "cut": steps_of("direct", until=6, end=(Fault.CLOSE,)),
        "ended without its end": steps_of("direct", until=6, end=(b"0\r\n\r\n",)),
        "in two pieces a frame": [
            CHUNKED,
            *(as_chunks(each[:30], each[30:]) for each in frames),
            b"0\r\n\r\n",
        ],
        "busy": STREAMS["busy"],
    }
    headers = (f"Authorization: Bearer {KEY}", "Anthropic-Beta: one", "X-Custom: yes")
    path = await one_record(tmp_path, [plays[name]], "direct", None, *headers)
    assert replayed(path) == ([Found("request 1", None), Found("response", None)], [])


@pytest.mark.parametrize("encoding", ["", "gzip"])
@pytest.mark.parametrize("is_stream", [True, False])
async def test_direct_bodies_of_other_kinds(tmp_path: Path, encoding: str, is_stream: bool) -> None:
    body = b"".join(MODES["direct"].values()) if is_stream else b'{"type": "message", "content": []}'
    sent = gzip.compress(body) if encoding else body
    headers = [f"Content-Encoding: {encoding}"] if encoding else []
    kind = "text/event-stream" if is_stream else "application/json"
    path = await one_record(
        tmp_path, [whole("200 OK", sent, *headers, kind=kind)], "direct", {"stream": is_stream}
    )
    assert replayed(path) == ([Found("request 1", None), Found("response", None)], [])
    name = "client-response.sse" if is_stream else "client-response.body.json"
    edit(path, name, '"type": "message', '"type": "massage')
    ((part, difference),) = unlike(path)
    assert part == "response"
    assert "type" in difference.place or "event" in difference.place
    assert "massage" in difference.recorded


async def test_retry_and_then_success(tmp_path: Path) -> None:
    plays = [refusal("503 Busy", "later"), (Fault.CLOSE,), GOOD["translated"]]
    path = await one_record(tmp_path, plays, max_retries=2)
    found, _ = replayed(path)
    assert [each.part for each in found] == ["request 1", "request 2", "request 3", "response"]
    assert unlike(path) == []


async def test_fallback_to_another_upstream(tmp_path: Path) -> None:
    """The client's key and its own headers stay with the first."""
    first = RawUpstream(lambda _: refusal("503 Busy", "later"))
    second = RawUpstream(lambda _: GOOD["direct"])
    async with first.running(), second.running():
        entries = [
            entry(first, "direct", fallback=["second"], extra_headers={"X-Extra": "secret"}, max_tokens=20),
            {
                **entry(second, "direct"),
                "model_id": "second",
                "model_name": "other",
                "api_key": "sk-own-0123456789",
            },
        ]
        settings: dict[str, Any] = {"record": "all", "record_bodies": True, "max_retries": 0}
        async with running_proxy(entries, state_folder=tmp_path, **settings) as base:
            async with RawClient.to(base) as client:
                await client.send(post(HELLO, f"X-Api-Key: {KEY}", "X-Custom: mine"))
                assert (await client.response()).status == 200
            (path,) = await until_records(tmp_path, 1)
    assert unlike(path) == []
    assert json.loads((path / "2-upstream-request.json").read_bytes())["is_first_choice"] is False


async def test_learned_quirks_are_applied(tmp_path: Path) -> None:
    """The first call learns, within itself; the second knows from its start."""
    words = "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
    refused = refusal("400 No", words, code="unsupported_parameter", param="max_tokens")
    upstream = RawUpstream(lambda number: refused if number == 0 else GOOD["translated"])
    async with upstream.running():
        settings: dict[str, Any] = {"record": "all", "record_bodies": True}
        async with running_proxy([entry(upstream)], state_folder=tmp_path, **settings) as base:
            for count in (1, 2):
                async with RawClient.to(base) as client:
                    await client.send(post(HELLO))
                    assert (await client.response()).status == 200
                await until_records(tmp_path, count)
    first, second = records(tmp_path)
    assert (call_of(first)["attempts"], call_of(second)["attempts"]) == (2, 1)
    assert (unlike(first), unlike(second)) == ([], [])


async def test_message_that_was_started_early(tmp_path: Path) -> None:
    """The message began, and pings came, before the first chunk."""
    goes_on = asyncio.Event()
    upstream = RawUpstream(lambda _: (CHUNKED, goes_on, as_chunks(*FRAMES), b"0\r\n\r\n"))
    async with upstream.running():
        settings: dict[str, Any] = {"record": "all", "record_bodies": True, "commit_s": 0.03, "ping_s": 0.03}
        async with running_proxy([entry(upstream)], state_folder=tmp_path, **settings) as base:
            async with RawClient.to(base) as client:
                await client.send(post(HELLO))
                for _ in range(2):
                    await client.reader.readuntil(b"event: ping")
                goes_on.set()
                await client.reader.readuntil(b"message_stop")
            (path,) = await until_records(tmp_path, 1)
    assert (path / "client-response.sse").read_text().count("event: ping") >= 2
    assert unlike(path) == []


async def test_client_that_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records_module, "SILENCE_S", 0.0)
    upstream = RawUpstream(lambda _: (CHUNKED, as_chunks(*FRAMES[:4]), Fault.STALL))
    async with upstream.running():
        settings: dict[str, Any] = {"record_bodies": True}
        async with running_proxy([entry(upstream)], state_folder=tmp_path, **settings) as base:
            async with RawClient.to(base) as client:
                await client.send(post(HELLO))
                await client.head()
                await client.reader.readuntil(b"I will ")
            (path,) = await until_records(tmp_path, 1)
    assert call_of(path)["facts"]["outcome"] == "client_gone"
    assert unlike(path) == []
    edit(path, "client-response.sse", "I will ", "I shall")
    ((_, difference),) = unlike(path)
    assert "I shall" in difference.recorded


@pytest.mark.parametrize("mode", GOOD)
async def test_stream_whose_connection_was_cut(tmp_path: Path, mode: str) -> None:
    steps = steps_of(mode, until=6, end=(Fault.RESET,))
    path = await one_record(tmp_path, [steps], mode, on_midstream_error="abort")
    assert unlike(path) == []


async def test_demo_upstream(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"record": "all", "record_bodies": True}
    demo = {"model_id": "m", "api_base": "builtin:demo"}
    async with running_proxy([demo], state_folder=tmp_path, **settings) as base:
        async with RawClient.to(base) as client:
            await client.send(post(HELLO))
            assert (await client.response()).status == 200
        (path,) = await until_records(tmp_path, 1)
    assert unlike(path) == []


@pytest.mark.parametrize("stream", [True, False])
async def test_calls_without_an_upstream(tmp_path: Path, stream: bool) -> None:
    path = await one_record(tmp_path, [()], "translated", {"max_tokens": 0, "stream": stream})
    assert replayed(path) == ([Found("response", None)], [])


async def test_calls_that_the_proxy_refuses(tmp_path: Path) -> None:
    missing = {"api_base": "https://api.example.com/v1"}
    path = await one_record(tmp_path / "key", [()], more=missing)
    assert call_of(path)["facts"]["status"] == 401
    assert replayed(path) == ([Found("response", None)], [])
    path = await one_record(tmp_path / "long", [()], more={"max_input_tokens": 1})
    found, notes = replayed(path)
    assert found == []
    assert "nothing was sent to an upstream: prompt is too long" in notes[0]


async def test_count_tokens_of_a_direct_route(tmp_path: Path) -> None:
    upstream = RawUpstream(lambda _: whole("200 OK", b'{"input_tokens": 5}'))
    async with upstream.running():
        settings: dict[str, Any] = {"record": "all", "record_bodies": True}
        async with running_proxy([entry(upstream, "direct")], state_folder=tmp_path, **settings) as base:
            async with RawClient.to(base) as client:
                await client.send(post(HELLO, path="/anthropic/v1/messages/count_tokens?beta=true"))
                assert (await client.response()).status == 200
            (path,) = await until_records(tmp_path, 1)
    assert replayed(path) == ([Found("request 1", None), Found("response", None)], [])


async def test_truncated_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxyd.telemetry.call_trace.MAX_BYTES", 1500)
    path = await one_record(tmp_path, [GOOD["translated"]])
    assert unlike(path) == []
    assert any("cut" in note for note in replayed(path)[1])


# -- differences


async def test_changed_request(tmp_path: Path) -> None:
    path = await one_record(tmp_path, [GOOD["translated"]])
    edit(path, "client-request.body.json", '"content": "hi"', '"content": "ho"')
    ((part, difference),) = unlike(path)
    assert (part, difference.place) == ("request 1", "body.messages[0].content")
    assert (difference.recorded, difference.now) == ('"hi"', '"ho"')


async def test_changed_url_or_header(tmp_path: Path) -> None:
    path = await one_record(tmp_path, [GOOD["translated"]])
    edit(path, "call.json", "/v1", "/v2")
    ((_, difference),) = unlike(path)
    assert difference.place == "url"
    assert difference.now.endswith('/v2/chat/completions"')
    edit(path, "call.json", "/v2", "/v1")
    edit(path, "1-upstream-request.json", "claude-proxy", "something else")
    ((_, difference),) = unlike(path)
    assert difference.place == "headers.user-agent"


async def test_changed_response(tmp_path: Path) -> None:
    path = await one_record(tmp_path, [GOOD["translated"]])
    edit(path, "1-upstream-response.sse", '"content": "write it."', '"content": "wrote it."')
    ((part, difference),) = unlike(path)
    assert part == "response"
    assert difference.place == "event 9 (content_block_delta): delta.text"
    assert (difference.recorded, difference.now) == ('"write it."', '"wrote it."')


async def test_changed_number_of_events(tmp_path: Path) -> None:
    path = await one_record(tmp_path, [GOOD["translated"]])
    last = b'event: message_stop\ndata: {"type":"message_stop"}\n\n'
    whole_response = (path / "client-response.sse").read_bytes()
    (path / "client-response.sse").write_bytes(whole_response.removesuffix(last))
    ((_, difference),) = unlike(path)
    assert (difference.place, difference.recorded) == ("event 16", "(the end)")
    (path / "client-response.sse").write_bytes(whole_response + last)
    ((_, difference),) = unlike(path)
    assert (difference.place, difference.now) == ("event 17", "(the end)")


async def test_changed_refusal(tmp_path: Path) -> None:
    path = await one_record(tmp_path, [STREAMS["refused"]])
    edit(path, "1-upstream-response.body.json", "1000", "3000")
    ((part, difference),) = unlike(path)
    assert (part, difference.place) == ("response", "message")
    edit(path, "1-upstream-response.json", '"status": 400', '"status": 429')
    ((_, difference),) = unlike(path)
    assert difference.place in ("status", "message")


async def test_bug_of_the_installed_code_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = await one_record(tmp_path, [GOOD["translated"]])

    def bug(*_: Any) -> Any:
        raise KeyError("x")

    monkeypatch.setattr("proxyd.codecs.response_decoder.ResponseDecoder._decode", bug)
    found, notes = replayed(path)
    assert found[-1].difference is not None
    assert "internal error" in found[-1].difference.now
    assert notes[0].startswith(
        "the installed code has a bug: KeyError at tests.integration.replay.test_replay:"
    )


async def test_mixed_up_ids_differ(tmp_path: Path) -> None:
    """Random ids are free, but not to be the same for two calls."""
    calls = [
        b'data: {"choices": [{"index": 0, "delta": {"tool_calls": [{"index": %d, "function": {"name": "Write", '
        b'"arguments": "{}"}}]}}]}\n\n' % index
        for index in (0, 1)
    ]
    path = await one_record(tmp_path, [[CHUNKED, as_chunks(*calls, *FRAMES[8:]), b"0\r\n\r\n"]])
    assert unlike(path) == []
    text = (path / "client-response.sse").read_text()
    first, second = [part[:24] for part in text.split('"toolu_')[1:]]
    (path / "client-response.sse").write_text(text.replace(second, first))
    ((_, difference),) = unlike(path)
    assert difference.place.endswith("content_block.id")


# -- what cannot be replayed


async def test_record_without_bodies_is_refused(tmp_path: Path) -> None:
    path = await one_record(tmp_path, [GOOD["translated"]])
    (path / "call.json").write_text(json.dumps({**call_of(path), "has_bodies": False}))
    with pytest.raises(BadRecord, match=r"has no bodies.*record_bodies: true"):
        replayed(path)


@pytest.mark.parametrize(
    "entry_then",
    [{"model_id": "m"}, {"model_id": "m", "api_base": 5}, {"model_id": "m", "api_base": "ftp://x"}],
)
async def test_foreign_entries_are_validated(tmp_path: Path, entry_then: dict[str, Any]) -> None:
    path = await one_record(tmp_path, [GOOD["translated"]])
    (path / "call.json").write_text(json.dumps({**call_of(path), "entries": {"m": entry_then}}))
    with pytest.raises(BadRecord, match="is not valid"):
        replayed(path)


async def test_hooks_are_named(tmp_path: Path) -> None:
    path = await one_record(tmp_path, [GOOD["translated"]])
    (path / "call.json").write_text(json.dumps({**call_of(path), "hooks": ["filter_tools"]}))
    assert replayed(path)[1] == ["hooks were in force (filter_tools); they are not run again"]
