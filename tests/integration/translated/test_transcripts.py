"""The stream transcripts through the daemon, from a scripted upstream to third-party clients.

One upstream and one daemon serve all of them; each transcript is an entry of models.yaml.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import anthropic
import pytest
from aiohttp import web
from aiohttp_sse_client.client import EventSource

from proxyd.telemetry.token_calibration import Calibration
from tests.support import goldens_streams as goldens
from tests.support.harness import running_proxy, running_upstream
from tests.support.sse_reader import message_of

#: An id drawn by the daemon, and one of the expectations.
DRAWN, NUMBERED = re.compile(r"(toolu|msg)_[A-Za-z0-9]{24}\Z"), re.compile(r"(toolu|msg)_\d{24}\Z")


@asynccontextmanager
async def all_transcripts() -> AsyncIterator[str]:
    """Yield the daemon's base URL. A transcript's name is the model id."""

    async def respond(request: web.Request) -> web.StreamResponse:
        name = request.path.removeprefix("/").removesuffix("/chat/completions")
        body = goldens.load(name).upstream
        kind = {b"{": "application/json", b"[": "application/json", b"<": "text/html"}.get(body.lstrip()[:1])
        return web.Response(body=body, content_type=kind or "text/event-stream")

    async with running_upstream(respond) as upstream:
        entries = []
        for name in goldens.cases():
            case = goldens.load(name)
            entries.append(
                {
                    "model_id": name,
                    "model_name": case.model_name,
                    "api_base": f"{upstream.base}/{name}",
                    "provider": case.profile,
                    "quirks": case.quirks,
                }
            )
        async with running_proxy(entries, max_retries=0) as proxy:
            yield proxy


@pytest.fixture(autouse=True)
def _no_calibration(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the estimates of `message_start` as they are: the transcripts have the models' names in common."""
    monkeypatch.setattr(Calibration, "observe", lambda self, record: None)


async def failures_of(check: Callable[[goldens.Case], Awaitable[None]]) -> list[str]:
    """Return the transcripts that `check` rejects, with the reasons."""
    failures = []
    for name in goldens.cases():
        try:
            await check(goldens.load(name))
        except Exception as exc:
            failures.append(f"{name}: {type(exc).__name__}: {exc}")
    return failures


#: The address of the upstream at the end of a message, which the transcripts do not know.
ADDRESS = re.compile(r" \(http://127\.0\.0\.1:\d+/\S+/chat/completions\)\Z")


def check_error(name: str, seen: Any, wanted: Any) -> None:
    """Check an error. It may have the upstream's address; the one about a page has it within the message."""
    seen = {**seen, "message": ADDRESS.sub("", seen["message"])}
    if name == "generic/html":
        assert seen["type"] == wanted["type"]
        assert "/chat/completions answered with a page, not with a message" in seen["message"]
    else:
        assert seen == wanted


def same_ids(seen: dict[str, Any], expected: dict[str, Any]) -> None:
    """Replace drawn ids by those of the expectation."""
    for got, wanted in zip(seen["content"], expected["content"], strict=True):
        if NUMBERED.match(wanted.get("id", "")) and DRAWN.match(got["id"]):
            got["id"] = wanted["id"]


async def test_anthropic_sdk_accepts_every_transcript() -> None:
    async with (
        all_transcripts() as proxy,
        anthropic.AsyncAnthropic(base_url=proxy, api_key="sk-test", max_retries=0) as client,
    ):

        async def check(case: goldens.Case) -> None:
            if case.name == "generic/arguments_no_object":
                return  # the SDK itself fails on this one; Claude Code does not
            expected = goldens.expected(case.name)
            payload = case.payload(case.name)
            del payload["stream"]
            try:
                async with client.messages.stream(**payload) as stream:
                    message = (await stream.get_final_message()).model_dump(mode="json")
            except anthropic.APIStatusError as refused:
                seen = (refused.status_code, refused.body["error"])  # type: ignore[index]
            else:
                seen = None
            wanted = message_of(expected.stream)
            if expected.refusal is not None:
                wanted = {"error": expected.refusal["body"]["error"]}
            if "error" in wanted:
                assert seen is not None
                assert seen[0] == (expected.refusal["status"] if expected.refusal else 200)
                check_error(case.name, seen[1], wanted["error"])
                return
            same_ids(message, wanted)
            for got, block in zip(message["content"], wanted["content"], strict=True):
                if block["type"] == "tool_use":
                    try:
                        block["input"] = json.loads(block["input"])
                    except ValueError:  # the SDK parses as much as it can
                        block["input"] = got["input"]
                assert block.items() <= got.items()
            assert message["stop_reason"] == wanted["stop_reason"]
            assert message["stop_sequence"] == wanted["stop_sequence"]
            assert message["stop_details"] == wanted.get("stop_details")
            assert message["model"] == case.name
            for name, count in wanted["usage"].items():
                assert message["usage"][name] == count, name

        assert await failures_of(check) == []


async def test_independent_client_reads_every_event() -> None:
    async with all_transcripts() as proxy, aiohttp.ClientSession() as session:

        async def check(case: goldens.Case) -> None:
            expected = goldens.expected(case.name)
            payload = case.payload(case.name)
            if expected.refusal is not None:
                async with session.post(f"{proxy}/v1/messages", json=payload) as response:
                    body = await response.json()
                    assert response.status == expected.refusal["status"]
                    assert body["request_id"] == response.headers["request-id"]
                    check_error(case.name, body["error"], expected.refusal["body"]["error"])
                return
            seen = bytearray()
            source = EventSource(
                f"{proxy}/v1/messages", option={"method": "POST"}, session=session, json=payload
            )
            async with source:
                async for event in source:
                    seen += f"event: {event.type}\ndata: {event.data}\n\n".encode("utf-8", "surrogatepass")
                    if event.type in ("message_stop", "error"):
                        break
            message, wanted = message_of(bytes(seen)), message_of(expected.stream)
            same_ids(message, wanted)
            assert DRAWN.match(message.pop("id"))
            assert message.pop("model") == case.name
            del wanted["id"], wanted["model"]
            if "error" in wanted:
                check_error(case.name, message.pop("error"), wanted.pop("error"))
            assert message == wanted

        assert await failures_of(check) == []


async def test_client_without_streaming_gets_the_same_message() -> None:
    """Every transcript as one JSON message; an error event becomes an HTTP error."""
    async with all_transcripts() as proxy, aiohttp.ClientSession() as session:

        async def check(case: goldens.Case) -> None:
            expected = goldens.expected(case.name)
            payload = {**case.payload(case.name), "stream": False}
            async with session.post(f"{proxy}/v1/messages", json=payload) as response:
                body = await response.json()
            if expected.refusal is not None:
                assert response.status == expected.refusal["status"]
                check_error(case.name, body["error"], expected.refusal["body"]["error"])
                return
            wanted = message_of(expected.stream)
            if "error" in wanted:
                assert response.status >= 429 or wanted["error"]["type"] == "invalid_request_error"
                check_error(case.name, body["error"], wanted["error"])
                return
            assert response.status == 200
            same_ids(body, wanted)
            for block in wanted["content"]:
                if block["type"] == "tool_use":
                    try:
                        block["input"] = json.loads(block["input"])
                    except ValueError:
                        raw = block["input"]
                        block["input"] = {"__unparsedToolInput": {"raw": raw, "len": len(raw)}}
            assert DRAWN.match(body.pop("id"))
            assert body.pop("model") == case.name
            del wanted["id"], wanted["model"]
            assert body == json.loads(json.dumps(wanted))  # joins surrogate pairs

        assert await failures_of(check) == []
