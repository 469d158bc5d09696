"""Signed data that an upstream could not read."""

from __future__ import annotations

import json

import pytest

from proxyd.providers.refused_data import RefusedData, refuses_signed_data


def test_what_was_refused_is_known_and_nothing_else() -> None:
    refused = RefusedData()
    assert "a" not in refused
    refused.add(["a", "b"])
    assert "a" in refused
    assert "b" in refused
    assert "c" not in refused


def test_it_does_not_grow_without_bound() -> None:
    refused = RefusedData()
    refused.add(str(number) for number in range(3000))
    assert "2999" in refused
    assert "0" not in refused


def error(message: str, code: str | None = None) -> bytes:
    return json.dumps({"error": {"message": message, "type": "invalid_request_error", "code": code}}).encode()


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (error("The encrypted content gAAA...DQ== could not be verified.", "invalid_encrypted_content"), True),
        (
            error("The encrypted content for item rs_0a could not be verified. Reason: Encrypted content could not be "
                  "decrypted or parsed."),
            True,
        ),
        (error("Encrypted content is not supported with this model."), False),
        (error("The image could not be verified."), False),
        (b"", False),
        (b'{"error":{"code":400,"message":"Corrupted thought signature.","status":"INVALID_ARGUMENT"}}', True),
        (b'{"error":{"message":"Invalid thought signature."}}', True),
        (b'{"error":{"message":"The thought_signature is not valid."}}', True),
        (b'{"error":{"message":"Function call is missing a thought_signature in functionCall parts."}}', False),
    ],
)  # fmt: skip
def test_reasoning_that_cannot_be_read(body: bytes, expected: bool) -> None:
    assert refuses_signed_data(body) is expected
