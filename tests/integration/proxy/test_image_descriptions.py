"""Images for a model that sees none, through real sockets: the model's upstream, and that of the one that describes."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from structlog.testing import capture_logs

from proxyd.proxy import image_descriptions
from proxyd.telemetry import ledger_queries
from proxyd.telemetry.ledger_schema import FILE
from tests.support.harness import Upstream, chunk, running_proxy, running_upstream, sse, text_stream

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
#: What the model gets in place of an image that nobody described.
PLACEHOLDER = "[image, which this model cannot see]"


def image(number: int = 1, size: int = 3) -> dict[str, Any]:
    data = base64.b64encode(bytes([number]) * size).decode()
    return {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": data}}


def picture_in(request: Mapping[str, Any]) -> int:
    """Return the number of the image that a request to the describing upstream holds."""
    (part,) = [part for part in request["messages"][-1]["content"] if part["type"] == "image_url"]
    return base64.b64decode(part["image_url"]["url"].partition(",")[2])[0]


def stream(body: bytes) -> web.Response:
    return web.Response(body=body, content_type="text/event-stream")


def user(*blocks: Any) -> dict[str, Any]:
    return {"role": "user", "content": list(blocks)}


def words(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


async def describe(request: web.Request) -> web.StreamResponse:
    return stream(text_stream(f"Picture {picture_in(await request.json())}."))


@asynccontextmanager
async def proxy(
    describer: Handler = describe,
    *,
    entry: Mapping[str, Any] | None = None,
    describing: Mapping[str, Any] | None = None,
    respond: Handler | None = None,
    more: Sequence[Mapping[str, Any]] = (),
    **settings: Any,
) -> AsyncIterator[tuple[str, Upstream, Upstream]]:
    """A proxy before two upstreams: of a model that sees no images, and of one that does."""

    async def model(request: web.Request) -> web.StreamResponse:
        return await respond(request) if respond is not None else stream(text_stream("ok"))

    async with running_upstream(model) as blind, running_upstream(describer) as seeing:
        entries: list[Mapping[str, Any]] = [
            {
                "model_id": "blind",
                "api_base": f"{blind.base}/v1",
                "vision": False,
                "images": {"describe_with": "seer"},
                **(entry or {}),
            },
            {"model_id": "seer", "api_base": f"{seeing.base}/v1", "max_tokens": 999, **(describing or {})},
            *more,
        ]
        async with running_proxy(entries, **settings) as base:
            yield base, blind, seeing


async def ask(base: str, *messages: Any, model: str = "blind") -> bytes:
    payload = {"model": model, "max_tokens": 50, "stream": True, "messages": list(messages)}
    async with aiohttp.ClientSession() as client:
        async with client.post(f"{base}/v1/messages", json=payload) as response:
            body = await response.read()
            assert response.status == 200, body
    return body


def texts_to(upstream: Upstream, number: int = -1) -> str:
    return json.dumps(upstream.requests[number]["messages"])


async def test_an_image_is_described_in_the_words_beside_it(tmp_path: Path) -> None:
    async with proxy(state_folder=tmp_path) as (base, blind, seeing):
        await ask(base, user(words("Which colour?"), image(7)))
    sent = texts_to(blind)
    assert "a description of it by the model seer:]\\nPicture 7.\\n[End of the description" in sent
    assert "image_url" not in sent
    (request,) = seeing.requests
    assert '"Which colour?"' in request["messages"][-1]["content"][-1]["text"]
    assert request["max_tokens"] == 999
    assert "tools" not in request
    database = ledger_queries.open_ledger(tmp_path / FILE)
    routes = {call["kind"]: call["route"] for call in ledger_queries.last_calls(database, 0)}
    database.close()
    assert routes == {"main": "blind", "image": "seer"}


async def test_an_image_is_described_once_while_the_conversation_grows() -> None:
    first = user(words("Look"), image(1))
    call = {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "Read", "input": {}}]}
    result = user({"type": "tool_result", "tool_use_id": "t", "content": [words("red.png"), image(2)]})
    async with proxy() as (base, blind, seeing):
        await ask(base, first)
        await ask(base, first, call, result)
        await ask(base, first, call, result, {"role": "assistant", "content": "ok"}, user(words("Thanks")))
    assert [picture_in(request) for request in seeing.requests] == [1, 2]
    one, two, three = (request["messages"] for request in blind.requests)
    assert two[: len(one)] == one
    assert three[: len(two)] == two
    assert "Picture 2." in json.dumps(two)


async def test_several_images_are_described_at_once_within_a_bound() -> None:
    running, most = 0, 0

    async def slowly(request: web.Request) -> web.StreamResponse:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.05)
        running -= 1
        return await describe(request)

    async with proxy(slowly) as (base, blind, seeing):
        await ask(base, user(*(image(number) for number in range(1, 10))))
    assert len(seeing.requests) == 9
    assert 2 <= most <= image_descriptions.MAX_AT_ONCE
    sent = texts_to(blind)
    places = [sent.index(f"Picture {number}.") for number in range(1, 10)]
    assert places == sorted(places)


async def test_calls_at_the_same_time_share_a_description() -> None:
    async def slowly(request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(0.1)
        return await describe(request)

    async with proxy(slowly) as (base, blind, seeing):
        await asyncio.gather(*(ask(base, user(words("Look"), image(1), image(1))) for _ in range(3)))
    assert len(seeing.requests) == 1
    assert [texts_to(blind, number).count("Picture 1.") for number in range(3)] == [2, 2, 2]


async def refuse(request: web.Request) -> web.StreamResponse:
    return web.json_response({"error": {"message": "no such model", "type": "x"}}, status=404)


async def prose(request: web.Request) -> web.StreamResponse:
    return web.Response(text="<html>", content_type="text/html")


async def nothing(request: web.Request) -> web.StreamResponse:
    return stream(sse(chunk({"content": " "}), chunk({}, "stop")))


async def hang(request: web.Request) -> web.StreamResponse:
    await asyncio.sleep(60)
    return web.Response()


@pytest.mark.parametrize(
    ("describer", "why"),
    [
        (refuse, "no such model"),
        (prose, ""),
        (nothing, "the response has no description"),
        (hang, "no response within 0.3 s"),
    ],
)
async def test_without_a_description_there_is_todays_placeholder_and_one_hint(
    describer: Handler, why: str
) -> None:
    images = [image(number) for number in range(1, 8)]
    entry = {"images": {"describe_with": "seer", "timeout_s": 0.3 if describer is hang else 30}}
    async with proxy(describer, entry=entry, max_retries=0) as (base, blind, seeing):
        with capture_logs() as logs:
            await ask(base, user(words("Look"), *images))
            asked = len(seeing.requests)
            await ask(base, user(words("Look"), *images[:2]))
    assert texts_to(blind, 0).count(PLACEHOLDER) == 7
    assert texts_to(blind, 1).count(PLACEHOLDER) == 2
    hints = [each for each in logs if each["event"] == "images.not_described"]
    assert [each["images"] for each in hints] == [7, 2]
    assert why in hints[0]["why"]
    assert asked <= 7
    assert len(seeing.requests) == asked  # not again within a minute
    if describer is hang:
        assert asked <= image_descriptions.MAX_AT_ONCE


async def test_an_image_over_the_limit_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_descriptions, "MAX_BYTES", 3000)
    async with proxy() as (base, blind, seeing):
        with capture_logs() as logs:
            await ask(base, user(image(1, 4000), image(2)))
    assert [picture_in(request) for request in seeing.requests] == [2]
    assert texts_to(blind).count(PLACEHOLDER) == 1
    (hint,) = [each for each in logs if each["event"] == "images.not_described"]
    assert "larger than" in hint["why"]


async def test_a_failed_description_is_tried_again_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_descriptions, "RETRY_AFTER_S", 0.0)
    answers = [refuse, describe]

    async def first_not(request: web.Request) -> web.StreamResponse:
        return await answers.pop(0)(request)

    async with proxy(first_not) as (base, blind, _):
        await ask(base, user(image(1)))
        await ask(base, user(image(1)))
    assert PLACEHOLDER in texts_to(blind, 0)
    assert "Picture 1." in texts_to(blind, 1)


async def test_a_describer_that_turns_out_to_see_nothing_describes_nothing() -> None:
    """Its upstream refuses images, so the proxy leaves them out: without them it would only invent something."""

    async def blind_too(request: web.Request) -> web.StreamResponse:
        payload = await request.json()
        if "image_url" in json.dumps(payload):
            error = {
                "error": {
                    "message": "This model does not support image input",
                    "type": "invalid_request_error",
                }
            }
            return web.json_response(error, status=400)
        return stream(text_stream("A lovely sunset."))

    async with proxy(blind_too) as (base, blind, _):
        await ask(base, user(image(1)))
    assert PLACEHOLDER in texts_to(blind)
    assert "sunset" not in texts_to(blind)


async def test_a_model_that_refuses_images_gets_descriptions_with_the_retry() -> None:
    async def picky(request: web.Request) -> web.StreamResponse:
        if "image_url" in json.dumps(await request.json()):
            error = {
                "error": {
                    "message": "This model does not support image input",
                    "type": "invalid_request_error",
                }
            }
            return web.json_response(error, status=400)
        return stream(text_stream("ok"))

    async with running_upstream(picky) as blind, running_upstream(describe) as seeing:
        entries: list[Mapping[str, Any]] = [
            {"model_id": "blind", "api_base": f"{blind.base}/v1"},
            {"model_id": "seer", "api_base": f"{seeing.base}/v1"},
        ]
        async with running_proxy(entries, images={"describe_with": "seer"}) as base:
            await ask(base, user(words("Look"), image(5)))
    assert len(blind.requests) == 2
    assert "Picture 5." in texts_to(blind)


async def test_a_model_that_sees_images_gets_them() -> None:
    async with proxy() as (base, _, seeing):
        await ask(base, user(image(1)), model="seer")
    assert picture_in(seeing.requests[0]) == 1


async def test_without_a_describer_one_hint_says_what_can_be_set() -> None:
    async with proxy(entry={"images": {}}) as (base, blind, seeing):
        with capture_logs() as logs:
            for _ in range(3):
                await ask(base, user(image(1)))
    assert PLACEHOLDER in texts_to(blind)
    assert seeing.requests == []
    hints = [each for each in logs if each["event"] == "images.not_shown"]
    assert [each["route"] for each in hints] == ["blind"]
    assert "describe_with" in hints[0]["hint"]


async def test_a_client_that_leaves_ends_the_description() -> None:
    ended = asyncio.Event()

    async def wait(request: web.Request) -> web.StreamResponse:
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()
        return web.Response()

    async with proxy(wait) as (base, _, seeing):
        task = asyncio.create_task(ask(base, user(image(1))))
        while not seeing.requests:
            await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.wait_for(ended.wait(), 30)


async def test_a_direct_entry_may_describe() -> None:
    async def messages(request: web.Request) -> web.StreamResponse:
        content = [{"type": "text", "text": "A red square."}]
        message = {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "model": "m",
            "content": content,
            "stop_reason": "end_turn",
            "usage": {"input_tokens": 1, "output_tokens": 1},
        }
        return web.json_response(message)

    async with proxy(messages, describing={"direct": True}) as (base, blind, seeing):
        await ask(base, user(image(1)))
    assert "A red square." in texts_to(blind)
    assert seeing.requests[0]["messages"][0]["content"][0] == image(1)


@pytest.mark.parametrize("is_same_address", [True, False])
async def test_the_clients_key_goes_to_the_address_that_it_is_meant_for_alone(is_same_address: bool) -> None:
    async def both(request: web.Request) -> web.StreamResponse:
        return stream(text_stream("ok"))

    async with running_upstream(both) as blind, running_upstream(both) as other:
        entries: list[Mapping[str, Any]] = [
            {"model_id": "blind", "api_base": f"{blind.base}/v1", "vision": False},
            {"model_id": "seer", "api_base": f"{(blind if is_same_address else other).base}/v1"},
        ]
        async with running_proxy(entries, images={"describe_with": "seer"}) as base:
            payload = {"model": "blind", "max_tokens": 9, "messages": [user(image(1))]}
            headers = {"authorization": "Bearer clients-own-key-0123456789"}
            async with aiohttp.ClientSession() as client:
                async with client.post(f"{base}/v1/messages", json=payload, headers=headers) as response:
                    assert response.status == 200
    asked = blind if is_same_address else other
    assert ("clients-own-key" in asked.headers[0].get("authorization", "")) is is_same_address


async def test_what_was_described_is_among_the_details_of_the_call() -> None:
    async with proxy() as (base, _, _):
        payload = {"model": "blind", "max_tokens": 9, "messages": [user(words("Look"), image(1))]}
        async with aiohttp.ClientSession() as client:
            async with client.post(f"{base}/v1/messages", json=payload) as response:
                request_id = response.headers["request-id"]
            async with client.get(f"{base}/v1/calls/{request_id}") as response:
                found = await response.json()
    assert found["altered"][0] == {
        "field": "messages.0.content.1",
        "what": "replaced by a description",
        "why": "the model takes no images; seer has described it",
    }
