"""The ledger's numbers are the upstream's: both modes, each dialect of usage, streamed or not, broken off or not."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from tests.support.command_line import daemon
from tests.support.harness import chunk, running_proxy, running_upstream, sse
from tests.support.observing import SESSION, ask, rows, until_rows


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxyd.telemetry.ledger._BATCH_S", 0.005)


#: What upstreams report -> input, cache read, cache write, output, reasoning.
DIALECTS: dict[str, tuple[dict[str, Any], tuple[int, int, int, int, int | None]]] = {
    "plain": ({"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120}, (100, 0, 0, 20, None)),
    "openai": (
        {
            "prompt_tokens": 1000,
            "completion_tokens": 50,
            "total_tokens": 1050,
            "prompt_tokens_details": {"cached_tokens": 600},
            "completion_tokens_details": {"reasoning_tokens": 30},
        },
        (400, 600, 0, 50, 30),
    ),
    "deepseek": (
        {
            "prompt_tokens": 90,
            "completion_tokens": 5,
            "prompt_cache_hit_tokens": 64,
            "prompt_cache_miss_tokens": 26,
        },
        (26, 64, 0, 5, None),
    ),
    "kimi": ({"prompt_tokens": 70, "completion_tokens": 7, "cached_tokens": 50}, (20, 50, 0, 7, None)),
    "xai": (
        {
            "prompt_tokens": 10,
            "completion_tokens": 5,
            "total_tokens": 22,
            "completion_tokens_details": {"reasoning_tokens": 7},
        },
        (10, 0, 0, 12, 7),
    ),
    "writes": (
        {
            "prompt_tokens": 100,
            "completion_tokens": 5,
            "prompt_tokens_details": {"cached_tokens": 30, "cache_write_tokens": 50},
        },
        (20, 30, 50, 5, None),
    ),
}


def numbers(row: dict[str, Any]) -> tuple[Any, ...]:
    names = ("input_tokens", "cache_read_tokens", "cache_write_tokens", "output_tokens", "reasoning_tokens")
    return tuple(row[name] for name in names)


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("dialect", DIALECTS)
async def test_translated(tmp_path: Path, dialect: str, stream: bool) -> None:
    usage, expected = DIALECTS[dialect]

    async def respond(request: web.Request) -> web.StreamResponse:
        body = sse(chunk({"content": "Hello"}), chunk({}, "stop"), chunk(usage=usage))
        return web.Response(body=body, content_type="text/event-stream")

    async with running_upstream(respond) as upstream:
        entry = {"model_id": "m", "api_base": upstream.base + "/v1"}
        async with running_proxy([entry], state_folder=tmp_path) as base, aiohttp.ClientSession() as session:
            body = await ask(session, base, stream=stream, headers={"X-Claude-Code-Session-Id": SESSION})
            (row,) = await until_rows(tmp_path, 1)
    assert numbers(row) == expected
    assert (row["is_estimated"], row["is_stream"], row["session_id"]) == (0, int(stream), SESSION)
    assert (row["outcome"], row["stop_reason"], row["mode"]) == ("ok", "end_turn", "translated")
    if not stream:  # the client got the same
        shown = json.loads(body)["usage"]
        assert shown["input_tokens"] == expected[0]
        assert shown["cache_read_input_tokens"] == expected[1]
        assert shown["output_tokens"] == expected[3]


ANTHROPIC_USAGE = {
    "input_tokens": 40,
    "cache_creation_input_tokens": 7,
    "cache_read_input_tokens": 500,
    "output_tokens": 1,
}


def anthropic_event(kind: str, **fields: Any) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **fields})}\n\n".encode()


START = anthropic_event(
    "message_start",
    message={"id": "msg_1", "type": "message", "role": "assistant", "content": [], "usage": ANTHROPIC_USAGE},
) + anthropic_event("content_block_start", index=0, content_block={"type": "text", "text": ""})
DELTA = anthropic_event(
    "content_block_delta", index=0, delta={"type": "text_delta", "text": "eight characters, ten times." * 4}
)
END = (
    anthropic_event("content_block_stop", index=0)
    + anthropic_event("message_delta", delta={"stop_reason": "end_turn"}, usage={"output_tokens": 33})
    + anthropic_event("message_stop")
)


@pytest.mark.parametrize("stream", [True, False])
async def test_direct(tmp_path: Path, stream: bool) -> None:
    async def respond(request: web.Request) -> web.StreamResponse:
        if stream:
            return web.Response(body=START + DELTA + END, content_type="text/event-stream")
        usage = {**ANTHROPIC_USAGE, "output_tokens": 33}
        message = {"id": "msg_1", "type": "message", "content": [], "stop_reason": "end_turn", "usage": usage}
        return web.json_response(message)

    async with running_upstream(respond) as upstream:
        entry = {"model_id": "m", "api_base": upstream.base, "direct": True}
        async with running_proxy([entry], state_folder=tmp_path) as base, aiohttp.ClientSession() as session:
            await ask(session, base, stream=stream, headers={"x-api-key": "sk-test-12345678"})
            (row,) = await until_rows(tmp_path, 1)
    assert numbers(row) == (40, 500, 7, 33, None)
    assert (row["is_estimated"], row["mode"], row["outcome"]) == (0, "direct", "ok")


@pytest.mark.parametrize("direct", [True, False])
async def test_usage_of_a_client_that_leaves_is_estimated(tmp_path: Path, direct: bool) -> None:
    is_over = asyncio.Event()

    async def respond(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        chunks = [START, *[DELTA] * 5] if direct else [sse(chunk({"content": "x" * 400}), done=False)]
        for piece in chunks:
            await response.write(piece)
        try:
            await asyncio.sleep(30)
        finally:
            is_over.set()
        return response

    async with running_upstream(respond) as upstream:
        entry = {"model_id": "m", "api_base": upstream.base + ("" if direct else "/v1"), "direct": direct}
        async with running_proxy([entry], state_folder=tmp_path) as base:
            async with aiohttp.ClientSession(headers={"x-api-key": "sk-test-12345678"}) as session:
                body = {"model": "m", "max_tokens": 5, "messages": [{"role": "user", "content": "h" * 400}]}
                async with session.post(f"{base}/v1/messages", json={**body, "stream": True}) as response:
                    await response.content.readuntil(b'_delta"')
            (row,) = await until_rows(tmp_path, 1)
            await asyncio.wait_for(is_over.wait(), 30)
    assert (row["outcome"], row["is_estimated"]) == ("client_gone", 1)
    assert 60 <= row["output_tokens"] <= 220
    if direct:
        assert (row["input_tokens"], row["cache_read_tokens"]) == (40, 500)
    else:
        assert 100 <= row["input_tokens"] <= 130


async def test_usage_of_a_broken_stream_is_estimated(tmp_path: Path) -> None:
    async def respond(request: web.Request) -> web.StreamResponse:
        body = sse(chunk({"content": "y" * 200}), done=False)
        return web.Response(body=body, content_type="text/event-stream")

    async with running_upstream(respond) as upstream:
        entry = {"model_id": "m", "api_base": upstream.base + "/v1"}
        async with running_proxy([entry], state_folder=tmp_path) as base, aiohttp.ClientSession() as session:
            await ask(session, base, stream=True)
            (row,) = await until_rows(tmp_path, 1)
    assert (row["outcome"], row["error_type"], row["is_estimated"]) == ("failed", "api_error", 1)
    assert row["output_tokens"] == 50


async def test_refusals_cost_nothing_and_name_the_route(tmp_path: Path) -> None:
    async def respond(request: web.Request) -> web.StreamResponse:
        if (await request.json())["model"] == "full":
            return web.json_response({"error": {"message": "no credit"}}, status=402)
        return web.Response(
            body=sse(
                chunk({"content": "x"}, "stop"), chunk(usage={"prompt_tokens": 5, "completion_tokens": 1})
            ),
            content_type="text/event-stream",
        )

    async with running_upstream(respond) as upstream:
        base_url = upstream.base + "/v1"
        entries = [
            {"model_id": "m", "model_name": "full", "api_base": base_url, "fallback": ["second"]},
            {"model_id": "alone", "model_name": "full", "api_base": base_url},
            {"model_id": "second", "api_base": base_url, "pricing": {"input": 1, "output": 1}},
        ]
        async with running_proxy(entries, state_folder=tmp_path) as base, aiohttp.ClientSession() as session:
            await ask(session, base)
            await ask(session, base, model="alone")
            served, refused = await until_rows(tmp_path, 2)
    assert (served["route"], served["fallback_from"], served["outcome"]) == ("second", "m", "ok")
    assert served["cost_usd"] == pytest.approx(6e-6)
    assert (refused["status"], refused["outcome"], refused["error_type"]) == (402, "refused", "billing_error")
    assert numbers(refused) == (0, 0, 0, 0, None)


async def test_shed_requests_are_counted(tmp_path: Path) -> None:
    async def respond(request: web.Request) -> web.StreamResponse:
        raise AssertionError("nothing should come here")

    async with running_upstream(respond) as upstream:
        entry = {"model_id": "m", "api_base": upstream.base + "/v1"}
        async with (
            running_proxy([entry], state_folder=tmp_path, max_streams=1) as base,
            aiohttp.ClientSession() as session,
        ):
            await ask(session, base, messages=[])  # never becomes a call
            assert rows(tmp_path) == []


async def test_kill_loses_at_most_a_second(tmp_path: Path) -> None:
    """kill -9 amid traffic: all calls that ended a second before are there, and the file is whole."""
    models = tmp_path / "models.yaml"
    models.write_text("- {model_id: m, api_base: 'builtin:demo'}\n")
    loop = asyncio.get_running_loop()
    with daemon(tmp_path, "--models", str(models)) as (process, base):
        ended: list[float] = []

        async def talk(session: aiohttp.ClientSession) -> None:
            while True:
                await ask(session, base, max_tokens=2)
                ended.append(loop.time())

        async with aiohttp.ClientSession() as session:
            talkers = [asyncio.create_task(talk(session)) for _ in range(3)]

            async def until_some() -> None:
                while not ended or ended[-1] - ended[0] < 1.5:
                    await asyncio.sleep(0.01)

            await asyncio.wait_for(until_some(), 30)
            process.send_signal(signal.SIGKILL)
            killed = loop.time()
            await asyncio.wait(talkers, timeout=120)
            for talker in talkers:
                assert isinstance(talker.exception(), aiohttp.ClientError)
        process.wait(10)
    folder = tmp_path / ".local" / "state" / "claude-proxy"
    assert rows(folder, "PRAGMA integrity_check") == [{"integrity_check": "ok"}]
    kept = len(rows(folder))
    assert sum(when < killed - 1 for when in ended) <= kept <= len(ended) + 3
    (total,) = rows(folder, "SELECT sum(calls) AS calls FROM totals")
    assert total["calls"] == kept
