"""Web search among other tools: the model calls it as a function, the proxy searches, and the message goes on."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anthropic
import pytest
from aiohttp import web

from proxyd.telemetry import ledger_queries
from proxyd.telemetry.ledger_schema import FILE
from tests.support.harness import Upstream, chunk, running_proxy, running_upstream, sse
from tests.support.search_engines import RESPONSES

SEARCH = {"type": "web_search_20250305", "name": "web_search", "max_uses": 3}
NOTE = {"name": "note", "input_schema": {"type": "object", "properties": {"text": {"type": "string"}}}}
QUESTION: list[Any] = [{"role": "user", "content": "What is new in Rust?"}]
USAGE = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
Turn = bytes | Callable[[web.Request], Any]


def says(text: str) -> bytes:
    return sse(chunk({"content": text}), chunk({}, "stop"), chunk(usage=USAGE))


def calls(*wanted: tuple[str, str, dict[str, Any]], text: str = "") -> bytes:
    """A response that says `text`, then calls tools: id, name and input."""
    deltas = [{"content": text}] if text else []
    deltas += [
        {
            "tool_calls": [
                {"index": index, "id": call_id, "function": {"name": name, "arguments": json.dumps(value)}}
            ]
        }
        for index, (call_id, name, value) in enumerate(wanted)
    ]
    return sse(*map(chunk, deltas), chunk({}, "tool_calls"), chunk(usage=USAGE))


def search(query: str, call_id: str = "c1", text: str = "") -> bytes:
    return calls((call_id, "web_search", {"query": query}), text=text)


@asynccontextmanager
async def setting(
    turns: Sequence[Turn], *, engine_status: int = 200, **options: Any
) -> AsyncIterator[tuple[anthropic.AsyncAnthropic, Upstream, Upstream]]:
    """A client, the upstream of the model, which plays `turns`, and a search engine."""
    left = list(turns)

    async def model(request: web.Request) -> web.StreamResponse:
        turn = left.pop(0)
        if not isinstance(turn, bytes):
            response: web.StreamResponse = await turn(request)
            return response
        return web.Response(body=turn, content_type="text/event-stream")

    async def find(_: web.Request) -> web.StreamResponse:
        return web.json_response(RESPONSES["searxng"], status=engine_status)

    async with running_upstream(model) as upstream, running_upstream(find) as engine:
        entry = {
            "model_id": "m",
            "api_base": f"{upstream.base}/v1",
            "web_search": {"engine": "searxng", "url": engine.base},
        }
        async with running_proxy([entry], max_retries=0, **options) as base:
            async with anthropic.AsyncAnthropic(base_url=base, api_key="any", max_retries=0) as client:
                yield client, upstream, engine
        assert left == []


async def ask(client: anthropic.AsyncAnthropic, *, is_stream: bool = True, **changes: Any) -> Any:
    request: dict[str, Any] = {
        "model": "m",
        "max_tokens": 100,
        "messages": QUESTION,
        "tools": [NOTE, SEARCH],
        **changes,
    }
    if not is_stream:
        return await client.messages.create(**request)
    async with client.messages.stream(**request) as stream:
        return await stream.get_final_message()


@pytest.mark.parametrize("is_stream", [True, False])
async def test_the_message_goes_on_after_a_search(is_stream: bool) -> None:
    turns = [search("rust news", text="Let me look."), says("It is 2.0.")]
    async with setting(turns) as (client, upstream, engine):
        message = await ask(client, is_stream=is_stream)
    first, use, found, last = message.content
    assert (first.text, last.text) == ("Let me look.", "It is 2.0.")
    assert (use.type, use.name, use.input) == ("server_tool_use", "web_search", {"query": "rust news"})
    assert found.tool_use_id == use.id
    assert found.content[0].url == "https://a.example/1"
    assert (message.stop_reason, message.model) == ("end_turn", "m")
    assert (message.usage.input_tokens, message.usage.output_tokens) == (20, 10)
    assert message.usage.server_tool_use is None
    assert len(engine.requests) == 1
    offered = [tool["function"]["name"] for tool in upstream.requests[0]["tools"]]
    assert offered == ["note", "web_search"]
    assistant, result = upstream.requests[1]["messages"][-2:]
    assert assistant["content"] == "Let me look."
    assert result["role"] == "tool"
    assert "The first text." in result["content"]


async def test_later_turns_send_the_same_prompt_and_more() -> None:
    turns = [search("rust news"), says("It is 2.0."), says("You are welcome.")]
    async with setting(turns) as (client, upstream, _):
        message = await ask(client)
        history = [
            *QUESTION,
            {"role": "assistant", "content": [block.model_dump() for block in message.content]},
            {"role": "user", "content": "Thanks"},
        ]
        await ask(client, messages=history)
    _, second, third = (request["messages"] for request in upstream.requests)
    assert third[: len(second)] == second
    assert [each["role"] for each in third[len(second) :]] == ["assistant", "user"]


async def test_the_clients_own_tools_end_the_message_after_the_searches() -> None:
    both = calls(("c1", "note", {"text": "x"}), ("c2", "web_search", {"query": "q"}))
    async with setting([both]) as (client, _, engine):
        message = await ask(client)
    assert [block.type for block in message.content] == [
        "tool_use",
        "server_tool_use",
        "web_search_tool_result",
    ]
    assert message.stop_reason == "tool_use"
    assert len(engine.requests) == 1


async def test_a_call_of_the_clients_tool_and_its_result_go_on() -> None:
    both = calls(("c1", "note", {"text": "x"}), ("c2", "web_search", {"query": "q"}))
    async with setting([both, says("Done.")]) as (client, upstream, _):
        message = await ask(client)
        content: list[Any] = [block.model_dump() for block in message.content]
        answer = {"type": "tool_result", "tool_use_id": content[0]["id"], "content": "noted"}
        history = [
            *QUESTION,
            {"role": "assistant", "content": content},
            {"role": "user", "content": [answer]},
        ]
        await ask(client, messages=history)
    sent = upstream.requests[1]["messages"]
    assert len(sent[1]["tool_calls"]) == 2
    results = {each["tool_call_id"]: each["content"] for each in sent if each["role"] == "tool"}
    assert results[sent[1]["tool_calls"][0]["id"]] == "noted"
    assert "The first text." in results[sent[1]["tool_calls"][1]["id"]]


async def test_searches_stop_at_max_uses() -> None:
    turns = [
        calls(("a", "web_search", {"query": "1"}), ("b", "web_search", {"query": "2"})),
        calls(("c", "web_search", {"query": "3"}), ("d", "web_search", {"query": "4"})),
        says("Enough."),
    ]
    async with setting(turns) as (client, upstream, engine):
        message = await ask(client, tool_choice={"type": "any"})
    results = [block.content for block in message.content if block.type == "web_search_tool_result"]
    assert [isinstance(each, list) for each in results] == [True, True, True, False]
    assert results[-1].error_code == "max_uses_exceeded"
    assert len(engine.requests) == 3
    assert message.content[-1].text == "Enough."
    choices = [request.get("tool_choice") for request in upstream.requests]
    assert choices == ["required", "auto", "auto"]
    offered = [len(request["tools"]) for request in upstream.requests]
    assert offered == [2, 2, 1]


async def test_a_model_that_goes_on_calling_ends_the_message() -> None:
    turns = [search(str(number), f"c{number}") for number in range(4)]
    async with setting(turns) as (client, _, engine):
        message = await ask(client)
    assert len(engine.requests) == 3
    assert message.content[-1].content.error_code == "max_uses_exceeded"
    assert message.stop_reason == "end_turn"


@pytest.mark.parametrize(
    ("value", "code"), [({}, "invalid_tool_input"), ({"query": 3}, "invalid_tool_input")]
)
async def test_a_call_without_a_query(value: dict[str, Any], code: str) -> None:
    async with setting([calls(("c", "web_search", value)), says("No.")]) as (client, upstream, engine):
        message = await ask(client)
    assert message.content[1].content.error_code == code
    assert engine.requests == []
    assert "No web search was made" in upstream.requests[1]["messages"][-1]["content"]


async def test_a_failed_search_is_an_error_for_the_model_to_read() -> None:
    async with setting([search("q"), says("I could not look.")], engine_status=500) as (client, upstream, _):
        message = await ask(client)
    assert message.content[1].content.error_code == "unavailable"
    assert "No web search was made (unavailable)" in upstream.requests[1]["messages"][-1]["content"]
    assert message.stop_reason == "end_turn"


async def test_text_and_query_are_streamed_before_the_round_ends() -> None:
    may_end = asyncio.Event()

    async def slowly(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        await response.write(sse(chunk({"content": "Hm."}), done=False))
        await may_end.wait()
        await response.write(sse(chunk({}, "stop")))
        return response

    async with setting([search("q"), slowly]) as (client, _, _engine):
        request: Any = {"model": "m", "max_tokens": 9, "messages": QUESTION, "tools": [NOTE, SEARCH]}
        seen: list[str] = []
        async with client.messages.stream(**request) as stream:
            async for event in stream:
                seen.append(event.type)
                if event.type == "text":
                    may_end.set()
            message = await stream.get_final_message()
    assert message.content[-1].text == "Hm."


async def test_a_large_request_is_searched_for_as_well() -> None:
    question = [{"role": "user", "content": "What is new? " + "x" * 3_000_000}]
    async with setting([search("q"), says("It is 2.0.")]) as (client, upstream, _):
        message = await ask(client, messages=question)
    assert message.content[-1].text == "It is 2.0."
    assert len(upstream.bodies[1]) > 3_000_000


async def refuse(_: web.Request) -> web.StreamResponse:
    return web.json_response({"error": {"message": "no such key"}}, status=401)


async def test_a_refusal_of_the_first_round_has_its_status() -> None:
    async with setting([refuse]) as (client, _, _engine):
        with pytest.raises(anthropic.AuthenticationError, match="no such key"):
            await ask(client)


async def test_a_failure_of_a_later_round_ends_the_stream_with_its_error() -> None:
    async with setting([search("q"), refuse]) as (client, _, _engine):
        with pytest.raises(anthropic.APIStatusError, match="no such key"):
            await ask(client)


async def test_a_broken_round_ends_the_stream_with_an_error() -> None:
    broken = sse(chunk({"content": "Hm."}), done=False)
    async with setting([search("q"), broken]) as (client, _, _engine):
        with pytest.raises(anthropic.APIStatusError, match="closed the stream"):
            await ask(client)


async def test_a_silent_model_does_not_keep_the_response_from_beginning() -> None:
    async def late(_: web.Request) -> web.StreamResponse:
        await asyncio.sleep(0.5)
        return web.Response(body=says("Late."), content_type="text/event-stream")

    async with setting([late], commit_s=0.1) as (client, _, _engine):
        message = await ask(client)
    assert message.content[0].text == "Late."
    assert message.usage.output_tokens == 5


async def test_a_client_that_leaves_ends_the_round() -> None:
    has_begun, has_ended = asyncio.Event(), asyncio.Event()

    async def wait(_: web.Request) -> web.StreamResponse:
        has_begun.set()
        try:
            await asyncio.sleep(60)
        finally:
            has_ended.set()
        return web.Response()

    async with setting([wait]) as (client, _, _engine):
        task = asyncio.create_task(ask(client))
        await asyncio.wait_for(has_begun.wait(), 30)
        task.cancel()
        await asyncio.wait_for(has_ended.wait(), 30)


async def test_the_ledger_tells_the_rounds_apart(tmp_path: Path) -> None:
    async with setting([search("q"), says("Done.")], state_folder=tmp_path) as (client, _, _engine):
        await ask(client)
    database = ledger_queries.open_ledger(tmp_path / FILE)
    kinds = sorted(call["kind"] for call in ledger_queries.last_calls(database, 0))
    database.close()
    assert kinds == ["main", "searching", "searching"]


async def test_without_an_engine_the_search_is_left_out() -> None:
    async def model(_: web.Request) -> web.StreamResponse:
        return web.Response(body=says("From memory."), content_type="text/event-stream")

    async with running_upstream(model) as upstream:
        async with running_proxy([{"model_id": "m", "api_base": f"{upstream.base}/v1"}]) as base:
            async with anthropic.AsyncAnthropic(base_url=base, api_key="any") as client:
                message = await ask(client)
    assert message.content[0].text == "From memory."
    assert [tool["function"]["name"] for tool in upstream.requests[0]["tools"]] == ["note"]
