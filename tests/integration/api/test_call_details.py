"""The details of a finished call: what is shown, and what never is."""

from __future__ import annotations

import json
from pathlib import Path

import aiohttp
import pytest

from proxyd.api.call_details import CallDetails
from proxyd.daemon.server import Daemon
from proxyd.telemetry.call_trace import CallTrace
from proxyd.telemetry.finished_call import FinishedCall
from tests.support.harness import load_entries
from tests.support.raw_sockets import RawClient, RawUpstream, post, until
from tests.support.recording import GOOD, records, whole
from tests.support.streams import HELLO

KEY = "sk-planted-0123456789abcdef"
PROMPT = "a prompt that stays private"
REFUSAL = whole("429 Too Many Requests", b'{"error": {"message": "too fast"}}')


@pytest.mark.parametrize("has_bodies", [False, True])
async def test_a_recorded_call_shows_its_attempts_without_secrets(tmp_path: Path, has_bodies: bool) -> None:
    upstream = RawUpstream(lambda number: GOOD["translated"] if number else REFUSAL)
    async with upstream.running():
        entry = {"model_id": "m", "api_base": f"{upstream.base}/v1", "api_key": KEY}
        daemon = Daemon(load_entries([entry], max_retries=1, record_bodies=has_bodies), state_folder=tmp_path)
        await daemon.start()
        base = f"http://127.0.0.1:{daemon.addresses[0][1]}"
        try:
            async with RawClient.to(base) as client:
                message = {"role": "user", "content": PROMPT}
                # A translated route has no place for top_k: the call says that it was dropped.
                await client.send(post({**HELLO, "messages": [message], "top_k": 5}))
                answer = await client.response(30)
            request_id = answer.headers["request-id"]
            await until(lambda: len(records(tmp_path)) == 1, 30)
            async with (
                aiohttp.ClientSession() as session,
                session.get(f"{base}/v1/calls/{request_id}") as response,
            ):
                text = await response.text()
        finally:
            await daemon.drain()
            await daemon.close()
    assert KEY not in text
    assert PROMPT not in text
    found = json.loads(text)
    assert found["replay"] == (f"claude-proxy replay {request_id}" if has_bodies else None)
    first, second = found["record"]["attempts"]
    assert first["request"]["url"] == f"{upstream.base}/v1/chat/completions"
    assert first["request"]["headers"]["authorization"] == "Bearer ***"
    assert (first["response"]["status"], second["response"]["status"]) == (429, 200)
    assert found["record"]["client"]["path"] == "/v1/messages"
    assert found["altered"]
    assert {"field", "what", "why"} == found["altered"][0].keys()


@pytest.mark.parametrize("mode", ["translated", "direct"])
async def test_a_call_that_is_not_recorded_shows_its_attempt_without_secrets(
    tmp_path: Path, mode: str
) -> None:
    """The client's key is masked wherever it stands, although it is forgotten by the time of the question."""
    client_key = "a-key-of-an-odd-form-123"
    upstream = RawUpstream(lambda _: GOOD[mode])
    async with upstream.running():
        entry = {"model_id": "m", "api_base": f"{upstream.base}/v1", "direct": mode == "direct"}
        daemon = Daemon(load_entries([entry]), state_folder=tmp_path)
        await daemon.start()
        base = f"http://127.0.0.1:{daemon.addresses[0][1]}"
        try:
            async with RawClient.to(base) as client:
                message = {"role": "user", "content": PROMPT}
                headers = (f"X-Api-Key: {client_key}", f"User-Agent: curl {client_key}", "X-Odd: private")
                await client.send(post({**HELLO, "messages": [message]}, *headers))
                answer = await client.response(30)
            async with (
                aiohttp.ClientSession() as session,
                session.get(f"{base}/v1/calls/{answer.headers['request-id']}") as response,
            ):
                text = await response.text()
        finally:
            await daemon.drain()
            await daemon.close()
    assert records(tmp_path) == [], "it did not fail"
    assert client_key not in text
    assert PROMPT not in text
    assert "private" not in text
    record = json.loads(text)["record"]
    assert json.loads(text)["problem"] is None
    (attempt,) = record["attempts"]
    path = "/v1/messages" if mode == "direct" else "/v1/chat/completions"
    assert attempt["request"]["url"] == upstream.base + path
    assert attempt["response"]["status"] == 200
    assert attempt["response"]["body_bytes"] > 100
    assert record["client"]["headers"]["x-api-key"] == "***"
    assert record["client"]["headers"]["user-agent"].startswith("curl ")
    assert record["call"]["facts"]["outcome"] == "ok"


def test_only_the_last_calls_are_remembered() -> None:
    details = CallDetails(None, lambda: "failures")
    for number in range(300):
        details.observe(FinishedCall(f"req_{number}", model="m", route="m", outline=CallTrace()))
    known = [number for number in range(300) if (details.find(f"req_{number}") or {})["record"] is not None]
    assert known == list(range(100, 300))


def test_an_outline_that_is_too_large_is_not_kept() -> None:
    details, outline = CallDetails(None, lambda: "failures"), CallTrace()
    outline.head = "POST", "/v1/messages", {"user-agent": "x" * 100_000}
    details.observe(FinishedCall("req_1", model="m", route="m", outline=outline))
    found = details.find("req_1")
    assert found is not None
    assert found["record"] is None


async def test_a_call_without_a_record_says_how_to_get_one(tmp_path: Path) -> None:
    daemon = Daemon(load_entries([{"model_id": "m", "api_base": "builtin:demo"}]), state_folder=tmp_path)
    await daemon.start()
    base = f"http://127.0.0.1:{daemon.addresses[0][1]}"
    try:
        async with aiohttp.ClientSession(base) as session:
            async with session.get("/v1/calls/req_unknown") as response:
                found = await response.json()
            for wrong in ("..", "usage.db", "req_" + "x" * 100, "%2e%2e%2fusage"):
                async with session.get(f"/v1/calls/{wrong}") as response:
                    assert response.status == 404
    finally:
        await daemon.drain()
        await daemon.close()
    assert found["record"] is None
    assert "set 'record: all'" in found["problem"]
