"""Estimates approach what the upstream counts, and only prompts that surely exceed a window are refused."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from proxyd.codecs.anthropic.usage import Usage
from proxyd.telemetry.call_record import CallRecord
from proxyd.telemetry.token_calibration import FILE, Calibration
from tests.support.harness import chunk, running_proxy, running_upstream, sse
from tests.support.paths import TRANSCRIPTS

PAIRS = TRANSCRIPTS / "tokens"
NAMES = ("chinese", "code", "logs_and_languages")
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

    async def respond(request: web.Request) -> web.StreamResponse:
        count = tokens()
        if request.path.endswith("/v1/messages"):
            # A part of it was read from the cache; the three figures are disjoint.
            usage = {"input_tokens": count - 7, "cache_read_input_tokens": 7, "output_tokens": 1}
            return web.json_response({"type": "message", "usage": usage})
        usage = {"prompt_tokens": count, "completion_tokens": 1, "total_tokens": count + 1}
        body = sse(chunk({"content": "ok"}), chunk({}, "stop"), chunk(usage=usage))
        return web.Response(body=body, content_type="text/event-stream")

    return respond


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
async def test_count_is_within_5_percent_after_ten_calls(name: str, tokenizer: str, tmp_path: Path) -> None:
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
        # The fit survives a restart.
        async with (
            running_proxy([entry], state_folder=tmp_path) as proxy,
            aiohttp.ClientSession(proxy) as client,
        ):
            assert await count(client, calls[-1][0]) == pytest.approx(reported, rel=0.05)
    kept = json.loads((tmp_path / FILE).read_text())
    assert list(kept["models"]) == ["theirs"]
    assert (tmp_path / FILE).stat().st_size < 300


# -- windows

LONG = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "word " * 40_000}]}


@pytest.mark.parametrize("mode", [{"direct": True}, {}])
@pytest.mark.parametrize("key", ["max_input_tokens", "context"])
async def test_prompt_above_the_window_is_not_sent(mode: dict[str, Any], key: str) -> None:
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


async def test_refusal_reports_the_corrected_count() -> None:
    """The estimate is 50 004, the lower bound 40 001: that may fit a window of 41k, and not one of 37k."""
    async with running_upstream(counting(lambda: 42_000)) as upstream:
        at = {"api_base": upstream.base, "model_name": "theirs", "direct": True}
        entries = [
            {"model_id": "m", "context": "41k", **at},
            {"model_id": "small", "context": "37k", **at},
        ]
        async with running_proxy(entries) as proxy, aiohttp.ClientSession(proxy) as client:
            for _ in range(11):
                await ask(client, LONG)
            async with client.post("/v1/messages", json={**LONG, "model": "small"}) as response:
                error = (await response.json())["error"]
    found = re.fullmatch(r"prompt is too long: (\d+) tokens > 37000 maximum", error["message"])
    assert found is not None
    assert int(found[1]) == pytest.approx(42_000, rel=0.01)
    assert len(upstream.requests) == 11


ROWS = {row["kind"]: row for row in json.loads((PAIRS / "texts.json").read_text("utf-8"))}
SCHEMA = {"type": "object", "properties": {"path": {"type": "string"}}, "required": ["path"]}
TOOLS = [
    {
        "name": name,
        "description": f"{name}s a file of the project. The path is relative to the folder of the project.",
        "input_schema": SCHEMA,
    }
    for name in ("Read", "Write")
]
#: Tokens that a server's template adds to each prompt with tools, and that it needs for `TOOLS`.
TEMPLATE_TOKENS = 400


def long_prompt(kind: str, tokenizer: str, tokens: int = 3000) -> tuple[dict[str, Any], int]:
    """Return a request with about so many tokens of one kind of text, and how many its upstream counts."""
    row = ROWS[kind]
    times = tokens // row["tokens"][tokenizer]
    content = [{"type": "text", "text": row["text"]}] * times
    body = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": content}], "tools": TOOLS}
    return body, times * row["tokens"][tokenizer] + TEMPLATE_TOKENS


@pytest.mark.parametrize("tokenizer", ["qwen2.5", "deepseek", "o200k"])
@pytest.mark.parametrize("calls_before", [0, 12])
async def test_no_prompt_that_fits_is_refused(tokenizer: str, calls_before: int) -> None:
    """Whatever kind of text it holds, fresh or after small calls in which tools and template are nearly all."""
    reported = 12 + TEMPLATE_TOKENS
    async with running_upstream(counting(lambda: reported)) as upstream:
        entry = {"model_id": "m", "api_base": f"{upstream.base}/v1", "context": "4096"}
        async with running_proxy([entry]) as proxy, aiohttp.ClientSession(proxy) as client:
            for number in range(calls_before):
                question = [{"role": "user", "content": f"What is in file {number}, please?"}]
                await ask(client, {"model": "m", "max_tokens": 9, "messages": question, "tools": TOOLS})
            for kind in ROWS:
                body, reported = long_prompt(kind, tokenizer)
                assert reported < 4096
                await ask(client, body)


@pytest.mark.parametrize("kind", ["english prose", "python code", "chinese, technical", "markdown", "german"])
async def test_small_calls_do_not_inflate_long_ones(kind: str) -> None:
    reported = 12 + TEMPLATE_TOKENS
    async with running_upstream(counting(lambda: reported)) as upstream:
        entry = {"model_id": "m", "api_base": f"{upstream.base}/v1"}
        async with running_proxy([entry]) as proxy, aiohttp.ClientSession(proxy) as client:
            for number in range(12):
                question = [{"role": "user", "content": f"What is in file {number}, please?"}]
                await ask(client, {"model": "m", "max_tokens": 9, "messages": question, "tools": TOOLS})
            body, true_count = long_prompt(kind, "qwen2.5")
            assert 0.75 * true_count <= await count(client, body) <= 1.4 * true_count


async def test_long_prompt_uses_no_fallback() -> None:
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


# -- what is learned


def record(model: str, estimate: int | None, usage: Usage, outcome: str = "ok", tools: int = 0) -> CallRecord:
    return CallRecord(
        "r",
        upstream_model=model,
        estimated_input_tokens=estimate,
        estimated_tool_tokens=tools,
        usage=usage,
        outcome=outcome,
    )


def test_template_tools_and_text_are_learned_apart() -> None:
    """The vendor counts 250 + 1.5 x tools + 0.8 x text; calls with and without tools, short and long."""
    calibration = Calibration()
    for text, tools in [(50, 0), (400, 0), (90, 3000), (5000, 3000), (20, 900), (2500, 0)] * 4:
        reported = round(250 + 1.5 * tools + 0.8 * text)
        calibration.observe(record("m", text + tools, Usage(input_tokens=reported), tools=tools))
    for text, tools in [(100_000, 0), (10, 12_000), (30_000, 3000)]:
        reported = 250 + 1.5 * tools + 0.8 * text
        assert calibration.corrected("m", text + tools, tools) == pytest.approx(reported, rel=0.02)


@given(
    calls=st.lists(st.tuples(st.integers(1, 10**7), st.floats(0, 1), st.integers(1, 10**7)), max_size=20),
    estimate=st.integers(1, 10**7),
    share=st.floats(0, 1),
)
def test_corrected_stays_in_bounds(calls: list[tuple[int, float, int]], estimate: int, share: float) -> None:
    calibration = Calibration()
    for estimated, tools, reported in calls:
        usage = Usage(input_tokens=reported)
        calibration.observe(record("m", estimated, usage, tools=int(estimated * tools)))
    corrected = calibration.corrected("m", estimate, int(estimate * share))
    assert estimate / 4 - 1 <= corrected <= 4 * estimate + 2000


@pytest.mark.parametrize(
    "useless",
    [
        record("m", None, Usage(input_tokens=2000)),
        record("m", 1000, Usage(input_tokens=2000, is_estimated=True)),
        record("m", 1000, Usage(input_tokens=2000), "client_gone"),
        record("m", 1000, Usage()),
        record("m", 1000, Usage(input_tokens=90_000)),
        record("m", 200, Usage(input_tokens=20)),
    ],
)
def test_nothing_is_learned_from_useless_calls(useless: CallRecord) -> None:
    calibration = Calibration()
    calibration.observe(useless)
    assert calibration.corrected("m", 1000) == 1000


def test_models_are_separate_and_the_oldest_is_dropped() -> None:
    calibration = Calibration()
    for number in range(250):
        calibration.observe(record(f"m{number}", 1000, Usage(input_tokens=1000 + number)))
    assert calibration.corrected("m249", 1000) == pytest.approx(1249, rel=0.01)
    assert calibration.corrected("m49", 1000) == 1000


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '{"models": 3}',
        '{"models": {"m": [1, 0, 1]}}',
        '{"models": {"m": ["a", 1, 1, 1, 1, 1, 1, 1, 1]}}',
        '{"models": {"m": [true, 1, 1, 1, 1, 1, 1, 1, 1]}}',
        '{"models": {"m": [1, 100, 100, 1, 100, 1, 1, 1, 1]}}',
        '{"models": {"m": [0, 0, 0, 0, 0, 0, 1e11, 1e11, 1e11]}}',
    ],
)
def test_damaged_file_is_ignored(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE).write_text(text)
    assert Calibration(tmp_path / FILE).corrected("m", 1000) == 1000
