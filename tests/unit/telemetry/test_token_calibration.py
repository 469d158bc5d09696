"""Estimates come close to what the upstream counts once it has counted ten times, and windows are kept to."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from proxyd.codecs.anthropic.usage import Usage
from proxyd.telemetry.call_record import CallRecord
from proxyd.telemetry.token_calibration import FILE, Calibration
from tests.support.harness import chunk, running_proxy, running_upstream, sse
from tests.support.paths import TRANSCRIPTS

PAIRS = TRANSCRIPTS / "tokens"
NAMES = sorted(path.stem for path in PAIRS.glob("*.json"))
TOKENIZERS = ("deepseek", "o200k", "qwen")


def pairs(name: str, tokenizer: str) -> list[tuple[dict[str, Any], int]]:
    """Each request of a growing conversation, and what `tokenizer` counts in it."""
    recorded = json.loads((PAIRS / f"{name}.json").read_text("utf-8"))
    request, counts = recorded["request"], recorded["input_tokens"][tokenizer]
    ends = [end + 1 for end, message in enumerate(request["messages"]) if message["role"] == "user"]
    return [
        ({**request, "model": "m", "max_tokens": 99, "messages": request["messages"][:end]}, count)
        for end, count in zip(ends, counts, strict=True)
    ]


def counting(tokens: Callable[[], int]) -> Callable[[web.Request], Any]:
    """An upstream that reports `tokens` as the input, in either dialect."""

    async def answer(request: web.Request) -> web.StreamResponse:
        count = tokens()
        if request.path.endswith("/v1/messages"):
            # A part of it was read from the cache; the three figures are disjoint.
            usage = {"input_tokens": count - 7, "cache_read_input_tokens": 7, "output_tokens": 1}
            return web.json_response({"type": "message", "usage": usage})
        usage = {"prompt_tokens": count, "completion_tokens": 1, "total_tokens": count + 1}
        body = sse(chunk({"content": "ok"}), chunk({}, "stop"), chunk(usage=usage))
        return web.Response(body=body, content_type="text/event-stream")

    return answer


async def ask(client: aiohttp.ClientSession, body: dict[str, Any]) -> dict[str, Any]:
    async with client.post("/v1/messages", json=body, headers={"x-api-key": "k"}) as response:
        assert response.status == 200, await response.text()
        found: dict[str, Any] = await response.json()
        return found


async def count(client: aiohttp.ClientSession, body: dict[str, Any]) -> int:
    payload = {name: value for name, value in body.items() if name != "max_tokens"}
    async with client.post("/v1/messages/count_tokens", json=payload) as response:
        assert response.status == 200, await response.text()
        return int((await response.json())["input_tokens"])


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
@pytest.mark.parametrize("name", NAMES)
async def test_estimate_is_within_5_percent_after_ten_calls(
    name: str, tokenizer: str, tmp_path: Path
) -> None:
    """Ten, and each one after them, asked through the front door."""
    calls = pairs(name, tokenizer)
    reported = 0
    async with running_upstream(counting(lambda: reported)) as upstream:
        entry = {"model_id": "m", "model_name": "theirs", "api_base": f"{upstream.base}/v1"}
        async with (
            running_proxy([entry], state_folder=tmp_path) as proxy,
            aiohttp.ClientSession(proxy) as client,
        ):
            for number, (body, reported) in enumerate(calls):
                if number >= 10:
                    assert await count(client, body) == pytest.approx(reported, rel=0.05)
                await ask(client, body)
        # What was learnt survives a restart.
        async with (
            running_proxy([entry], state_folder=tmp_path) as proxy,
            aiohttp.ClientSession(proxy) as client,
        ):
            assert await count(client, calls[-1][0]) == pytest.approx(reported, rel=0.05)
    kept = json.loads((tmp_path / FILE).read_text())
    assert list(kept["models"]) == ["theirs"]
    assert (tmp_path / FILE).stat().st_size < 100


# -- windows

LONG = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "word " * 40_000}]}


@pytest.mark.parametrize("mode", [{"direct": True}, {}])
@pytest.mark.parametrize("key", ["max_input_tokens", "context"])
async def test_surely_too_long_prompt_is_not_sent(mode: dict[str, Any], key: str) -> None:
    async with running_upstream(counting(lambda: 1)) as upstream:
        entry = {"model_id": "m", "api_base": upstream.base, key: "32k", **mode}
        async with running_proxy([entry]) as proxy, aiohttp.ClientSession(proxy) as client:
            async with client.post("/v1/messages", json=LONG) as response:
                assert response.status == 400
                error = (await response.json())["error"]
    assert error == {
        "type": "invalid_request_error",
        "message": "prompt is too long: 50004 tokens > 32000 maximum",
    }
    assert upstream.requests == []


async def test_prompt_that_may_fit_is_sent_until_the_window_is_learned() -> None:
    """The estimate says 50 004, the upstream 40 000: then it fits a window of 41k, and surely not one of 37k."""
    async with running_upstream(counting(lambda: 40_000)) as upstream:
        at = {"api_base": upstream.base, "model_name": "theirs", "direct": True}
        entries = [
            {"model_id": "m", "context": "41k", **at},
            {"model_id": "small", "context": "37k", **at},
        ]
        async with running_proxy(entries) as proxy, aiohttp.ClientSession(proxy) as client:
            for _ in range(10):
                await ask(client, LONG)
            await ask(client, LONG)
            async with client.post("/v1/messages", json={**LONG, "model": "small"}) as response:
                error = (await response.json())["error"]
    assert error["message"] == "prompt is too long: 40000 tokens > 37000 maximum"
    assert len(upstream.requests) == 11


async def test_too_long_prompt_does_not_fall_back() -> None:
    """Another entry's window would hide from Claude Code that it is time to compact."""
    async with running_upstream(counting(lambda: 1)) as upstream:
        entries = [
            {"model_id": "m", "api_base": upstream.base, "direct": True, "context": "8k", "fallback": ["n"]},
            {"model_id": "n", "api_base": upstream.base, "direct": True},
        ]
        async with running_proxy(entries) as proxy, aiohttp.ClientSession(proxy) as client:
            async with client.post("/v1/messages", json=LONG) as response:
                assert response.status == 400
    assert upstream.requests == []


