"""Translated calls through the daemon: learned quirks, windows, and calls that need no upstream."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from click.testing import CliRunner

from proxyd.cli.commands.check import check_command
from tests.support.harness import Upstream, running_proxy, running_upstream, text_stream
from tests.support.sse_reader import message_of

HELLO: dict[str, Any] = {
    "model": "m",
    "max_tokens": 5000,
    "temperature": 0.5,
    "messages": [{"role": "user", "content": "hi"}],
}


def refused(message: str, *, param: str | None = None, status: int = 400) -> web.Response:
    error = {"message": message, "type": "invalid_request_error", "param": param, "code": None}
    return web.json_response({"error": error}, status=status)


def unsupported(name: str) -> web.Response:
    return refused(f"Unsupported parameter: '{name}' is not supported with this model.", param=name)


async def strict(request: web.Request) -> web.StreamResponse:
    """An upstream that accepts neither max_tokens nor temperature, and at most 4096 tokens of output."""
    body = json.loads(await request.read())
    for name in ("max_tokens", "temperature"):
        if name in body:
            return unsupported(name)
    if body["max_completion_tokens"] > 4096:
        return refused(
            "max_completion_tokens is too large: 5000. This model supports at most 4096 completion tokens.",
            param="max_completion_tokens",
        )
    if body["stream"]:
        return web.Response(body=text_stream("Hi."), content_type="text/event-stream")
    choice = {"index": 0, "message": {"role": "assistant", "content": "Hi."}, "finish_reason": "stop"}
    return web.json_response({"object": "chat.completion", "choices": [choice]})


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


async def ask(session: aiohttp.ClientSession, proxy: str, **fields: Any) -> tuple[int, dict[str, Any]]:
    """Status and message, or status and body of an error."""
    payload = {**HELLO, **fields}
    async with session.post(f"{proxy}/v1/messages", json=payload) as response:
        data = await response.read()
        if response.content_type == "text/event-stream":
            return response.status, message_of(data)
        return response.status, json.loads(data)


def entry(upstream: Upstream, **keys: Any) -> dict[str, Any]:
    return {"model_id": "m", "api_base": upstream.base, **keys}


@pytest.mark.parametrize("stream", [True, False])
async def test_quirk_is_learned_from_a_refusal(
    session: aiohttp.ClientSession, stream: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    async with running_upstream(strict) as upstream, running_proxy([entry(upstream)]) as proxy:
        status, message = await ask(session, proxy, stream=stream)
        assert (status, message["content"][0]["text"]) == (200, "Hi.")
        sent = [
            {*body} & {"max_tokens", "max_completion_tokens", "temperature"} for body in upstream.requests
        ]
        assert sent == [
            {"max_tokens", "temperature"},
            {"max_completion_tokens", "temperature"},
            {"max_completion_tokens"},
            {"max_completion_tokens"},
        ]
        assert upstream.requests[-1]["max_completion_tokens"] == 4096
        upstream.requests.clear()
        status, _ = await ask(session, proxy, stream=stream)
        assert status == 200
        assert len(upstream.requests) == 1, "the learned quirk holds for the next call"
    log = capsys.readouterr().out
    for line in (
        "quirks: {max_tokens_field: max_completion_tokens}",
        "quirks: {sampling: []}",
        "max_tokens: 4096",
    ):
        assert log.count(line) >= 1, line


async def test_quirk_that_does_not_help_is_not_kept(session: aiohttp.ClientSession) -> None:
    async def never(request: web.Request) -> web.StreamResponse:
        return unsupported("temperature")

    async with running_upstream(never) as upstream, running_proxy([entry(upstream)]) as proxy:
        for _ in range(2):
            status, body = await ask(session, proxy)
            assert status == 400
            assert "temperature" in body["error"]["message"]
        assert ["temperature" in body for body in upstream.requests] == [True, False, True, False]


async def test_quirk_set_in_the_entry_is_not_learned(session: aiohttp.ClientSession) -> None:
    async def never(request: web.Request) -> web.StreamResponse:
        return unsupported("temperature")

    settled = {"sampling": ["temperature"]}
    async with running_upstream(never) as upstream, running_proxy([entry(upstream, quirks=settled)]) as proxy:
        status, _ = await ask(session, proxy)
        assert (status, len(upstream.requests)) == (400, 1)


async def test_quirks_are_learned_per_route(session: aiohttp.ClientSession) -> None:
    async with running_upstream(strict) as upstream:
        entries = [entry(upstream), {**entry(upstream), "model_id": "other"}]
        async with running_proxy(entries) as proxy:
            await ask(session, proxy)
            upstream.requests.clear()
            await ask(session, proxy, model="other")
            assert len(upstream.requests) == 4


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    "words",
    [
        "Could not finish the message because max_tokens or model output limit was reached. Please try again with "
        "higher max_tokens.",
        "Invalid 'max_output_tokens': integer below minimum value. Expected a value >= 16, but got 1 instead.",
    ],
)
async def test_probe_of_one_token_succeeds_where_the_upstream_refuses_so_few(
    session: aiohttp.ClientSession, words: str, stream: bool
) -> None:
    async def no(request: web.Request) -> web.StreamResponse:
        return refused(words)

    async with running_upstream(no) as upstream, running_proxy([entry(upstream)]) as proxy:
        status, message = await ask(session, proxy, max_tokens=1, stream=stream)
        assert (status, message["content"], message["stop_reason"]) == (200, [], "max_tokens")
        assert len(upstream.requests) == 1
        status, body = await ask(session, proxy, max_tokens=5000, stream=stream)
        assert (status, words in body["error"]["message"]) == (400, True)


async def test_other_refusals_are_not_retried(session: aiohttp.ClientSession) -> None:
    async def no(request: web.Request) -> web.StreamResponse:
        return refused("messages[3] makes no sense")

    async with running_upstream(no) as upstream, running_proxy([entry(upstream)]) as proxy:
        status, body = await ask(session, proxy, stream=True)
        assert (status, body["error"]["message"]) == (400, "messages[3] makes no sense")
        assert len(upstream.requests) == 1


TOOLS: list[dict[str, Any]] = [
    {
        "name": "Read",
        "input_schema": {"type": "object", "properties": {"a": {"type": "string", "maxLength": 9}}},
    },
    {"name": "Edit", "input_schema": {"type": "object"}},
]


async def test_a_refusal_without_a_reason_is_answered_by_simpler_schemas(
    session: aiohttp.ClientSession, capsys: pytest.CaptureFixture[str]
) -> None:
    async def vague(request: web.Request) -> web.StreamResponse:
        if "maxLength" in await request.text():
            return refused("Invalid arguments passed to the model.")
        return await strict_stream(request)

    async with running_upstream(vague) as upstream, running_proxy([entry(upstream)]) as proxy:
        for calls in (2, 1):
            upstream.requests.clear()
            status, _ = await ask(session, proxy, tools=TOOLS, stream=True)
            assert (status, len(upstream.requests)) == (200, calls)
            assert [tool["function"]["name"] for tool in upstream.requests[-1]["tools"]] == ["Read", "Edit"]
            assert upstream.requests[-1]["temperature"] == 0.5
        upstream.requests.clear()
        assert (await ask(session, proxy, stream=True))[0] == 200
        assert len(upstream.requests) == 1
    assert capsys.readouterr().out.count("quirks: {schema_style: common}") == 2  # the retry and the lesson


async def strict_stream(request: web.Request) -> web.StreamResponse:
    return web.Response(body=text_stream("Hi."), content_type="text/event-stream")


async def test_what_was_learned_survives_a_restart(session: aiohttp.ClientSession, tmp_path: Path) -> None:
    async with running_upstream(strict) as upstream:
        for calls in (4, 1):
            upstream.requests.clear()
            async with running_proxy([entry(upstream)], state_folder=tmp_path) as proxy:
                assert (await ask(session, proxy))[0] == 200
                assert len(upstream.requests) == calls
                while not (tmp_path / "learned.json").exists():  # a thread writes it
                    await asyncio.sleep(0.01)
        models = tmp_path / "models.yaml"
        models.write_text(json.dumps([entry(upstream)]), encoding="utf-8")
    models.chmod(0o600)
    shown = CliRunner(env={"STATE_DIRECTORY": str(tmp_path)}).invoke(check_command, ["--models", str(models)])
    assert "quirks: {max_tokens_field: max_completion_tokens}" in shown.output
    assert "no tools, no thinking" in shown.output


async def test_a_vendor_that_refuses_everything_is_asked_four_times(session: aiohttp.ClientSession) -> None:
    async def no(request: web.Request) -> web.StreamResponse:
        return refused("Provider returned error")

    fields: dict[str, Any] = {
        "tools": TOOLS,
        "tool_choice": {"type": "any"},
        "thinking": {"type": "enabled", "budget_tokens": 1024},
        "stream": True,
    }
    async with running_upstream(no) as upstream, running_proxy([entry(upstream)]) as proxy:
        for _ in range(2):  # nothing was learned
            upstream.requests.clear()
            status, body = await ask(session, proxy, **fields)
            assert (status, body["error"]["message"]) == (400, "Provider returned error")
            assert 2 <= len(upstream.requests) <= 4
            assert upstream.requests[0]["tool_choice"] == "required"
            for sent in upstream.requests:
                assert len(sent["tools"]) == 2
                assert sent["messages"][-1]["content"] == "hi"


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (401, "Invalid API key"),
        (400, "Your credit balance is too low"),
        (400, "Content Exists Risk"),
        (400, "This model's maximum context length is 8192 tokens, however you requested 9000 tokens"),
    ],
)
async def test_final_refusals_are_not_simplified(
    session: aiohttp.ClientSession, status: int, message: str
) -> None:
    async def no(request: web.Request) -> web.StreamResponse:
        return refused(message, status=status)

    async with running_upstream(no) as upstream, running_proxy([entry(upstream)]) as proxy:
        await ask(session, proxy, tools=TOOLS, stream=True)
        assert len(upstream.requests) == 1


async def test_a_refusal_that_quotes_the_prompt_teaches_nothing_of_it(
    session: aiohttp.ClientSession, capsys: pytest.CaptureFixture[str]
) -> None:
    prompt = "Unsupported: set reasoning_effort to 'low', the planted prompt"

    async def quoting(request: web.Request) -> web.StreamResponse:
        return refused(f"Cannot be parsed: {prompt}")

    async with running_upstream(quoting) as upstream, running_proxy([entry(upstream)]) as proxy:
        messages = [{"role": "user", "content": prompt}]
        status, _ = await ask(session, proxy, messages=messages, temperature=None, stream=True)
        assert status == 400
        assert len(upstream.requests) == 1
    log = capsys.readouterr().out
    assert "route.learned" not in log
    assert "planted" not in log


async def test_a_refusal_of_five_megabytes(session: aiohttp.ClientSession) -> None:
    async def long(request: web.Request) -> web.StreamResponse:
        return refused("Invalid arguments. " * 270_000)

    async with running_upstream(long) as upstream, running_proxy([entry(upstream)]) as proxy:
        status, body = await ask(session, proxy, tools=TOOLS, stream=True)
        assert status == 400
        assert len(body["error"]["message"]) < 100_000
        assert len(upstream.requests) <= 4


async def test_calls_with_and_without_tools_learn_apart(session: aiohttp.ClientSession) -> None:
    async def no_temperature_with_tools(request: web.Request) -> web.StreamResponse:
        body = await request.json()
        return (
            unsupported("temperature")
            if "tools" in body and "temperature" in body
            else await strict_stream(request)
        )

    async with (
        running_upstream(no_temperature_with_tools) as upstream,
        running_proxy([entry(upstream)]) as proxy,
    ):
        await ask(session, proxy, tools=TOOLS, stream=True)
        assert "temperature" not in upstream.requests[-1]
        await ask(session, proxy, stream=True)
        assert upstream.requests[-1]["temperature"] == 0.5


def in_json(error: Any) -> web.Response:
    return web.json_response(error)


def in_first_event(error: Any) -> web.Response:
    data = f"event: error\ndata: {json.dumps(error)}\n\n"
    return web.Response(body=data.encode(), content_type="text/event-stream")


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("answered", [in_json, in_first_event])
@pytest.mark.parametrize(
    "error",
    [
        {"error": {"message": "Unsupported parameter: 'temperature'", "code": 400}},
        {"error": {"message": "temperature is not supported by this model", "type": "BadRequestError"}},
        {"error": "litellm.BadRequestError: temperature is not supported"},
        {"base_resp": {"status_code": 2013, "status_msg": "invalid params, temperature is not supported"}},
    ],
)
async def test_a_refusal_with_status_200_teaches(
    session: aiohttp.ClientSession, answered: Any, error: Any, stream: bool
) -> None:
    async def no_temperature(request: web.Request) -> web.StreamResponse:
        return answered(error) if "temperature" in await request.json() else await strict_stream(request)

    async with running_upstream(no_temperature) as upstream, running_proxy([entry(upstream)]) as proxy:
        for calls in (2, 1):
            upstream.requests.clear()
            assert (await ask(session, proxy, stream=stream))[0] == 200
            assert len(upstream.requests) == calls


async def test_a_failure_with_status_200_is_no_refusal(session: aiohttp.ClientSession) -> None:
    async def broken(request: web.Request) -> web.StreamResponse:
        return in_json({"error": {"message": "the engine has crashed", "code": 500}})

    async with running_upstream(broken) as upstream, running_proxy([entry(upstream)], max_retries=0) as proxy:
        status, _ = await ask(session, proxy, tools=TOOLS)
        assert (status, len(upstream.requests)) == (500, 1)


async def test_a_simplified_request_that_is_refused_again(session: aiohttp.ClientSession) -> None:
    """What was kept is no longer enough, so the next call goes on from there, within its four tries."""
    refused_words = ["maxLength"]

    async def vague(request: web.Request) -> web.StreamResponse:
        text = await request.text()
        if any(word in text for word in refused_words):
            return refused("Invalid arguments passed to the model.")
        return await strict_stream(request)

    async with running_upstream(vague) as upstream, running_proxy([entry(upstream)]) as proxy:
        assert (await ask(session, proxy, tools=TOOLS, stream=True))[0] == 200
        refused_words.append('"Read"')  # nothing helps any more
        upstream.requests.clear()
        status, _ = await ask(session, proxy, tools=TOOLS, stream=True)
        assert status == 400
        assert len(upstream.requests) <= 4
        refused_words.pop()
        upstream.requests.clear()
        assert (await ask(session, proxy, tools=TOOLS, stream=True))[0] == 200
        assert len(upstream.requests) == 1, "what helped before was forgotten"


@pytest.mark.parametrize("stream", [True, False])
async def test_zero_max_tokens_needs_no_upstream(session: aiohttp.ClientSession, stream: bool) -> None:
    async with running_upstream(strict) as upstream, running_proxy([entry(upstream)]) as proxy:
        status, message = await ask(session, proxy, max_tokens=0, stream=stream)
        assert (status, message["content"], message["stop_reason"]) == (200, [], "max_tokens")
        assert message["usage"]["output_tokens"] == 0
        assert upstream.requests == []


@pytest.mark.parametrize("direct", [True, False])
async def test_prompt_over_the_window_is_refused_before_it_is_sent(
    session: aiohttp.ClientSession, direct: bool
) -> None:
    async with running_upstream(strict) as upstream:
        async with running_proxy([entry(upstream, context="1k", direct=direct)]) as proxy:
            long = [{"role": "user", "content": "word " * 2000}]
            status, body = await ask(session, proxy, messages=long, stream=True)
            assert status == 400
            assert body["error"]["type"] == "invalid_request_error"
            assert body["error"]["message"].startswith("prompt is too long: ")
            assert body["error"]["message"].endswith(" tokens > 1000 maximum")
            assert upstream.requests == []


@pytest.mark.parametrize(
    ("fields", "prefix"),
    [
        ({"thread": {"type": "continue", "previous_message_id": "msg_1"}}, "thread: "),
        ({"compaction": {"type": "auto"}}, "compaction: "),
        ({"max_tokens": "many"}, "max_tokens: "),
        (
            {
                "tools": [{"type": "web_fetch_20250910", "name": "web_fetch"}],
                "tool_choice": {"type": "tool", "name": "web_fetch"},
            },
            "tool_choice: ",
        ),
    ],
)
async def test_untranslatable_request_is_refused(
    session: aiohttp.ClientSession, fields: dict[str, Any], prefix: str
) -> None:
    async with running_upstream(strict) as upstream, running_proxy([entry(upstream)]) as proxy:
        status, body = await ask(session, proxy, **fields)
        assert status == 400
        assert body["error"]["message"].startswith(prefix), body["error"]["message"]
        assert upstream.requests == []


async def test_upstream_without_streaming_still_gives_a_stream(session: aiohttp.ClientSession) -> None:
    async def whole(request: web.Request) -> web.StreamResponse:
        call = {"id": "c1", "type": "function", "function": {"name": "Read", "arguments": '{"p":1}'}}
        message = {
            "role": "assistant",
            "content": "I read.",
            "reasoning_content": "Hm.",
            "tool_calls": [call],
        }
        choice = {"index": 0, "message": message, "finish_reason": "tool_calls"}
        usage = {"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13}
        return web.json_response({"object": "chat.completion", "choices": [choice], "usage": usage})

    async with running_upstream(whole) as upstream:
        async with running_proxy([entry(upstream, can_stream=False)]) as proxy:
            status, message = await ask(session, proxy, stream=True)
            assert upstream.requests[0]["stream"] is False
            assert "stream_options" not in upstream.requests[0]
    assert status == 200
    assert [block["type"] for block in message["content"]] == ["thinking", "text", "tool_use"]
    assert message["stop_reason"] == "tool_use"
    assert message["usage"]["output_tokens"] == 4
