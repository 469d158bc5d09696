"""Addresses as they are shown and logged."""

from __future__ import annotations

import pytest

from proxyd.urls import address_of


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
