"""Peeking at a direct request gives the same model and ``stream`` as parsing it, or declines."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxyd import jsonio
from proxyd.codecs.wire.json_patch import splice
from proxyd.config.routes import ModelRoute
from proxyd.providers.unparsed import (
    forwards_unchanged,
    is_plain,
    model_near_start,
    peek_request,
    with_model,
    with_model_of_parsed,
)
from proxyd.telemetry.request_kind import kind_of

FILLER = {"role": "user", "content": "words " * 4000}


def request(**more: Any) -> dict[str, Any]:
    """In the order in which Claude Code writes."""
    return {"model": "m", "messages": [FILLER], "system": "s", **more, "stream": True}


def dumped(payload: Any, **style: Any) -> bytes:
    return json.dumps(payload, ensure_ascii=False, **style).encode()


@pytest.mark.parametrize("style", [{}, {"separators": (",", ":")}, {"indent": 1}])
@pytest.mark.parametrize("stream", [True, False])
def test_model_and_stream_are_found_where_claude_code_writes_them(
    style: dict[str, Any], stream: bool
) -> None:
    body = dumped({**request(), "stream": stream}, **style)
    seen = peek_request(body)
    assert seen is not None
    assert (seen.model, seen.wants_stream) == ("m", stream)
    assert with_model(body, seen, "m") is body
    assert json.loads(with_model(body, seen, 'n"é')) == {**request(), "model": 'n"é', "stream": stream}


def test_stream_may_stand_among_the_first_members() -> None:
    seen = peek_request(dumped({"model": "m", "max_tokens": 5, "stream": False, "messages": [FILLER]}))
    assert seen is not None
    assert not seen.wants_stream


UNUSUAL: list[Any] = [
    {"messages": [FILLER], "model": "m", "stream": True},
    {"model": "m", "messages": [FILLER]},
    {"model": "m", "messages": [FILLER], "stream": "true"},
    {"model": 'a"b', "messages": [FILLER], "stream": True},
    {"model": "", "messages": [FILLER], "stream": True},
    {"model": 3, "messages": [FILLER], "stream": True},
    {"model": "m", "messages": [FILLER], "stream": True, "last": []},
    {"model": "m", "messages": [FILLER], "metadata": {"stream": True}},
    [request()],
]


@pytest.mark.parametrize("payload", UNUSUAL)
def test_unusual_requests_are_parsed(payload: Any) -> None:
    assert peek_request(dumped(payload)) is None


@pytest.mark.parametrize("prefix", [b"\xff", b"  x"])
def test_requests_that_do_not_start_as_json_are_parsed(prefix: bytes) -> None:
    assert peek_request(prefix + dumped(request())) is None


def test_a_model_that_is_not_utf8_is_parsed() -> None:
    assert peek_request(dumped(request()).replace(b'"m"', b'"\xff"')) is None


texts = st.text(max_size=20) | st.sampled_from(
    ['"stream":true}', '"thinking":"', ',"stream":false', "\\", '"', "}"]
)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)
members = st.lists(
    st.tuples(
        st.sampled_from(["max_tokens", "messages", "system", "tools", "metadata", "x"])
        | texts.filter(lambda name: name not in ("model", "stream")),
        values,
    ),
    max_size=6,
)


@given(members, st.integers(0, 6), st.booleans(), st.booleans(), texts)
def test_peeking_agrees_with_parsing(
    others: list[tuple[str, Any]], place: int, stream: bool, is_ascii: bool, model: str
) -> None:
    pairs = [*others[:place], ("stream", stream), *others[place:]]
    payload = {"model": model, **dict(pairs)}
    body = json.dumps(payload, ensure_ascii=is_ascii).encode("utf-8", "surrogatepass")
    seen = peek_request(body)
    if seen is not None:
        assert (seen.model, seen.wants_stream) == (model, stream)
        assert jsonio.loads(with_model(body, seen, "other")) == {**payload, "model": "other"}


OWN_REDACTED = {"type": "redacted_thinking", "data": "cpx1.e30"}
THINKING = {"type": "thinking", "thinking": "hm", "signature": ""}


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({}, True),
        ({"thinking": {"type": "adaptive"}}, True),
        ({"thinking": {"type": "enabled", "budget_tokens": 9}, "tools": [{"name": "Read"}]}, True),
        ({"messages": [FILLER, {"role": "assistant", "content": [THINKING]}]}, False),
        ({"messages": [FILLER, {"role": "assistant", "content": [{**THINKING, "thinking": None}]}]}, False),
        ({"messages": [FILLER, {"role": "assistant", "content": [OWN_REDACTED]}]}, False),
        ({"messages": [FILLER, {"role": "user", "content": 'the word "thinking": "x"'}]}, True),
        ({"messages": [FILLER, {"role": "user", "content": "CRITICAL: Respond with TEXT ONLY, now"}]}, False),
        ({"messages": [FILLER, {"role": "user", "content": 'the word "model": "x"'}]}, True),
        ({"tools": [{"name": "Agent", "input_schema": {"properties": {"model": {"type": "string"}}}}]}, True),
        ({"metadata": {"model": "n"}}, False),
        ({"tools": []}, False),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, False),
    ],
)
@pytest.mark.parametrize("style", [{}, {"separators": (",", ":")}])
def test_side_calls_and_requests_with_thinking_are_parsed(
    more: dict[str, Any], expected: bool, style: dict[str, Any]
) -> None:
    payload = {**request(), **more}
    payload["stream"] = payload.pop("stream")  # last, as Claude Code has it
    has_space = more == {"tools": []} and not style  # Claude Code writes its title requests without the space
    body = dumped(payload, **style)
    seen = peek_request(body)
    assert seen is not None
    assert is_plain(body, seen) is (expected or has_space)
    if expected:
        assert kind_of(payload, is_subagent=False) == "main"


def route(**more: Any) -> ModelRoute:
    return ModelRoute(
        **{
            "model_id": "m",
            "model_name": "m",
            "api_base": "https://api.anthropic.com",
            "direct": True,
            **more,
        }
    )


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({}, True),
        ({"model_name": "other"}, True),
        ({"direct": False}, False),
        ({"max_tokens": 5}, False),
        ({"max_input_tokens": 5}, False),
        ({"temperature": 0.0}, False),
        ({"top_p": 1.0}, False),
        ({"extra_body": {"a": 1}}, False),
        ({"omit": ("context_management",)}, False),
        ({"api_base": "https://api.deepseek.com/anthropic"}, False),  # omits fields
    ],
)
def test_an_entry_that_changes_more_than_the_model_parses(more: dict[str, Any], expected: bool) -> None:
    assert forwards_unchanged(route(**more)) is expected


@pytest.mark.parametrize(
    ("beginning", "model"),
    [
        (b'{"model":"claude-x","messages":[{"ro', "claude-x"),
        (b'{"stream": true, "model" : "m", "mess', "m"),
        (b'{"messages":[{"role":"user","content":"' + b"a" * 3000 + b'"}],"model":"m"}', None),
        (b'{"model":"claude-', None),
        (b'{"model":7', None),
        (b"\xff\x00", None),
    ],
)
def test_the_likely_model_is_known_from_the_beginning_of_a_body(beginning: bytes, model: str | None) -> None:
    assert model_near_start(beginning) == model


@given(members, st.integers(0, 6), texts, st.booleans(), st.sampled_from([None, 1, (",", ":")]))
def test_the_model_of_a_parsed_body_becomes_another_and_nothing_else(
    others: list[tuple[str, Any]], place: int, model: str, is_ascii: bool, style: Any
) -> None:
    payload = dict([*others[:place], ("model", model), *others[place:]])
    spacing = {"indent": style} if style == 1 else {"separators": style}
    body = json.dumps(payload, ensure_ascii=is_ascii, **spacing).encode("utf-8", "surrogatepass")
    assert with_model_of_parsed(body, "other") == splice(body, {"model": "other"})


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"a","x":{"model":"b"}}',
        b'{"x":{"model":"b"},"mod\\u0065l":"a"}',
        b'{"\\"model":"b","model" : "a"}',
        b'{"model":"a","model":"b"}',
        b'{"model":"\\u00e4"}',
    ],
)
def test_the_model_of_an_odd_body_becomes_another_as_well(body: bytes) -> None:
    assert with_model_of_parsed(body, "other") == splice(body, {"model": "other"})
