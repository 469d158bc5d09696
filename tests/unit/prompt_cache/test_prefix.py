"""The prefix of a conversation is parsed once, and payloads are the same as without the cache."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import aiohttp
import pytest
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st

from proxyd.prompt_cache import prefix as prefixes
from tests.support.effort import examples
from tests.support.harness import running_proxy, running_upstream, text_stream
from tests.support.hooked import hooked_proxy, write_hook
from tests.support.parsing import cache, forget, nothing_known, outcome_of, parse, parsed, plainly, written

__all__ = ["nothing_known", "parsed"]  # fixtures

MARK = {"type": "ephemeral"}
HEADERS = {"content-type": "application/json", "x-api-key": "k"}


def conversation(turns: int, start: int = 0, length: int = 1000) -> list[dict[str, Any]]:
    """Build two messages per turn and a question; as in Claude Code, only the end has ``cache_control``."""
    messages: list[dict[str, Any]] = []
    for turn in range(start, start + turns):
        use = {
            "type": "tool_use",
            "id": f"toolu_{turn}",
            "name": "Read",
            "input": {"of": ["é\n", turn, 1.5, None]},
        }
        said = [{"type": "text", "text": f'the "{turn}th"'}, use]
        result = {
            "type": "tool_result",
            "tool_use_id": f"toolu_{turn}",
            "content": f"{turn} " * (length // 3),
        }
        messages += [{"role": "assistant", "content": said}, {"role": "user", "content": [result]}]
    question = {"type": "text", "text": "and now?", "cache_control": MARK}
    return [
        {"role": "user", "content": f"first of {start}"},
        *messages,
        {"role": "user", "content": [question]},
    ]


def body_of(messages: list[dict[str, Any]], **more: Any) -> bytes:
    return written({"model": "m", "messages": messages, "system": "s", "max_tokens": 9, **more})


def take(body: bytes) -> dict[str, Any]:
    """Parse and cache a body as for a translated route."""
    payload = parse(body)
    cache.prefixes.remember(payload, body)
    return payload


# -- cache hits


def test_cached_prefix_is_not_parsed_again(parsed: list[bytes]) -> None:
    take(body_of(conversation(20)))
    (known,) = cache.prefixes._known
    parsed.clear()
    body = body_of(conversation(21))
    payload = parse(body)
    assert payload == json.loads(body)
    assert list(payload) == ["model", "messages", "system", "max_tokens"]
    (rest,) = parsed
    assert len(rest) < 1500 < len(known.raw)
    assert payload["messages"][5] is known.messages[5]


def test_prefix_ends_before_the_first_cache_control() -> None:
    messages = conversation(20)
    messages[30]["content"][0]["cache_control"] = MARK
    take(body_of(messages))
    (known,) = cache.prefixes._known
    assert known.messages == messages[:30]
    assert known.raw + b"]" == written(messages[:30])


def test_prefix_grows_with_the_conversation(parsed: list[bytes]) -> None:
    for turns in range(10, 40):
        body = body_of(conversation(turns))
        assert take(body) == json.loads(body)
    (known,) = cache.prefixes._known
    assert 35 * 2 < len(known.messages) < 39 * 2
    assert known.raw + b"]" == written(known.messages)
    whole = [data for data in parsed if data.startswith(b'{"model":"m","messages":[{')]
    assert len(whole) == 1


def test_longest_prefix_is_used() -> None:
    for turns in (30, 20, 20):  # back to an earlier place
        take(body_of(conversation(turns)))
    assert [len(known.messages) for known in cache.prefixes._known] == [61, 41]
    body = body_of(conversation(40))
    payload = take(body)
    assert payload == json.loads(body)
    assert payload["messages"][41] is not cache.prefixes._known[-1].messages[40]
    assert [len(known.messages) for known in cache.prefixes._known] == [81, 41]


@pytest.mark.parametrize(
    ("messages", "why"),
    [
        (conversation(3), "few messages"),
        (conversation(8, length=3), "short ones"),
        (
            [{**message, "cache_control": MARK} for message in conversation(20)],
            "cache_control from the first message on",
        ),
    ],
)
def test_short_prefix_is_not_cached(messages: list[dict[str, Any]], why: str) -> None:
    take(body_of(messages))
    assert cache.prefixes._known == [], why


@pytest.mark.parametrize(
    "write",
    [
        lambda payload: written(payload, separators=(", ", ": ")),
        lambda payload: written(dict(reversed(payload.items())) | {"system": "x" * 600}),
        lambda payload: written(payload).replace(b'"messages"', b'"messages":[1],"messages"'),
        lambda payload: written(payload).replace(b'"role":"assistant"', b'"role":"user","role":"assistant"'),
        lambda payload: written(payload).replace(
            b'{"role":"user"', b'{"a":[{"b":1},{"role":"user"}],"role":"user"'
        ),
    ],
)
def test_payload_is_the_same_for_other_spellings(write: Callable[[Any], bytes]) -> None:
    for turns in (20, 21, 22):
        body = write({"model": "m", "messages": conversation(turns), "max_tokens": 9})
        assert take(body) == json.loads(body)


@pytest.mark.parametrize("body", [b'{"messages":%b,"messages":%b}', b'{"a":{"messages":%b},"messages":%b}'])
def test_prefix_is_not_cached_from_other_messages(body: bytes) -> None:
    ours, others = conversation(20), conversation(20, 50)
    body %= (written(others), written(ours))
    assert take(body)["messages"] == ours
    assert parse(body_of(others))["messages"] == others


def test_boundary_within_a_message_is_not_used() -> None:
    messages = conversation(20)
    messages[-1]["content"] = [{"type": "tool_result", "content": [{"a": 1}, {"role": "user"}]}]
    body = body_of(messages)
    assert take(body) == json.loads(body)
    assert cache.prefixes._known == []


# -- limits


def test_total_size_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefixes, "_MAX_TOTAL_BYTES", 100_000)
    first = body_of(conversation(20, 0))
    for start in range(1000, 1010):
        take(first)  # keep it in use
        take(body_of(conversation(20, start)))
        assert sum(len(known.raw) for known in cache.prefixes._known) <= 100_000
    begun = [known.messages[0]["content"] for known in cache.prefixes._known]
    assert "first of 0" in begun
    assert "first of 1009" in begun
    assert 2 < len(begun) < 6


def test_number_of_prefixes_is_bounded() -> None:
    for start in range(20):
        take(body_of(conversation(20, start)))
    assert {known.messages[0]["content"] for known in cache.prefixes._known} == {
        f"first of {n}" for n in range(12, 20)
    }


def test_long_prefix_is_cached_in_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefixes, "_STEP_BYTES", 20_000)
    monkeypatch.setattr(prefixes, "_MAX_BYTES", 70_000)
    body = body_of(conversation(100))
    lengths = []
    for _ in range(6):
        assert take(body) == json.loads(body)
        (known,) = cache.prefixes._known
        lengths.append(len(known.raw))
    assert lengths[0] <= 20_000 < lengths[1] <= 40_000 < lengths[2] <= 60_000 < lengths[3] <= 70_000
    assert lengths[3:] == [lengths[3]] * 3


async def test_unused_prefix_is_evicted(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running_upstream(say_hello) as upstream, running_proxy([entry(upstream.base)]) as proxy:
        async with aiohttp.ClientSession() as session:
            await ask(session, proxy, body_of(conversation(20), stream=True))
            assert len(cache.prefixes._known) == 1
            cache.evict_unused()
            assert len(cache.prefixes._known) == 1
            monkeypatch.setattr(prefixes, "_UNUSED_S", 0.05)
            for _ in range(100):  # the daemon checks twice a second
                if not cache.prefixes._known:
                    break
                await asyncio.sleep(0.05)
            assert cache.prefixes._known == []


# -- equality with a plain parse


RAW = written(conversation(20)[:-1])[:-1]
ODD_BODIES = [
    b'{"messages":%b]}',
    b'{"messages":%b,1]}',
    b'{"messages":%b1]}',
    b'{"messages":%b',
    b'{"messages":%b]',
    b'{"messages":%b}',
    b'{"messages":%b]]}',
    b'{"messages":%b]}x',
    b'{"messages":%b],"messages":[]}',
    b'{"messages":%b],"messages":[1]}',
    b'{"messages":%b],"messages":{}}',
    b'{"messages":%b],"a":"\xff"}',
    b'{"messages":%b],"a":NaN}',
    b'{"messages":[%b]]}',
    b'{"messages":-%b]}',
    b'{"messages"%b]}',
    b'{"a":{"messages":%b]}}',
    b'{"a":{"messages":%b]},"messages":[2]}',
    b'[{"messages":%b]}]',
    b'{"a":"\\"messages\\":%b]}',
    b'{"a":"{\\"messages":%b]}',
    b'{"a":"x","messages":%b,{"role":"user"}],"tools":[1]}',
]


@pytest.mark.parametrize("body", ODD_BODIES)
def test_body_with_a_cached_prefix_in_other_places(body: bytes) -> None:
    take(body_of(conversation(20)))
    (known,) = cache.prefixes._known
    assert known.raw == RAW
    body %= RAW
    assert outcome_of(parse, body) == outcome_of(plainly, body)


@pytest.mark.parametrize("depth", [250, 252, 253, 254])
def test_depth_limit_is_the_same_with_the_cache(depth: int) -> None:
    nested = json.loads("[" * depth + "]" * depth)
    messages = conversation(20)
    messages[3]["deep"] = nested
    body = body_of(messages)
    expected = outcome_of(plainly, body)
    assert expected.startswith("refused") is (depth > 253)
    for _ in range(3):
        assert outcome_of(take, body) == expected
    deeper = b'{"a":%b}' % body
    assert outcome_of(parse, deeper) == outcome_of(plainly, deeper)


values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats(-1, 1) | st.text(',[]"\\{}:né', max_size=6),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["role", "messages", "cache_control", '"', "\\"]), inner, max_size=3
        )
    ),
    max_leaves=6,
)
messages_of = st.lists(
    st.builds(
        lambda role, content, more: {"role": role, "content": content} | more,
        st.sampled_from(["user", "assistant", "system"]),
        values,
        st.just({}) | st.just({"cache_control": MARK}) | st.builds(lambda value: {"a": value}, values),
    ),
    max_size=5,
)


@given(steps=st.lists(messages_of, min_size=1, max_size=6), data=st.data())
@settings(max_examples=examples(300), deadline=None)
def test_payload_is_the_same_with_the_cache(steps: list[list[dict[str, Any]]], data: st.DataObject) -> None:
    forget()
    tools = data.draw(st.just([]) | st.just([{"name": "Read"}]))
    indent = data.draw(st.sampled_from([None, None, None, 1]))
    limits = {
        "_MIN_MESSAGES": data.draw(st.integers(1, 3)),
        "_MIN_BYTES": 1,
        "_STEP_BYTES": data.draw(st.sampled_from([50, 200, 1 << 18])),
    }
    messages: list[dict[str, Any]] = []
    with mock.patch.multiple(prefixes, **limits):
        for more in steps:
            if data.draw(st.integers(0, 4)) == 0:
                messages = messages[: data.draw(st.integers(0, len(messages)))]  # back to an earlier place
            messages = messages + more
            payload = {"model": "m", "messages": messages, "system": "s", "tools": tools}
            body = written(payload, indent=indent)
            for _ in range(2):
                expected = repr(plainly(body))
                got = parse(body)
                cache.tool_lists.share(got, body)
                cache.prefixes.remember(got, body)
                assert repr(got) == expected
                assert repr(parse(body)) == expected
    fragments = [known.raw for known in cache.prefixes._known] or [b"["]
    fragment = st.sampled_from(
        [
            *fragments,
            *fragments,
            b'{"messages":',
            b'"messages":',
            b"{",
            b"}",
            b"[",
            b"]",
            b",",
            b'"',
            b"\\",
            b"1",
        ]
    )
    odd = b"".join(data.draw(st.lists(fragment, max_size=8)))
    assert outcome_of(parse, odd) == outcome_of(plainly, odd)


# -- through the front door


def entry(base: str, *, direct: bool = False) -> dict[str, Any]:
    return {"model_id": "m", "api_base": base, "direct": direct, "api_key": "sk-upstream-0001"}


async def say_hello(request: web.Request) -> web.Response:
    return web.Response(body=text_stream("Hello."), content_type="text/event-stream")


async def ask(session: aiohttp.ClientSession, proxy: str, body: bytes) -> None:
    async with session.post(f"{proxy}/v1/messages", data=body, headers=HEADERS) as response:
        assert response.status == 200, await response.text()
        assert b"message_stop" in await response.read()


async def test_upstream_gets_the_same_request_with_the_cache() -> None:
    bodies = [body_of(conversation(turns), stream=True) for turns in (10, 11, 14, 19, 12, 25)]
    async with (
        running_upstream(say_hello) as upstream,
        running_proxy([entry(upstream.base)]) as proxy,
        aiohttp.ClientSession() as session,
    ):
        for body in bodies:
            cache.prefixes.clear()
            await ask(session, proxy, body)
        for body in bodies:
            await ask(session, proxy, body)
        assert cache.prefixes._known
        count = len(bodies)
        assert upstream.bodies[count:] == upstream.bodies[:count]


async def test_with_the_setting_off_nothing_is_kept() -> None:
    async with (
        running_upstream(say_hello) as upstream,
        running_proxy([entry(upstream.base)], prompt_cache=False) as proxy,
        aiohttp.ClientSession() as session,
    ):
        for turns in (10, 20, 20):
            await ask(session, proxy, body_of(conversation(turns), stream=True))
    assert cache.prefixes._known == []


async def test_requests_of_direct_routes_are_cached_and_go_on_byte_for_byte() -> None:
    async def silent(request: web.Request) -> web.Response:
        return web.json_response({"type": "message", "content": []})

    async with (
        running_upstream(silent) as upstream,
        running_proxy([entry(upstream.base, direct=True)]) as proxy,
        aiohttp.ClientSession() as session,
    ):
        for turns in (3, 10, 20):
            body = body_of(conversation(turns))
            async with session.post(f"{proxy}/v1/messages", data=body, headers=HEADERS) as response:
                assert response.status == 200
            assert upstream.bodies[-1] == body
    assert cache.prefixes._known


async def test_hook_changes_its_own_request_only(tmp_path: Path) -> None:
    write_hook(
        tmp_path,
        "ruin",
        """
def ruin(value):
    for key, item in list(value.items() if isinstance(value, dict) else enumerate(value)):
        if isinstance(item, (dict, list)):
            ruin(item)
        value[key] = "ruined" if isinstance(item, str) else item
    if isinstance(value, list):
        value.append({"role": "user", "content": "ruined"})
    else:
        value["ruined"] = True

def request_hook(payload):
    for name in ("messages", "tools"):
        ruin(payload.get(name, []))
    return payload
""",
    )
    tools = [{"name": "Read", "description": "reads", "input_schema": {"type": "object"}}]
    body = body_of(conversation(20), tools=tools, stream=True)
    async with hooked_proxy(tmp_path, "translated") as proxy, aiohttp.ClientSession() as session:
        for _ in range(4):
            await ask(session, proxy.base, body)
        assert proxy.upstream.requests[0]["messages"][0]["ruined"] is True
        assert proxy.upstream.requests == [proxy.upstream.requests[0]] * 4
    (known,) = cache.prefixes._known
    assert known.messages == conversation(20)[:-1]
