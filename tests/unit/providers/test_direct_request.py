"""Addresses, headers and bodies of direct requests. More through sockets in tests/integration/direct."""

from __future__ import annotations

from typing import Any

import pytest
from multidict import CIMultiDict

from proxyd import jsonio
from proxyd.codecs.anthropic.thinking_signature import PREFIX
from proxyd.config.routes import ModelRoute
from proxyd.errors import BadCredential, BadReply
from proxyd.providers.base import CallTimeouts, ClientKeys, UpstreamRequest
from proxyd.providers.direct_request import direct_url, prepare, response_head


@pytest.mark.parametrize(
    ("base", "path", "query", "url"),
    [
        ("https://a/x", "/v1/messages", "", "https://a/x/v1/messages"),
        ("https://a/v1", "/v1/messages", "beta=true", "https://a/v1/messages?beta=true"),
        ("https://a/", "/v1/messages", "a=%2F", "https://a/v1/messages?a=%2F"),
    ],
)
def test_address(base: str, path: str, query: str, url: str) -> None:
    assert direct_url(base, path, query) == url


def prepared(
    payload: dict[str, Any], headers: dict[str, str] | None = None, *, is_first: bool = True, **entry: Any
) -> UpstreamRequest:
    route = ModelRoute(
        **{
            "model_id": "m",
            "model_name": "up",
            "api_base": "https://api.example.com",
            "direct": True,
            **entry,
        }
    )
    given = CIMultiDict({"x-api-key": "k", **(headers or {})})
    return prepare(
        route,
        path="/v1/messages",
        query="",
        headers=given,
        body=jsonio.dumps(payload),
        payload=payload,
        keys=ClientKeys.from_headers(given),
        timeouts=CallTimeouts(),
        is_first=is_first,
    )


def test_entry_changes_model_limits_and_fields() -> None:
    payload = {"model": "m", "max_tokens": 50, "messages": [], "output_config": {}}
    sent = prepared(payload, {"anthropic-beta": "effort-1,other"}, max_tokens=9, omit=("output_config",))
    assert jsonio.loads(sent.body) == {"model": "up", "max_tokens": 9, "messages": []}
    assert sent.headers["anthropic-beta"] == "other"


@pytest.mark.parametrize(
    ("field", "beta"),
    [
        ("context_management", "context-management-2025-06-27"),
        ("mcp_servers", "mcp-client-2025-11-20"),
        ("output_config", "effort-2025-11-24"),
        ("safeguards", "dangerous-tool-use-2026-09-03"),
    ],
)
def test_omitted_field_takes_its_beta_along(field: str, beta: str) -> None:
    payload = {"model": "m", "messages": [], field: []}
    headers = {"anthropic-beta": f"claude-code-20250219,{beta}"}
    sent = prepared(payload, headers, omit=(field,))
    assert field not in jsonio.loads(sent.body)
    assert sent.headers["anthropic-beta"] == "claude-code-20250219"
    sent = prepared(payload, headers)
    assert field in jsonio.loads(sent.body)
    assert beta in sent.headers["anthropic-beta"]


def test_thinking_of_translated_routes_is_removed() -> None:
    block = {"type": "thinking", "thinking": "t", "signature": f"{PREFIX}x"}
    kept = {"type": "thinking", "thinking": "t", "signature": "theirs"}
    payload = {
        "model": "up",
        "messages": [
            {"role": "assistant", "content": [block]},
            {"role": "assistant", "content": [block, kept]},
        ],
    }
    assert jsonio.loads(prepared(payload).body)["messages"] == [{"role": "assistant", "content": [kept]}]


def test_custom_headers_are_sent_to_the_chosen_upstream_only() -> None:
    assert prepared({"model": "up"}, {"x-team": "a"}).headers["x-team"] == "a"
    assert "x-team" not in prepared({"model": "up"}, {"x-team": "a"}, is_first=False).headers


def test_missing_key() -> None:
    with pytest.raises(BadCredential, match="no API key came with the request"):
        prepared({"model": "up"}, {"x-api-key": ""})


def test_response_head() -> None:
    head = [("Connection", "x-hop"), ("X-Hop", "1"), ("request-id", "r"), ("x-bad", "a\x00b")]
    assert response_head(200, head) == [("request-id", "r")]
    with pytest.raises(BadReply):
        response_head(101, [])
