"""Credentials of clients."""

from __future__ import annotations

import pytest

from proxyd.providers.base import ClientKeys, UpstreamRequest
from proxyd.secret import Secret


@pytest.mark.parametrize(
    ("headers", "api_key", "bearer"),
    [
        ({}, None, None),
        ({"x-api-key": " k "}, "k", None),
        ({"authorization": "bearer t"}, None, "t"),
        ({"authorization": "Basic t"}, None, None),
        ({"authorization": "Bearer "}, None, None),
        ({"x-api-key": "k", "authorization": "Bearer t"}, "k", "t"),
    ],
)
def test_keys_from_headers(headers: dict[str, str], api_key: str | None, bearer: str | None) -> None:
    keys = ClientKeys.from_headers(headers)
    assert [key and key.reveal() for key in (keys.api_key, keys.bearer)] == [api_key, bearer]
    assert (keys.any.reveal() if keys.any else None) == (api_key or bearer)
    assert len(keys.all) == (api_key is not None) + (bearer is not None)


def test_access_token_is_removed() -> None:
    keys = ClientKeys.from_headers({"x-api-key": "own-token", "authorization": "Bearer t"})
    rest = keys.without(Secret("own-token"))
    assert (rest.api_key, rest.bearer) == (None, keys.bearer)


def test_repr_shows_neither_key_nor_prompt() -> None:
    request = UpstreamRequest("https://u", {"authorization": "Bearer abc"}, b"prompt")
    assert "abc" not in repr(request)
    assert "prompt" not in repr(request)
