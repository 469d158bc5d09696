"""Which requests pass the checks of Host, Origin and access token."""

from __future__ import annotations

from dataclasses import replace

import pytest
from aiohttp.test_utils import make_mocked_request

from proxyd.api.access_control import (
    TOKEN_HEADER,
    check_origin,
    check_token,
    comes_from_api_client,
    without_token,
)
from proxyd.config.settings import Settings
from proxyd.errors import BadCredential, Forbidden, Misdirected
from proxyd.providers.base import ClientKeys
from proxyd.secret import Secret

SETTINGS = replace(Settings(), port=8082, allowed_hosts=("proxy.example",))
WITH_TOKEN = replace(SETTINGS, auth_token=Secret("the-token"))


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "localhost:8082"},
        {"Host": "127.0.0.1"},
        {"Host": "[::1]:8082"},
        {"Host": "PROXY.example.:8082"},
        {"Host": "localhost:8082", "Origin": "http://localhost:8082"},
        {"Host": "localhost:8082", "Sec-Fetch-Site": "same-origin"},
        {"Host": "proxy.example", "Origin": "https://proxy.example"},
    ],
)
def test_requests_of_clients_and_of_our_page_are_accepted(headers: dict[str, str]) -> None:
    check_origin(make_mocked_request("GET", "/", headers), SETTINGS)


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "[::1", "a b", ""])
def test_a_foreign_host_is_misdirected(host: str) -> None:
    with pytest.raises(Misdirected):
        check_origin(make_mocked_request("GET", "/", {"Host": host}), SETTINGS)


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost:9999"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "none, same-site"},
    ],
)
def test_requests_of_pages_of_other_sites_are_refused(headers: dict[str, str]) -> None:
    with pytest.raises(Forbidden):
        check_origin(make_mocked_request("GET", "/", {"Host": "localhost:8082", **headers}), SETTINGS)


@pytest.mark.parametrize(
    ("headers", "is_accepted"),
    [
        ({TOKEN_HEADER: "the-token"}, True),
        ({"X-Api-Key": "the-token"}, True),
        ({"Authorization": "Bearer the-token"}, True),
        ({TOKEN_HEADER: "another"}, False),
        ({}, False),
    ],
)
def test_the_token_is_accepted_in_three_headers(headers: dict[str, str], is_accepted: bool) -> None:
    request = make_mocked_request("GET", "/", headers)
    check_token(request, SETTINGS)
    if is_accepted:
        check_token(request, WITH_TOKEN)
    else:
        with pytest.raises(BadCredential, match=TOKEN_HEADER):
            check_token(request, WITH_TOKEN)


def test_the_token_is_removed_from_the_keys_for_upstreams() -> None:
    keys = ClientKeys.from_headers({"x-api-key": "the-token", "authorization": "Bearer vendor-key"})
    assert without_token(keys, SETTINGS) == keys
    left = without_token(keys, WITH_TOKEN)
    assert left.api_key is None
    assert left.bearer == keys.bearer


@pytest.mark.parametrize(
    ("headers", "expected"), [({"anthropic-version": "2023-06-01"}, True), ({"accept": "*/*"}, False)]
)
def test_api_clients_are_known_by_their_headers(headers: dict[str, str], expected: bool) -> None:
    assert comes_from_api_client(make_mocked_request("GET", "/", headers)) is expected
