"""``context_management`` on translated routes: what the upstream gets, and what is reported to the client."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from click.testing import CliRunner

from proxyd.cli.commands.translate import translate_command
from proxyd.server_tools.context_edits import CLEARED
from tests.support.harness import running_proxy, running_upstream, text_stream
from tests.support.sse_reader import read_events

EDIT = {
    "type": "clear_tool_uses_20250919",
    "trigger": {"type": "input_tokens", "value": 5000},
    "keep": {"type": "tool_uses", "value": 2},
}


def payload(count: int, *edits: Any, **fields: Any) -> dict[str, Any]:
    messages: list[dict[str, Any]] = [{"role": "user", "content": "Read them"}]
    for number in range(count):
        use = {"type": "tool_use", "id": f"toolu_{number}", "name": "Read", "input": {"n": number}}
        result = {
            "type": "tool_result",
            "tool_use_id": f"toolu_{number}",
            "content": f"{number}: " + "r" * 4000,
        }
        messages += [{"role": "assistant", "content": [use]}, {"role": "user", "content": [result]}]
    return {
        "model": "m",
        "max_tokens": 50,
        "messages": messages,
        "context_management": {"edits": list(edits)},
        **fields,
    }


async def respond(request: web.Request) -> web.StreamResponse:
    return web.Response(body=text_stream("ok"), content_type="text/event-stream")


async def post(base: str, body: dict[str, Any], path: str = "") -> bytes:
    async with aiohttp.ClientSession() as client:
        async with client.post(f"{base}/v1/messages{path}", json=body) as response:
            assert response.status == 200, await response.read()
            return await response.read()


def results(request: dict[str, Any]) -> list[str]:
    return [message["content"] for message in request["messages"] if message["role"] == "tool"]


@pytest.mark.parametrize("format_name", ["openai-chat", "openai-responses"])
@pytest.mark.parametrize("is_stream", [True, False])
async def test_old_results_are_cleared_and_the_response_says_so(is_stream: bool, format_name: str) -> None:
    completed = {
        "type": "response.completed",
        "response": {
            "id": "r",
            "status": "completed",
            "output": [{"type": "message", "content": [{"type": "output_text", "text": "ok"}]}],
            "usage": {"input_tokens": 1, "output_tokens": 1},
        },
    }

    async def either(request: web.Request) -> web.StreamResponse:
        if request.path.endswith("/responses"):
            frame = b"event: response.completed\ndata: %b\n\n" % json.dumps(completed).encode()
            return web.Response(body=frame, content_type="text/event-stream")
        return await respond(request)

    async with running_upstream(either) as upstream:
        entry = {"model_id": "m", "api_base": f"{upstream.base}/v1", "format": format_name}
        async with running_proxy([entry]) as base:
            body = await post(base, payload(6, EDIT, stream=is_stream))
    sent = json.dumps(upstream.requests[0])
    assert sent.count(CLEARED) == 3
    assert "context_management" not in sent
    if is_stream:
        (end,) = [json.loads(data) for name, data in read_events(body) if name == "message_delta"]
    else:
        end = json.loads(body)
    assert end["context_management"] == {
        "applied_edits": [
            {"type": "clear_tool_uses_20250919", "cleared_tool_uses": 3, "cleared_input_tokens": 2931}
        ]
    }


async def test_the_prompt_keeps_its_beginning_while_the_conversation_grows() -> None:
    async with running_upstream(respond) as upstream:
        async with running_proxy([{"model_id": "m", "api_base": f"{upstream.base}/v1"}]) as base:
            for count in range(1, 16):
                await post(base, payload(count, EDIT))
    sent = [request["messages"] for request in upstream.requests]
    kept = [after[: len(before)] == before for before, after in pairwise(sent)]
    assert kept.count(False) == 4  # of 14 steps; each clears three results
    for count, request in enumerate(upstream.requests, 1):
        seen = results(request)
        assert len(seen) == count
        assert CLEARED not in seen[-2:]


async def test_without_anything_to_clear_nothing_is_said_of_it() -> None:
    keep_all = {"type": "clear_thinking_20251015", "keep": "all"}  # what Claude Code sends
    async with running_upstream(respond) as upstream:
        async with running_proxy([{"model_id": "m", "api_base": f"{upstream.base}/v1"}]) as base:
            body = await post(base, payload(3, keep_all, EDIT, stream=True))
    assert CLEARED not in json.dumps(upstream.requests)
    assert b"context_management" not in body


async def test_the_setting_switches_it_off() -> None:
    async with running_upstream(respond) as upstream:
        entries = [{"model_id": "m", "api_base": f"{upstream.base}/v1"}]
        async with running_proxy(entries, context_edits=False) as base:
            body = await post(base, payload(9, EDIT))
            counted = json.loads(await post(base, payload(9, EDIT), "/count_tokens"))
    assert CLEARED not in json.dumps(upstream.requests)
    assert b"context_management" not in body
    assert counted.keys() == {"input_tokens"}


async def test_what_was_cleared_is_among_the_details_of_the_call() -> None:
    async with running_upstream(respond) as upstream:
        async with running_proxy([{"model_id": "m", "api_base": f"{upstream.base}/v1"}]) as base:
            async with aiohttp.ClientSession() as client:
                async with client.post(f"{base}/v1/messages", json=payload(6, EDIT)) as response:
                    request_id = response.headers["request-id"]
                async with client.get(f"{base}/v1/calls/{request_id}") as response:
                    found = await response.json()
    assert found["altered"] == [
        {
            "field": "messages",
            "what": "results of 3 tool uses cleared",
            "why": "the request's context_management asks for it; about 2931 tokens",
        }
    ]


async def test_tokens_are_counted_after_the_edits() -> None:
    async with running_upstream(respond) as upstream:
        async with running_proxy([{"model_id": "m", "api_base": f"{upstream.base}/v1"}]) as base:
            counted = json.loads(await post(base, payload(6, EDIT), "/count_tokens"))
            plain = json.loads(await post(base, payload(6), "/count_tokens"))
    assert counted["context_management"] == {"original_input_tokens": plain["input_tokens"]}
    assert plain["input_tokens"] - counted["input_tokens"] == pytest.approx(2931, abs=6)


def test_the_dry_run_shows_it(tmp_path: Path) -> None:
    models = tmp_path / "models.yaml"
    models.write_text("- {model_id: m, api_base: 'http://localhost:1/v1'}\n")
    done = CliRunner().invoke(
        translate_command,
        ["--model", "m", "--models", str(models)],
        input=json.dumps(payload(6, EDIT)),
    )
    assert done.exit_code == 0, done.output
    assert "messages: results of 3 tool uses cleared" in done.output
    assert done.output.count(CLEARED) == 3
