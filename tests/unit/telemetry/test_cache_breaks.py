"""Which block of a prompt broke the cache, from checksums alone."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from proxyd import jsonio
from proxyd.codecs.anthropic.usage import Usage
from proxyd.telemetry.cache_breaks import CacheBreaks, checksums
from proxyd.telemetry.call_record import CallRecord
from tests.support.command_line import output
from tests.support.harness import chunk, running_proxy, running_upstream, sse
from tests.support.observing import SESSION, ask, in_flight, until_rows

Payload = dict[str, Any]
OF_SESSION = {"x-claude-code-session-id": SESSION}
MARK = {"cache_control": {"type": "ephemeral"}}
FIRST: Payload = {
    "model": "m",
    "tools": [{"name": "Read", "input_schema": {"type": "object"}}, {"name": "Bash", "input_schema": {}}],
    "system": [
        {"type": "text", "text": "x-anthropic-billing-header: cc_version=1.2;"},
        {"type": "text", "text": "You are careful. Today is 2026-11-23.", **MARK},
    ],
    "messages": [
        {"role": "user", "content": [{"type": "text", "text": "Hello", **MARK}]},
        {"role": "assistant", "content": "Hi."},
    ],
}


def call(payload: Payload, read: int, written: int = 0, **more: Any) -> CallRecord:
    return in_flight(prompt_blocks=checksums(payload), usage=Usage(100, 5, read, written), **more)


def grown(payload: Payload) -> Payload:
    """The same conversation one turn later, as Claude Code sends it: markers have moved on."""
    later = copy.deepcopy(payload)
    later["messages"][0]["content"] = "Hello"
    later["messages"].append({"role": "user", "content": [{"type": "text", "text": "And now?", **MARK}]})
    return later


def set_in(path: str, value: Any) -> Callable[[Payload], None]:
    def change(payload: Payload) -> None:
        place: Any = payload
        *names, last = path.split(".")
        for name in names:
            place = place[int(name) if name.isdigit() else name]
        place[int(last) if last.isdigit() else last] = value

    return change


CHANGES = [
    (set_in("tools.1.input_schema", {"type": "object"}), "tools[1] changed"),
    (set_in("system.1.text", "You are careful. Today is 2026-11-24."), "system[1] changed"),
    (set_in("messages.1.content", "Hi!"), "messages[1] changed"),
    (lambda payload: payload["tools"].pop(), "tools[1] or system[1] changed"),
    (
        lambda payload: payload["messages"].__delitem__(slice(1, None)),
        "messages[1] and what follows are gone",
    ),
]


@pytest.mark.parametrize(("change", "reason"), CHANGES)
def test_the_first_block_that_changed_is_named(change: Callable[[Payload], None], reason: str) -> None:
    breaks = CacheBreaks()
    breaks.find(call(FIRST, 0, 5000))
    later = grown(FIRST)
    change(later)
    record = call(later, 0)
    assert breaks.find(record) == reason


def test_growing_conversation_is_no_break() -> None:
    breaks, later = CacheBreaks(), grown(FIRST)
    later["system"][0]["text"] = "x-anthropic-billing-header: cc_version=1.3;"
    later["tools"].insert(0, {"name": "DeferredToolPlaceholder"})
    for record in (call(FIRST, 0, 5000), call(later, 4900), call(later, 4900)):
        assert breaks.find(record) is None


def test_moved_placeholder_is_no_break() -> None:
    breaks, later = CacheBreaks(), grown(FIRST)
    breaks.find(call(FIRST, 0, 5000))
    later["tools"].insert(0, {"name": "DeferredToolPlaceholder"})
    later["system"][1]["text"] = "Other."
    record = call(later, 0)
    assert breaks.find(record) == "system[1] changed"


def test_expired_cache_of_the_upstream() -> None:
    breaks = CacheBreaks()
    breaks.find(call(FIRST, 0, 5000, started_at=1000.0))
    record = call(grown(FIRST), 0, started_at=1000.0 + 2 + 12 * 60)
    assert breaks.find(record) == (
        "nothing changed; the upstream no longer had it, 12 min after the call before"
    )


def test_another_model() -> None:
    breaks = CacheBreaks()
    breaks.find(call(FIRST, 5000))
    record = call(FIRST, 0, route="other")
    assert breaks.find(record) == "another model served: m before"


NOT_COMPARED = [
    {"session_id": "another"},
    {"agent_id": "subagent-1"},
    {"kind": "title"},
    {"outcome": "failed"},
]


@pytest.mark.parametrize("fields", NOT_COMPARED)
def test_only_calls_of_one_conversation_are_compared(fields: dict[str, Any]) -> None:
    breaks = CacheBreaks()
    breaks.find(call(FIRST, 5000))
    record = call({**FIRST, "system": "other"}, 0, **fields)
    assert breaks.find(record) is None


def test_least_recent_conversations_are_evicted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxyd.telemetry.cache_breaks._MAX_CONVERSATIONS", 2)
    breaks = CacheBreaks()
    for session in ("a", "b", "c"):
        breaks.find(call(FIRST, 5000, session_id=session))
    for session, is_known in (("c", True), ("b", True), ("a", False)):
        record = call({**FIRST, "tools": []}, 0, session_id=session)
        assert (breaks.find(record) is not None) is is_known


ODD: list[Payload] = [
    {},
    {"system": 3, "tools": {}, "messages": [None, {"content": [float("nan"), {"text": "\ud800"}]}]},
    {"system": [None], "tools": [None, {"name": None}], "messages": [{"role": 5, "content": None}]},
]


@pytest.mark.parametrize("payload", ODD)
def test_any_request_has_checksums(payload: Payload) -> None:
    assert checksums(payload) == checksums(copy.deepcopy(payload))


async def test_through_the_daemon(tmp_path: Path) -> None:
    """The ledger, and ``stats --session``, say what broke the cache; no text of the prompt is in the file.

    Until the first report of cached tokens nobody knows that there is a cache to break.
    """

    async def respond(request: web.Request) -> web.StreamResponse:
        details = {"cached_tokens": 0, "cache_write_tokens": 3000}
        usage = {"prompt_tokens": 4000, "completion_tokens": 5, "prompt_tokens_details": details}
        body = sse(chunk({"content": "Hello"}), chunk({}, "stop"), chunk(usage=usage))
        return web.Response(body=body, content_type="text/event-stream")

    state = tmp_path / ".local" / "state" / "claude-proxy"
    other, later = {**FIRST, "system": "You are careless."}, grown(FIRST)
    later["system"][1]["text"] = "You are careful. Today is 2026-11-24."
    async with running_upstream(respond) as upstream:
        entry = {"model_id": "m", "api_base": upstream.base + "/v1"}
        async with running_proxy([entry], state_folder=state) as base, aiohttp.ClientSession() as session:
            for payload in (other, FIRST, later):
                await ask(session, base, headers=OF_SESSION, **{**payload, "stream": True})
            calls = await until_rows(state, 3)
    assert [row["status"] for row in calls] == [200] * 3
    assert [row["cache_break"] for row in calls] == [None, None, "system[1] changed"]
    assert "cache lost: system[1] changed" in output(tmp_path, "stats", "--session", SESSION)
    for file in state.iterdir():
        assert b"careful" not in file.read_bytes()


@pytest.mark.parametrize("is_stream", [True, False], ids=["stream", "whole"])
async def test_direct_upstream_without_cache_hits(tmp_path: Path, is_stream: bool) -> None:
    """A break is explained where the upstream reports no cached token at all: the route is known to cache."""
    counts = iter([3000, 3000, 0])

    async def respond(request: web.Request) -> web.StreamResponse:
        usage = {
            "input_tokens": 4000,
            "cache_creation_input_tokens": next(counts),
            "cache_read_input_tokens": 0,
        }
        message = {"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": []}
        if not is_stream:
            return web.json_response(
                {**message, "stop_reason": "end_turn", "usage": {**usage, "output_tokens": 5}}
            )
        frames = [
            {"type": "message_start", "message": {**message, "usage": {**usage, "output_tokens": 0}}},
            {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 5}},
            {"type": "message_stop"},
        ]
        body = b"".join(b"event: %b\ndata: %b\n\n" % (f["type"].encode(), jsonio.dumps(f)) for f in frames)
        return web.Response(body=body, content_type="text/event-stream")

    state = tmp_path / "state"
    later = grown(FIRST)
    later["system"][1]["text"] = "You are careful. Today is 2026-11-24."
    async with running_upstream(respond) as upstream:
        entry = {"model_id": "m", "api_base": upstream.base, "direct": True}
        async with running_proxy([entry], state_folder=state) as base, aiohttp.ClientSession() as session:
            for payload in (FIRST, FIRST, later):
                await ask(session, base, headers=OF_SESSION, **{**payload, "stream": is_stream})
            calls = await until_rows(state, 3)
    assert [row["status"] for row in calls] == [200] * 3
    assert calls[-1]["cache_break"] == "system[1] changed"
