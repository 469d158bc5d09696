"""Parsing a body with cached tools and system prompts gives the same payload as without the cache."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxyd.codecs.cache.tools import ToolList, shared_system, tool_list_for
from proxyd.prompt_cache import tool_lists
from tests.support.effort import examples
from tests.support.parsing import cache, forget, nothing_known, outcome_of, parse, parsed, plainly, written

__all__ = ["nothing_known", "parsed"]  # fixtures

TOOLS = [
    {"name": "Read", "description": 'Reads "a file"\\n, né', "input_schema": {"type": "object"}},
    {"name": "Bash", "input_schema": {"type": "object", "properties": {"a": {"enum": [1, -2.5, None]}}}},
]


def cache_tools(tools: list[Any] = TOOLS, write: Callable[..., bytes] = written) -> bytes:
    """Cache a list by its raw bytes, in two requests; return them."""
    for model in ("first", "second"):
        body = write({"model": model, "tools": tools, "stream": True})
        cache.tool_lists.share(parse(body), body)
    (known,) = cache.tool_lists._known.values()
    assert known.raw
    return known.raw


# -- cache hits


def test_tools_are_not_parsed_in_the_third_request(parsed: list[bytes]) -> None:
    raw = cache_tools()
    body = written({"model": "m", "messages": [], "tools": TOOLS, "stream": True})
    parsed.clear()
    payload = parse(body)
    assert payload == json.loads(body)
    assert list(payload) == ["model", "messages", "tools", "stream"]
    assert len(parsed) == 1
    assert raw not in parsed[0]
    again = parse(body)
    assert again["tools"] is payload["tools"]
    assert tool_list_for(again["tools"]).raw == raw


def test_tools_seen_once_are_not_located() -> None:
    body = written({"tools": TOOLS})
    cache.tool_lists.share(parse(body), body)
    assert [known.raw for known in cache.tool_lists._known.values()] == [None]
    assert cache.tool_lists.find(body) is None


def test_tools_far_from_the_end_are_parsed(parsed: list[bytes]) -> None:
    cache_tools()
    body = written({"tools": TOOLS, "system": "x" * 5000})
    parsed.clear()
    assert parse(body) == json.loads(body)
    assert parsed == [body]


def test_least_recently_used_lists_are_evicted() -> None:
    lists = [[{"name": f"T{number}"}] for number in range(10)]
    for tools in lists:
        for _ in range(2):
            body = written({"tools": tools})
            cache.tool_lists.share(parse(body), body)
        assert parse(written({"tools": lists[0]}))["tools"] == lists[0]  # keep it in use
    found = [cache.tool_lists.find(written({"tools": tools})) is not None for tools in lists]
    assert found == [True, False, False, *[True] * 7]


def test_long_tool_list_is_not_cached(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tool_lists, "_MAX_BYTES", 200)
    tools = [{"name": "é" * 60}]  # 200 bytes and more when escaped only
    for _ in range(3):
        body = written({"tools": tools}, ensure_ascii=True)
        cache.tool_lists.share(parse(body), body)
    assert [known.raw for known in cache.tool_lists._known.values()] == [b""]


@pytest.mark.parametrize(
    "write",
    [
        lambda payload: written(payload, indent=2),
        lambda payload: written(payload, separators=(" , ", " : ")),
        lambda payload: written(payload, ensure_ascii=True),
        lambda payload: written(payload).replace(b'"tools"', b'"t\\u006fols"'),
        lambda payload: written(payload).replace(b'"tools"', b'"tools":[5],"tools"'),
        lambda payload: written(payload).replace(b"-2.5", b"-25e-1"),
    ],
)
def test_tools_are_found_in_the_form_they_were_written_in(
    write: Callable[..., bytes], parsed: list[bytes]
) -> None:
    raw = cache_tools(write=write)
    body = write({"model": "m", "tools": TOOLS, "stream": True})
    parsed.clear()
    assert parse(body) == json.loads(body)
    assert raw not in parsed[0]


SYSTEM = [{"type": "text", "text": "You are."}, {"type": "text", "text": 'Say "né"\\n', "cache_control": {}}]
#: As Claude Code writes them.
RAW_SYSTEM = b'"system":%b,"tools":' % written(SYSTEM)


def cache_both(system: Any = SYSTEM, write: Callable[..., bytes] = written) -> ToolList:
    for model in ("first", "second", "third"):
        body = write({"model": model, "system": system, "tools": TOOLS, "stream": True})
        cache.tool_lists.share(parse(body), body)
    (known,) = cache.tool_lists._known.values()
    assert known.raw
    return known


def test_system_prompt_before_the_tools_is_not_parsed(parsed: list[bytes]) -> None:
    known = cache_both()
    body = written({"model": "m", "messages": [], "system": SYSTEM, "tools": TOOLS, "stream": True})
    parsed.clear()
    payload = parse(body)
    assert payload == json.loads(body)
    assert list(payload) == ["model", "messages", "system", "tools", "stream"]
    assert len(parsed) == 1
    assert b"You are." not in parsed[0]
    assert known.system is not None
    assert payload["system"] is known.system.value
    assert shared_system(payload) is known.system


def test_changed_system_prompt_is_parsed_and_cached() -> None:
    cache_both()
    for _ in range(3):
        body = written({"model": "m", "system": "another", "tools": TOOLS})
        payload = parse(body)
        assert payload == json.loads(body)
        cache.tool_lists.share(payload, body)
    (known,) = cache.tool_lists._known.values()
    assert known.system is not None
    assert known.system.raw == b'"another","tools":'
    assert shared_system(parse(written({"system": SYSTEM, "tools": TOOLS}))) is None


@pytest.mark.parametrize(
    "write",
    [
        lambda payload: written(payload, indent=2),
        lambda payload: written(dict(reversed(payload.items()))),
        lambda payload: written(payload).replace(b'"system"', b'"system":5,"system"'),
        lambda payload: written(payload).replace(b'"tools"', b'"a":5,"tools"'),
        lambda payload: written(payload).replace(b'"tools"', b'"tools":5,"tools"'),
    ],
)
def test_system_prompt_is_found_directly_before_the_tools_only(write: Callable[..., bytes]) -> None:
    known = cache_both(write=write)
    body = write({"model": "m", "system": SYSTEM, "tools": TOOLS, "stream": True})
    assert parse(body) == json.loads(body)
    assert known.system is not None
    assert known.system.raw == (RAW_SYSTEM[9:] if b'"system":5' in body else b"")


def test_long_system_prompt_is_not_cached(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tool_lists, "_MAX_BYTES", 300)
    assert cache_both("x" * 300).system is None


# -- equality with a plain parse


RAW = written(TOOLS)
#: Two strings and a comma, or the end of one string, two commas and the beginning of another.
AMBIGUOUS = b'[",",","]'

ODD_BODIES = [
    b'{"messages":%b}' % RAW,
    b'{"a":{"tools":%b}}' % RAW,
    b'{"tools":[%b]}' % RAW,
    b'{"tools":{"tools":%b}}' % RAW,
    b'{"tools":%b,"tools":%b}' % (RAW, RAW),
    b'{"tools":%b,"tools":[]}' % RAW,
    b'{"tools":[],"tools":%b}' % RAW,
    b'{"tools":%b,"a":{"tools":%b}}' % (RAW, RAW),
    b'{"tools":%b' % RAW,
    b'{"tools":%b]}' % RAW,
    b'{"tools":%b,}' % RAW,
    b'{"tools":%b}x' % RAW,
    b'{"tools"%b}' % RAW,
    b'{"tools":-%b}' % RAW,
    b'{"tools":1%b}' % RAW,
    b'{"tools":"%b"}' % RAW,
    b'{"tools":"\\%b"}' % RAW,
    b'{"tools":%b"}' % RAW,
    b'{"tools":%b%b}' % (RAW, RAW),
    b'{"tools":%b}' % written(written(TOOLS).decode()),
    b"[%b]" % RAW,
    RAW,
    b'{"tools":%b}' % RAW.replace(b"Read", b"Reap"),
    b'{"tools":%b}' % RAW.replace(b"[{", b"[ {", 1),
    b'{"tools":%b,"a":%b}' % (RAW, b"[" * 255 + b"]" * 255),
    b'{"tools":%b,"a":%b}' % (RAW, b"[" * 256 + b"]" * 256),
    b'{"a":"\xff","tools":%b}' % RAW,
    b'{"a":NaN,"tools":%b}' % RAW,
]


@pytest.mark.parametrize("body", ODD_BODIES)
def test_body_with_cached_tools_in_other_places(body: bytes) -> None:
    assert cache_tools() == RAW
    assert outcome_of(parse, body) == outcome_of(plainly, body)


ODD_SYSTEMS = [
    b'{%b%b}',
    b'{"a":%b%b}',
    b'{"messages":[{%b%b}]}',
    b'{%b%b,"system":1}',
    b'{"system":1,%b%b}',
    b'{%b%b,"tools":[]}',
    b'{"tools":[],%b%b}',
    b'{"a":{%b%b},"system":2,"tools":3}',
    b'{"a":"%b%b"}',
    b'{"a":[%b%b]}',
    b'{"a":"\\\"%b%b}',
    b'{%b%b',
    b'{%b%b]}',
    b'{"\xff":1,%b%b}',
    b'{-%b%b}',
]  # fmt: skip


@pytest.mark.parametrize("body", ODD_SYSTEMS)
@pytest.mark.parametrize("start", [0, 8, 9])
def test_body_with_a_cached_system_prompt_in_other_places(body: bytes, start: int) -> None:
    known = cache_both()
    assert known.system is not None
    assert known.system.raw == RAW_SYSTEM[9:]
    body %= (RAW_SYSTEM[start:], RAW)
    assert outcome_of(parse, body) == outcome_of(plainly, body)


@pytest.mark.parametrize("body", [b'{"tools":["x%by"]}', b'{"tools":["x","%b"]}', b'{"tools":"%b"}'])
def test_tools_whose_bytes_may_span_strings(body: bytes) -> None:
    assert cache_tools(json.loads(AMBIGUOUS)) == AMBIGUOUS
    body %= AMBIGUOUS
    assert outcome_of(parse, body) == outcome_of(plainly, body)


@pytest.mark.parametrize("depth", [250, 254, 255, 256])
def test_depth_limit_is_the_same_with_the_cache(depth: int) -> None:
    raw = b"[" * depth + b"]" * depth
    body = b'{"tools":%b,"a":"%b"}' % (raw, b"x" * 600)
    expected = outcome_of(plainly, body)
    assert expected.startswith("refused") is (depth > 255)
    for _ in range(3):
        assert outcome_of(parse, body) == expected
        if depth <= 255:
            cache.tool_lists.share(parse(body), body)
    deeper = b'{"a":{"tools":%b}}' % raw
    assert outcome_of(parse, deeper) == outcome_of(plainly, deeper)


values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(',[]"\\{}:né', max_size=6),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["tools", "a", '"', "\\"]), inner, max_size=3)
    ),
    max_leaves=8,
)
tool_lists_of = st.lists(values, min_size=1, max_size=3)


@given(tools=tool_lists_of, data=st.data())
@settings(max_examples=examples(300))
def test_payload_is_the_same_with_the_cache(tools: list[Any], data: st.DataObject) -> None:
    forget()
    indent = data.draw(st.sampled_from([None, 1]))
    raw = cache_tools(tools, lambda payload: written(payload, indent=indent))
    system = data.draw(values)
    for _ in range(2):
        both = written({"model": "m", "system": system, "tools": tools})
        cache.tool_lists.share(parse(both), both)
    fragment = (
        st.sampled_from(
            [
                raw,
                raw,
                b'"system":%b,"tools":' % written(system),
                b'%b,"tools":' % written(system),
                b'{"tools":',
                b'"tools":',
                b"{",
                b"}",
                b"[",
                b"]",
                b",",
                b'"',
                b"\\",
                b" ",
            ]
        )
        | st.sampled_from(
            [raw[:-1], raw[1:], b'"a":', b"1", raw.replace(b",", b", "), raw.replace(b'"', b'\\"')]
        )
        | values.map(written)
    )
    scraps = st.lists(fragment, max_size=8).map(b"".join)
    bodies = values.map(
        lambda value: written(
            {"model": "m", "messages": value, "system": system, "tools": tools}, indent=indent
        )
    )
    body = data.draw(bodies | scraps | scraps.map(lambda inner: b'{"tools":%b}' % inner))
    cut = data.draw(st.none() | st.integers(0, len(body)))
    body = body[:cut]
    assert outcome_of(parse, body) == outcome_of(plainly, body)
    payload = None if outcome_of(plainly, body).startswith("refused") else plainly(body)
    if payload is not None:
        cache.tool_lists.share(payload, body)  # whatever is cached of it
        assert outcome_of(parse, body) == outcome_of(plainly, body)
