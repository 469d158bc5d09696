"""What upstreams have signed comes back to them: a response, and then the client's next request."""

from __future__ import annotations

import json
from typing import Any

import pytest

from proxyd.codecs.openai.signed_data import (
    GOOGLES_PLACE,
    SignedData,
    is_signed,
    sign_call,
    signature_in_call,
)
from proxyd.codecs.translation.translated import run_to_end
from proxyd.config.routes import ModelRoute
from proxyd.providers.base import CallTimeouts, ClientKeys
from proxyd.providers.translated_request import TranslatedCall, prepare
from tests.support.sse_reader import message_of

SIGNATURE = "AY89a18IwQsQ8in+b/2Zk=="
TOOL = {"name": "search", "input_schema": {"type": "object", "properties": {"q": {"type": "string"}}}}
#: Where the signature of a call is, and its source.
CALL_PLACES: dict[str, dict[str, Any]] = {
    "Google's OpenAI layer": {"extra_content": {"google": {"thought_signature": SIGNATURE}}},
    "Vertex AI": {"extra_content": {"vertex": {"thought_signature": SIGNATURE}}},
    "higress": {"thought_signature": SIGNATURE},
    "litellm#16893": {"provider_specific_fields": {"thought_signature": SIGNATURE}},
    "camel case": {"extra_content": {"thoughtSignature": SIGNATURE}},
    "in the function": {"function": {"provider_specific_fields": {"thought_signature": SIGNATURE}}},
}
#: Deltas of the message before its call, in which it is signed, and what goes back.
MESSAGE_PLACES: dict[str, tuple[list[dict[str, Any]], dict[str, Any]]] = {
    "openrouter": (
        [{"reasoning_details": [{"type": "reasoning.encrypted", "data": SIGNATURE, "index": 0}]}],
        {"reasoning_details": [{"type": "reasoning.encrypted", "data": SIGNATURE, "index": 0}]},
    ),
    "litellm before Anthropic": (
        [
            {"reasoning_content": "h", "thinking_blocks": [{"type": "thinking", "thinking": "h", "signature": ""}]},
            {"reasoning_content": "m", "thinking_blocks": [{"type": "thinking", "thinking": "m"}]},
            {"thinking_blocks": [{"type": "thinking", "thinking": "", "signature": SIGNATURE}]},
            {"thinking_blocks": [{"type": "redacted_thinking", "data": "r"}]},
        ],
        {
            "thinking_blocks": [
                {"type": "thinking", "thinking": "hm", "signature": SIGNATURE},
                {"type": "redacted_thinking", "data": "r"},
            ]
        },
    ),
    "GitHub Copilot, pi#1502": (
        [{"reasoning_text": "h"}, {"reasoning_text": "m"}, {"reasoning_opaque": SIGNATURE}],
        {"reasoning_text": "hm", "reasoning_opaque": SIGNATURE},
    ),
    "litellm before Copilot, litellm#35021": (
        [{"provider_specific_fields": {"reasoning_text": "hm", "reasoning_opaque": SIGNATURE}}],
        {"provider_specific_fields": {"reasoning_text": "hm", "reasoning_opaque": SIGNATURE}},
    ),
    "litellm before OpenAI, litellm#19736": (
        [{"provider_specific_fields": {"reasoning": {"encrypted_content": SIGNATURE}}}],
        {"provider_specific_fields": {"reasoning": {"encrypted_content": SIGNATURE}}},
    ),
    "Gemini's text": (
        [{"extra_content": {"google": {"thought_signature": SIGNATURE}}}],
        {"extra_content": {"google": {"thought_signature": SIGNATURE}}},
    ),
}  # fmt: skip


def prepared(payload: dict[str, Any], provider: str, **quirks: Any) -> TranslatedCall:
    route = ModelRoute(
        model_id="m",
        model_name="gemini-3-flash",
        api_base="http://127.0.0.1:9",
        provider=provider,
        quirks=quirks,
    )
    steps = prepare(
        route,
        route.api_base,
        payload,
        ClientKeys(),
        timeouts=CallTimeouts(),
        new_id=lambda prefix: f"{prefix}1",
        warn=lambda warning: None,
        max_body_bytes=1 << 20,
        max_frame_bytes=1 << 20,
    )
    return run_to_end(steps)


