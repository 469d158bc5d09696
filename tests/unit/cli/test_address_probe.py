"""Neighbouring addresses: which are tried, in which order, and how they are shown."""

from __future__ import annotations

import pytest

from proxyd.cli.address_probe import Endpoint


@pytest.mark.parametrize(
    ("endpoint", "urls"),
    [
        (Endpoint("http://h/v1", False), ["http://h/chat/completions", "http://h/v1/messages"]),
        (Endpoint("http://h/", False), ["http://h/v1/chat/completions", "http://h/v1/messages"]),
        (
            Endpoint("http://h/api", True),
            ["http://h/api/v1/chat/completions", "http://h/api/chat/completions"],
        ),
        (
            Endpoint("http://h/api/v1", True),
            ["http://h/api/v1/chat/completions", "http://h/api/chat/completions"],
        ),
    ],
)
def test_neighbours(endpoint: Endpoint, urls: list[str]) -> None:
    assert [other.url for other in endpoint.neighbours()] == urls


def test_query_is_kept_for_the_call_and_not_shown() -> None:
    endpoint = Endpoint("https://h/v1?api-version=2026-01-01", False)
    assert endpoint.full_url() == "https://h/v1/chat/completions?api-version=2026-01-01"
    assert endpoint.url == "https://h/v1/chat/completions"
    assert "api-version" not in endpoint.as_lines()


def test_lines_to_write() -> None:
    assert Endpoint("http://h/v1", False).as_lines() == "api_base: http://h/v1, no 'direct'"
    assert Endpoint("http://h", True).as_lines() == "api_base: http://h, direct: true"
