"""Records of calls: what is in them of planted keys and words, with bodies and without."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support.daemon_process import process
from tests.support.raw_sockets import Fault, RawClient, RawUpstream, Step, post
from tests.support.streams import CHUNKED, HELLO, TRANSLATED, as_chunks

PROMPT, SYSTEM, ANSWER, THOUGHT, ARGUMENT = (
    f"planted-{kind}-word" for kind in ("prompt", "system", "answer", "thought", "argument")
)
PLANTED_KEY = "plantedkeywithoutanyprefix0123456789"
PLANTED_TOKEN = "planted.bearer.without.any.prefix"
PLANTED_CONFIGURED = "planted-configured-key-in-the-file"


def _responses(number: int) -> tuple[Step, ...]:
    """Good, refused with the key in the words, broken, garbage: whatever gets logged somewhere."""
    frames = [
        frame.replace(b"Let me think. ", THOUGHT.encode())
        .replace(b"I will ", ANSWER.encode())
        .replace(b".txt", ARGUMENT.encode())
        for frame in TRANSLATED.values()
    ]
    echo = f"bad key {PLANTED_KEY} {PLANTED_TOKEN} {PLANTED_CONFIGURED} for {PROMPT}"
    refused = json.dumps({"error": {"message": echo[:90], "type": "invalid_request_error"}}).encode()
    return (
        (CHUNKED, as_chunks(*frames), b"0\r\n\r\n"),
        (b"HTTP/1.1 401 No\r\nContent-Length: %d\r\n\r\n%s" % (len(refused), refused),),
        (CHUNKED, as_chunks(*frames[:5]), Fault.RESET),
        (f"HTTP/1.1 {PLANTED_KEY} what\r\n\r\n".encode(), Fault.CLOSE),
        (CHUNKED, as_chunks(*frames[:4], f"data: {{{PLANTED_TOKEN} {ANSWER}\n\n".encode()), Fault.CLOSE),
        (Fault.CLOSE,),
    )[number % 6]


def _planted() -> list[bytes]:
    payload = {
        **HELLO,
        "system": SYSTEM,
        "messages": [{"role": "user", "content": PROMPT}],
        "metadata": {"user_id": "someone"},
    }
    headers = (f"X-Api-Key: {PLANTED_KEY}", f"Authorization: Bearer {PLANTED_TOKEN}")
    return [
        *(
            post({**payload, "model": model}, *headers)
            for model in ("m", "configured", "direct")
            for _ in range(6)
        ),
        post({**payload, "model": "no-such-model"}, *headers),
        post({**payload, "stream": False}, *headers),
        post(json.dumps(payload).encode()[:-3], *headers),
        post(payload, *headers).replace(b"Host: 127.0.0.1", f"Host: x\r\nX-Api-Key {PLANTED_KEY}".encode()),
        post(payload, *headers, path="/v1/messages/count_tokens"),
        post(payload, *headers, path="/nothing"),
        post({**payload, "messages": PROMPT}, *headers),
    ]


def _arguments_of(pid: int) -> bytes:
    return subprocess.run(["ps", "-o", "args=", "-p", str(pid)], capture_output=True, check=True).stdout


def _files_below(folder: Path) -> dict[Path, bytes]:
    """What the daemon has written: its ledger, its records, its state."""
    found = (path for path in folder.rglob("*") if path.is_file() and path.name != "models.yaml")
    return {path: path.read_bytes() for path in found}


async def _planted_calls(folder: Path, **more: Any) -> dict[str, bytes]:
    """Make all the calls, at debug, where most is logged; returns what can be found where afterwards."""
    upstream = RawUpstream(_responses)
    seen = b""
    async with upstream.running():
        base_url = f"{upstream.base}/v1"
        entries = (
            {"model_id": "configured", "api_base": base_url, "api_key": PLANTED_CONFIGURED},
            {"model_id": "direct", "api_base": base_url, "direct": True},
        )
        settings = {"log_level": "debug", "max_retries": 0, "circuit_failures": 0, "record": "all", **more}
        async with process(folder, upstream, *entries, **settings) as daemon:
            arguments = _arguments_of(daemon.handle.pid)
            for request in _planted():
                async with RawClient.to(daemon.base) as client:
                    await client.send(request)
                    await client.response()
            await daemon.says("call.finished", 15)
            details = [f"/v1/calls/{line['request_id']}" for line in daemon.log("call.finished")]
            for path in (
                *("/metrics", "/v1/stats", "/v1/models", "/dashboard", "/readyz?verbose", "/test-connection"),
                *details,
            ):
                async with RawClient.to(daemon.base) as client:
                    await client.send(
                        f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()
                    )
                    seen += await asyncio.wait_for(client.reader.read(), 30)
            daemon.send(signal.SIGUSR2)
            await daemon.says("state.daemon")
            daemon.send(signal.SIGTERM)
            assert await daemon.ended(30) == 0
    assert len(daemon.log("call.finished")) >= 15, "the calls did run"
    stored = {str(path): data for path, data in _files_below(folder).items()}
    assert sum(path.endswith("/call.json") for path in stored) >= 15, "and were recorded"
    return {"the log": json.dumps(daemon.lines).encode(), "the endpoints": seen, "ps": arguments, **stored}


@pytest.mark.statement("E7")
async def test_records_without_bodies_hold_neither_keys_nor_words(tmp_path: Path) -> None:
    for place, data in (await _planted_calls(tmp_path)).items():
        for planted in (PLANTED_KEY, PLANTED_TOKEN, PLANTED_CONFIGURED):
            assert planted.encode() not in data, f"{planted} in {place}"
        for word in (PROMPT, SYSTEM, ANSWER, THOUGHT, ARGUMENT):
            # An upstream's own error message may quote a prompt, and is what the log line of that call must say.
            if place == "the log":
                data = data.replace(f"bad key *** *** *** for {word}".encode(), b"")
            assert word.encode() not in data, f"{word} in {place}"


@pytest.mark.statement("E7")
async def test_records_of_bodies_hold_words_and_no_keys(tmp_path: Path) -> None:
    places = await _planted_calls(tmp_path, record_bodies=True)
    for place, data in places.items():
        for planted in (PLANTED_KEY, PLANTED_TOKEN, PLANTED_CONFIGURED):
            assert planted.encode() not in data, f"{planted} in {place}"
    recorded = b"".join(data for place, data in places.items() if "/records/" in place)
    for word in (PROMPT, SYSTEM, ANSWER, THOUGHT, ARGUMENT):
        assert word.encode() in recorded, f"{word}: so the search above would have found it"
