"""Header policy of direct routes."""

from __future__ import annotations

import pytest

from proxyd.errors import BadReply
from proxyd.headers import forwarded_names, is_never_forwarded, is_returned


@pytest.mark.parametrize(
    "name",
    [
        "accept",
        "User-Agent",
        "anthropic-beta",
        "Anthropic-Version",
        "x-stainless-lang",
        "x-claude-code-session-id",
    ],
)
def test_headers_of_the_api_are_forwarded(name: str) -> None:
    assert forwarded_names((name,), ()) == (name.lower(),)


@pytest.mark.parametrize(
    "name",
    [
        "Authorization", "x-api-key", "Cookie", "Host", "Connection", "Transfer-Encoding", "Content-Length",
        "Accept-Encoding", "X-Claude-Code-Request-Class", "x-claude-code-prev-tool-durations",
        "x-claude-code-prompt-id", "x-claude-1p-request-class",
        "X-Forwarded-For", "Sec-Fetch-Site", "X-Claude-Proxy-Model", "Proxy-Authorization", "Origin",
    ],
)  # fmt: skip
def test_some_headers_are_never_forwarded(name: str) -> None:
    assert forwarded_names((name,), ("*", name)) == ("",)
    assert is_never_forwarded(name)


def test_own_headers_are_forwarded_by_pattern() -> None:
    names = ("X-Team", "x-tag-a", "Helicone-Auth")
    assert forwarded_names(names, ()) == ("", "", "")
    assert forwarded_names(names, ("x-team", "X-Tag-*")) == ("x-team", "x-tag-a", "")
    assert forwarded_names(names, ("*",)) == ("x-team", "x-tag-a", "helicone-auth")
    assert not is_never_forwarded("x-team")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Content-Type", True),
        ("request-id", True),
        ("anthropic-ratelimit-requests-limit", True),
        ("Set-Cookie", False),
        ("Access-Control-Allow-Origin", False),
        ("Connection", False),
        ("Refresh", False),
        ("X-Claude-Proxy-Model", False),
    ],
)
def test_response_headers(name: str, expected: bool) -> None:
    assert is_returned(name) is expected


@pytest.mark.parametrize("name", ["", "a b", "a:", "a\r\n", "ä"])
def test_invalid_response_header_name_is_refused(name: str) -> None:
    with pytest.raises(BadReply):
        is_returned(name)
