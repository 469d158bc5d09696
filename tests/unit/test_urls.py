"""Origins, hosts, loopback and private addresses."""

from __future__ import annotations

import pytest

from proxyd.urls import address_of, host_of, is_loopback, is_loopback_url, is_private_host, origin_of


@pytest.mark.parametrize(
    ("url", "origin", "host"),
    [
        ("https://API.example.com/v1", "https://api.example.com", "API.example.com"),
        ("http://localhost:11434/v1?a=b", "http://localhost:11434", "localhost:11434"),
        ("https://user:word@example.com/", "https://user:word@example.com", "example.com"),
        ("http://[::1]:8000/v1", "http://[::1]:8000", "[::1]:8000"),
    ],
)
def test_origin_and_host(url: str, origin: str, host: str) -> None:
    assert origin_of(url) == origin
    assert host_of(url) == host


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://localhost/v1", True),
        ("http://localhost:8000", True),
        ("http://127.0.0.1:8000/v1", True),
        ("http://127.9.9.9", True),
        ("http://[::1]:8000/v1", True),
        ("http://user@127.0.0.1/", True),
        ("https://example.com", False),
        ("https://localhost.example.com", False),
        ("https://example.com/localhost", False),
        ("http://192.168.0.2", False),
    ],
)
def test_loopback_urls(url: str, expected: bool) -> None:
    assert is_loopback_url(url) is expected


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost", True),
        ("LOCALHOST.", True),
        ("x.localhost", True),
        ("127.0.0.2", True),
        ("[::1]", True),
        ("::1", True),
        ("0.0.0.0", False),
        ("example.com", False),
        ("localhost.example.com", False),
        ("", False),
    ],
)
def test_loopback_hosts(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://gpu-box:8000", True),
        ("http://gpu.local/v1", True),
        ("http://192.168.0.2/v1", True),
        ("http://10.0.0.1", True),
        ("http://169.254.1.1", True),
        ("http://[fd00::1]/v1", True),
        ("http://localhost", True),
        ("http://8.8.8.8/v1", False),
        ("http://example.com", False),
    ],
)
def test_private_hosts(url: str, expected: bool) -> None:
    assert is_private_host(url) is expected


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://api.example.com/v1/messages", "https://api.example.com/v1/messages"),
        ("http://[::1]:8000/v1/chat/completions", "http://[::1]:8000/v1/chat/completions"),
        ("https://user:word@api.example.com/v1", "https://api.example.com/v1"),
        (
            "https://api.example.com/v1?api-version=2024&key=word#part",
            "https://api.example.com/v1?api-version=…&key=…",
        ),
        ("https://api.example.com", "https://api.example.com"),
        ("/elsewhere?token=word", "/elsewhere"),
        ("nonsense", "nonsense"),
    ],
)
def test_address_has_no_credentials_and_no_query_values(url: str, shown: str) -> None:
    assert address_of(url) == shown