# -- what is learnt, and what is not


def record(model: str, estimate: int | None, usage: Usage, outcome: str = "ok") -> CallRecord:
    return CallRecord(
        "r", upstream_model=model, estimated_input_tokens=estimate, usage=usage, outcome=outcome
    )


@pytest.mark.parametrize(
    "useless",
    [
        record("m", None, Usage(input_tokens=2000)),
        record("m", 1000, Usage(input_tokens=2000, is_estimated=True)),
        record("m", 1000, Usage(input_tokens=2000), "client_gone"),
        record("m", 1000, Usage()),
        record("m", 1000, Usage(input_tokens=90_000)),
        record("m", 20, Usage(input_tokens=40)),
    ],
)
def test_unsuitable_calls_are_ignored(useless: CallRecord) -> None:
    calibration = Calibration()
    calibration.observe(useless)
    assert calibration.corrected("m", 1000) == 1000


def test_models_are_independent_and_the_oldest_is_evicted() -> None:
    calibration = Calibration()
    for number in range(250):
        calibration.observe(record(f"m{number}", 1000, Usage(input_tokens=1000 + number)))
    assert calibration.corrected("m249", 1000) == 1249
    assert calibration.corrected("m49", 1000) == 1000


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"models": 3}', '{"models": {"m": [1, 0, 1]}}', '{"models": {"m": ["a", 1, 1]}}',
             '{"models": {"m": [900, 1, 1]}}', '{"models": {"m": [1, 1]}}', '{"models": {"m": [true, 1, 1]}}'],
)  # fmt: skip
def test_damaged_file_is_ignored(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE).write_text(text)
    assert Calibration(tmp_path / FILE).corrected("m", 1000) == 1000
