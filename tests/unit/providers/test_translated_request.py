"""Addresses, keys and headers of translated requests. Bodies are tested in tests/unit/codecs/openai."""

from __future__ import annotations

from typing import Any

import pytest

from proxyd.config.routes import ModelRoute
from proxyd.errors import BadCredential, ClientError
from proxyd.providers.base import CallTimeouts, ClientKeys
from proxyd.providers.translated_request import TranslatedCall, endpoint_url, prepare
from proxyd.secret import Secret


@pytest.mark.parametrize(
    ("base", "url"),
    [
        ("https://a/v1", "https://a/v1/chat/completions"),
        ("https://a/v1/?api-version=1", "https://a/v1/chat/completions?api-version=1"),
    ],
)
def test_address(base: str, url: str) -> None:
    assert endpoint_url(base, "/chat/completions") == url


def test_an_address_with_a_query_and_a_path_with_one() -> None:
    assert endpoint_url("https://a/v1/", "/m:stream?alt=sse") == "https://a/v1/m:stream?alt=sse"
    assert endpoint_url("https://a/v1?v=1", "/m:stream?alt=sse") == "https://a/v1/m:stream?alt=sse&v=1"


def test_the_format_decides_the_header_of_the_key() -> None:
    gemini, chat = prepared(format="gemini").request.headers, prepared(format="openai-chat").request.headers
    assert "authorization" not in gemini
    assert gemini["x-goog-api-key"] == chat["authorization"].removeprefix("Bearer ")
    assert "x-goog-api-key" not in chat


def test_the_format_decides_the_path_and_the_body() -> None:
    chat, responses = prepared(format="openai-chat"), prepared(format="openai-responses")
    assert chat.request.url == "https://api.example.com/v1/chat/completions"
    assert responses.request.url == "https://api.example.com/v1/responses"
    assert "messages" in chat.sent
    assert responses.sent["input"] == [
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "u"}]}
    ]
    assert responses.context.max_tokens == chat.context.max_tokens == 5


TOOLS = {"tools": [{"name": "Bash", "input_schema": {"type": "object"}}]}


@pytest.mark.parametrize(
    ("entry", "is_wanted"),
    [
        ({}, False),
        ({"provider": "vllm"}, True),
        ({"quirks": {"text_tool_calls": "always"}}, True),
        ({"api_base": "http://127.0.0.1:9/v1"}, True),
        ({"api_base": "http://10.0.0.7:8000/v1"}, True),
        ({"api_base": "http://gpu-box:8000/v1"}, True),
        ({"api_base": "http://127.0.0.1:9/v1", "quirks": {"text_tool_calls": "never"}}, False),
        ({"provider": "vllm", "format": "openai-responses"}, False),
    ],
)
def test_where_calls_are_looked_for_in_the_text(entry: dict[str, Any], is_wanted: bool) -> None:
    tools = prepared(more=TOOLS, **entry).response.tools
    assert (tools is not None and tools.names == ("Bash",)) is is_wanted
    assert prepared(more={**TOOLS, "tool_choice": {"type": "none"}}, **entry).response.tools is None
    assert prepared(**entry).response.tools is None


def prepared(
    client: dict[str, str] | None = None, more: dict[str, Any] | None = None, **entry: Any
) -> TranslatedCall:
    route = ModelRoute(
        **{"model_id": "m", "model_name": "up", "api_base": "https://api.example.com/v1", **entry}
    )
    steps = prepare(
        route,
        route.api_base,
        {"model": "m", "max_tokens": 5, "messages": [{"role": "user", "content": "u"}], **(more or {})},
        ClientKeys.from_headers({"x-api-key": "client"} if client is None else client),
        timeouts=CallTimeouts(),
        new_id=lambda: "id",
        warn=lambda *args, **kwargs: None,
        max_body_bytes=1000,
    )
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            call = stop.value
            assert isinstance(call, TranslatedCall)
            return call


def test_key_of_the_entry_replaces_the_clients() -> None:
    assert prepared().request.headers["authorization"] == "Bearer client"
    assert prepared(api_key=Secret("own")).request.headers["authorization"] == "Bearer own"
    azure = prepared(api_base="https://x.openai.azure.com/openai/v1")
    assert azure.request.headers["api-key"] == "client"


def test_missing_key() -> None:
    with pytest.raises(BadCredential):
        prepared({})
    assert "authorization" not in prepared({}, api_base="http://127.0.0.1:1/v1").request.headers
    with pytest.raises(BadCredential, match="K is not set"):
        prepared(missing_key="model 'm' has no key: K is not set")


def test_extra_headers_override_others() -> None:
    headers = prepared(extra_headers={"User-Agent": "x", "X-A": "b"}).request.headers
    assert (headers["user-agent"], headers["x-a"]) == ("x", "b")


def test_a_number_without_a_json_form_is_refused() -> None:
    call = prepared().with_body({"temperature": float("nan")})
    with pytest.raises(ClientError, match="NaN"):
        call.written()
