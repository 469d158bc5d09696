"""``claude-proxy features``: the table of an entry, and trying it against upstreams."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from aiohttp import web

from tests.support.command_line import Home
from tests.support.harness import Upstream, chunk, running_upstream, sse, text_stream
from tests.support.search_engines import RESPONSES


def test_the_table(home: Home) -> None:
    home.write_models("- {model_id: m, api_base: 'https://api.deepseek.com/v1', model_name: deepseek-chat}\n")
    result = home.run("features", "m")
    assert result.code == 0
    lines = [" ".join(line.split()) for line in result.out.splitlines()]
    assert lines[0].startswith("m: translated, deepseek-chat via api.deepseek.com")
    assert "images not the model gets a line of text in their place" in lines
    assert "set images: {describe_with: MODEL_ID}, if it sees none; else vision: true" in lines
    assert "probe" not in result.out


def test_as_json(home: Home) -> None:
    home.write_models("- {model_id: m, api_base: 'http://localhost:1/v1', aliases: ['claude-*']}\n")
    found = json.loads(home.run("features", "claude-x", "--json").out)
    assert (found["model"], found["entry"], found["mode"]) == ("claude-x", "m", "translated")
    rows = {each["name"]: each for each in found["features"]}
    assert rows["streaming"] == {
        "name": "streaming",
        "served": "natively",
        "how": "each event is rewritten as it arrives",
        "set": None,
    }


def test_an_unknown_model(home: Home) -> None:
    home.write_models("- {model_id: m, api_base: 'builtin:demo'}\n")
    result = home.run("features", "n")
    assert result.code == 64
    assert "there is no model 'n'" in result.err
    assert "there are: m" in result.err


def stream(body: bytes) -> web.Response:
    return web.Response(body=body, content_type="text/event-stream")


def calls(count: int) -> bytes:
    deltas = [
        {"index": number, "id": f"c{number}", "function": {"name": "report", "arguments": '{"word": "ok"}'}}
        for number in range(count)
    ]
    return sse(*(chunk({"tool_calls": [delta]}) for delta in deltas), chunk({}, "tool_calls"))


async def capable(request: web.Request) -> web.StreamResponse:
    """An upstream that can do everything, and the classifier of auto mode, and a search engine."""
    if request.path == "/search":
        return web.json_response(RESPONSES["searxng"])
    payload = await request.json()
    text = json.dumps(payload["messages"])
    if "verdicts" in text:
        verdict = {"verdicts": [{"id": "c0", "block": False, "reason": "ok"}]}
        return stream(text_stream(json.dumps(verdict)))
    if payload.get("tools"):
        return stream(calls(2 if "twice" in text else 1))
    if "image_url" in text:
        return stream(text_stream("Red."))
    if "file_data" in text:
        return stream(text_stream("It says ZEBRA."))
    if "response_format" in payload:
        return stream(text_stream('{"sum": 5}'))
    if "reasoning_effort" in payload:
        return stream(
            sse(chunk({"reasoning_content": "17*23"}), chunk({"content": "391"}), chunk({}, "stop"))
        )
    return stream(text_stream("ok"))


async def incapable(request: web.Request) -> web.StreamResponse:
    """An upstream that says the same to everything, and refuses tools."""
    payload = await request.json()
    if payload.get("tools"):
        return web.json_response({"error": {"message": "no tools here"}}, status=401)
    return stream(text_stream("Whatever."))


def models(upstream: Upstream) -> str:
    entry = {
        "model_id": "m",
        "api_base": f"{upstream.base}/v1",
        "quirks": {"files": True},
        "auto_mode": {"classifier": "m"},
        "web_search": {"engine": "searxng", "url": upstream.base},
    }
    return f"- {json.dumps(entry)}\n"


@pytest.mark.parametrize("handler", [capable, incapable])
async def test_features_are_tried_against_the_upstream(home: Home, handler: Any) -> None:
    async with running_upstream(handler) as upstream:
        home.write_models(models(upstream))
        result = await asyncio.to_thread(home.process, "features", "m", "--probe", "--json")
    probes = {each["name"]: each["probe"] for each in json.loads(result.out)["features"]}
    outcomes = {name: each["ok"] for name, each in probes.items()}
    is_capable = handler is capable
    tried = ("tools", "parallel tools", "thinking", "images", "PDFs", "web search", "auto mode")
    assert outcomes == {
        "streaming": True,
        **dict.fromkeys((*tried, "structured outputs"), is_capable),
        **dict.fromkeys(("caching", "window", "context edits")),
    }
    assert result.code == (0 if is_capable else 69), result.err
    if not is_capable:
        assert "no tools here" in probes["tools"]["said"]
        assert probes["images"]["said"] == "the response does not say 'red'"
        assert probes["structured outputs"]["said"] == "the response is not JSON"


def test_an_upstream_whose_key_comes_with_requests_is_not_called(home: Home) -> None:
    home.write_models("- {model_id: m, api_base: 'https://api.example.invalid/v1'}\n")
    result = home.process("features", "m", "--probe")
    assert result.code == 0, result.err
    assert "probe: - not called: its key comes with each request" in result.out