def next_message(deltas: list[dict[str, Any]], provider: str, **quirks: Any) -> dict[str, Any]:
    """Stream `deltas`, and return the assistant message of the client's next request as the upstream gets it."""
    question: dict[str, Any] = {"role": "user", "content": "go"}
    payload = {"model": "m", "max_tokens": 9000, "stream": True, "tools": [TOOL], "messages": [question]}
    decoder = prepared(payload, provider, **quirks).new_decoder()
    stream = b""
    for delta in [*deltas, None]:
        choice = {"index": 0, "delta": delta or {}, "finish_reason": None if delta else "tool_calls"}
        stream += decoder.feed(b"data: " + json.dumps({"choices": [choice]}).encode() + b"\n\n")
    stream += decoder.feed(b"data: [DONE]\n\n")
    content = message_of(stream)["content"]
    for block in content:
        if block["type"] == "tool_use":
            block["input"] = json.loads(block["input"])
    results = [
        {"type": "tool_result", "tool_use_id": block["id"], "content": "ok"}
        for block in content
        if block["type"] == "tool_use"
    ]
    messages = [
        question,
        {"role": "assistant", "content": content},
        {"role": "user", "content": results or "on"},
    ]
    sent = prepared({**payload, "messages": messages}, provider, **quirks).sent
    return next(message for message in sent["messages"] if message["role"] == "assistant")


def call(**more: Any) -> dict[str, Any]:
    function = {"name": "search", "arguments": '{"q":"x"}', **more.pop("function", {})}
    return {"tool_calls": [{"index": 0, "id": "call_1", "type": "function", "function": function, **more}]}


PROVIDERS = ("generic", "gemini", "openrouter", "openai", "vllm", "groq")


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("place", CALL_PLACES)
def test_signature_of_a_call(place: str, provider: str) -> None:
    fields = CALL_PLACES[place]
    (returned,) = next_message([call(**fields)], provider)["tool_calls"]
    for name, value in fields.items():
        if name == "function":
            assert value.items() <= returned[name].items()
        else:
            assert returned[name] == value


@pytest.mark.parametrize("provider", PROVIDERS)
def test_signature_after_its_call(provider: str) -> None:
    late = {"tool_calls": [{"index": 0, **CALL_PLACES["Google's OpenAI layer"]}]}
    (returned,) = next_message([call(), late], provider)["tool_calls"]
    assert returned["extra_content"] == CALL_PLACES["Google's OpenAI layer"]["extra_content"]


@pytest.mark.parametrize("has_call", [True, False])
@pytest.mark.parametrize("provider", ["generic", "openrouter", "openai"])
@pytest.mark.parametrize("place", MESSAGE_PLACES)
def test_signed_fields_of_a_message(place: str, provider: str, has_call: bool) -> None:
    deltas, expected = MESSAGE_PLACES[place]
    returned = next_message([*deltas, call() if has_call else {"content": "Fine."}], provider)
    signed = {
        name: value for name, value in expected.items() if provider == "generic" or is_signed({name: value})
    }
    assert signed.items() <= returned.items()


def test_none_goes_back_where_the_upstream_refuses_it() -> None:
    deltas, _ = MESSAGE_PLACES["GitHub Copilot, pi#1502"]
    returned = next_message(
        [*deltas, call(**CALL_PLACES["higress"])], "generic", signed_data=False, reasoning_return="none"
    )
    assert SIGNATURE not in json.dumps(returned)


def test_unsigned_fields_stay_here() -> None:
    signed = SignedData()
    signed.add({"provider_specific_fields": {"citations": ["c"]}, "extra_content": None, "signature": ""})
    signed.add({"thinking_blocks": [{"type": "thinking", "thinking": "h"}, "junk"], "reasoning_details": 1})
    assert not signed.is_waiting
    assert signed.take() == (None, None)


@pytest.mark.parametrize(
    "place", [GOOGLES_PLACE, "thought_signature", "function.extra_content.x.thoughtSignature"]
)
def test_place_of_a_call(place: str) -> None:
    signed: dict[str, Any] = {"id": "a", "function": {"name": "T"}}
    sign_call(signed, place, "s")
    assert signature_in_call(signed) == (place, "s")
    assert signed["function"]["name"] == "T"


@pytest.mark.parametrize("place", ["id", "function.arguments", "a.b.c.d.thought_signature", ""])
def test_forged_place_changes_nothing_else(place: str) -> None:
    signed: dict[str, Any] = {"id": "a", "function": {"name": "T", "arguments": "{}"}}
    sign_call(signed, place, "s")
    assert signed == {
        "id": "a",
        "function": {"name": "T", "arguments": "{}"},
        "extra_content": {"google": {"thought_signature": "s"}},
    }
