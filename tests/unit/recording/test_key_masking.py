"""Masks of keys in bodies, headers and URLs."""

from __future__ import annotations

import json

from proxyd.recording.key_masking import Masks, shown_headers, shown_url
from proxyd.secret import Secret


def test_words_that_are_not_keys_stay() -> None:
    masks = Masks(in_use=())
    for harmless in (
        b'"signature":"cpx1.eyJtIjoibSIsImYiOiJyZWFzb25pbmdfY29udGVudCJ9"',
        b"AbC-sk-0123456789abcdef",
        b"monkey-business-as-usual",
        b'"prompt_cache_key":"abc"',
    ):
        assert masks.over(harmless) == harmless
    assert masks.over(b"Bearer abcdef123456, sk-0123456789") != b"Bearer abcdef123456, sk-0123456789"
    long = b"text with sk-0123456789, " + b"x" * 1000 + b" Bearer abcdef123456"
    assert len(masks.over(long)) == len(long)
    assert masks.over(b"sk-key-0123456789") == masks.over(b"sk-key-0123456789") != b"sk-key-0123456789"
    once = masks.over(b"sk-0123456789 sk-0123456789 sk-9876543210")
    first, second, third = once.split()
    assert first == second != third
    assert masks.over(once) == once


def test_headers_and_urls_show_harmless_values_only() -> None:
    assert shown_headers(
        [("X-Api-Key", "k"), ("Accept", "a"), ("accept", "b"), ("Authorization", "Basic x")]
    ) == {
        "x-api-key": "***",
        "accept": "a, b",
        "authorization": "***",
    }
    assert shown_url("https://me:secret@host/v1/x?key=abc&api-version=2&beta") == (
        "https://host/v1/x?key=***&api-version=2&beta"
    )
    assert shown_url("builtin:demo") == "builtin:demo"


def test_masks_keep_the_length_and_differ_between_keys() -> None:
    configured = Secret("correct-horse-battery")
    masks = Masks([configured])
    data = b'{"a": "correct-horse-battery", "b": "sk-abcdefgh12345678", "c": "Bearer 0123456789abcdef"}'
    masked = masks.over(data)
    assert len(masked) == len(data)
    values = list(json.loads(masked).values())
    assert values[2].startswith("Bearer ")
    assert {values[0], values[1], values[2].removeprefix("Bearer ")} == masks.used
    assert masks.over(data) == masked, "the same key has the same mask"
    assert Masks().over(data) != masked, "another record has other masks"
    assert configured.reveal() not in masked.decode()
