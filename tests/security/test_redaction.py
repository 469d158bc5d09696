"""Masking of keys: by value in every encoding and split over chunks, then by form."""

from __future__ import annotations

import base64
import json
from urllib.parse import quote

import pytest

from proxyd.redaction import (
    BodyRedactor,
    is_credential_name,
    masked,
    masked_bytes,
    redacted,
    without_key_forms,
)
from proxyd.secret import MASK, Secret

VALUE = "Planted+key/0123456789=="
SPELLINGS = {
    "as it is": VALUE,
    "JSON": json.dumps(VALUE)[1:-1],
    "JSON with escaped slashes": VALUE.replace("/", "\\/"),
    "JSON in JSON": VALUE.replace("/", "\\\\\\/"),
    "JSON, all escaped": "".join(f"\\u{ord(each):04x}" for each in VALUE),
    "JSON, some escaped": VALUE.replace("+", "\\u002B").replace("=", "\\u003d"),
    "a URL": quote(VALUE, safe=""),
    "a URL, lower case": quote(VALUE, safe="").replace("%2F", "%2f"),
    "a URL in a URL": quote(quote(VALUE, safe=""), safe=""),
}


@pytest.mark.statement("E7")
@pytest.mark.parametrize("spelling", SPELLINGS.values(), ids=SPELLINGS)
def test_value_is_found_in_every_encoding(spelling: str) -> None:
    key = Secret(VALUE)
    assert masked(f"x {spelling} y \\n %20 \\/") == f"x {MASK} y \\n %20 \\/"
    assert (
        masked_bytes(f"<{spelling}>".encode(), [key], keeps_length=True) == b"<" + b"*" * len(spelling) + b">"
    )


@pytest.mark.statement("E7")
@pytest.mark.parametrize("before", ["", "u", "us", "use", "user:", "Bearer "])
@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
def test_value_is_found_within_base64(before: str, encode: object) -> None:
    key = Secret("\u00fcber~~~key???0123>>>")
    text = encode(f"{before}{key.reveal()} and more".encode()).decode()  # type: ignore[operator]
    found = masked(text)
    assert MASK in found
    assert key.reveal().encode() not in base64.urlsafe_b64decode(
        found.replace(MASK, "").replace("+", "-") + "===="
    )


@pytest.mark.statement("E7")
@pytest.mark.parametrize("spelling", SPELLINGS.values(), ids=SPELLINGS)
def test_value_split_over_chunks_is_masked(spelling: str) -> None:
    key = Secret(VALUE)
    body = f'{{"a": "{VALUE[:9]}", "b": "{spelling}", "c": "{VALUE[:4]}'.encode()
    wanted = body.replace(spelling.encode(), b"*" * len(spelling))
    for first in range(len(body)):
        for second in {first, min(first + 3, len(body)), len(body)}:
            redactor = BodyRedactor([key])
            parts = [redactor.feed(each) for each in (body[:first], body[first:second], body[second:])]
            assert b"".join((*parts, redactor.close())) == wanted, (first, second)


@pytest.mark.statement("E7")
def test_bytes_that_cannot_begin_a_value_are_returned_at_once() -> None:
    redactor = BodyRedactor([Secret(VALUE)])
    assert redactor.feed(b"nothing of it") == b"nothing of it"
    assert redactor.feed(b"and then Planted+k") == b"and then "
    assert redactor.feed(b"ing") == b"Planted+king"


@pytest.mark.statement("E7")
def test_values_are_masked_before_forms() -> None:
    key = Secret("-".join(("sk", "abc1/SECRETSECRET+key==")))
    assert redacted(f"no: {key.reveal()}.") == f"no: {MASK}."
    assert redacted(f"no: {key.reveal()[:20]}+other==.") == f"no: {MASK}."


#: Joined here, since no file may contain the form of a key.
FORMS = [
    "-".join(("sk", "abcdefgh12345678")),
    "-".join(("sk", "ant", "api03", "abcdefgh_12345678")),
    "-".join(("csk", "abcdefgh12345678")),
    "-".join(("nvapi", "abcdefgh12345678")),
    "-".join(("pplx", "abcdefgh12345678")),
    "-".join(("xai", "abcdefgh12345678")),
    "_".join(("gsk", "abcdefgh12345678")),
    "_".join(("hf", "abcdefgh12345678")),
    "_".join(("github", "pat", "abcdefgh12345678")),
    *("_".join((f"gh{letter}", "abcdefgh12345678")) for letter in "pousr"),
    "AK" + "IA" + "ABCDEFGH12345678",
    "AI" + "za" + "SyABCDEFGH12345678abcd",
    "0123456789abcdef" * 2 + "." + "AbCdEfGhIjKl1234",
    "ey" + "JhbGciOiJIUzI1NiJ9" + ".eyJzdWIiOiIxIn0.c2lnbmF0dXJl",
    "-".join(("sk", "abcd*******wxyz")),
]


@pytest.mark.statement("E7")
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("text", ["{}", "key: {}", "({}).", 'a\\n{}"', "={}&x=1"])
def test_everything_in_the_form_of_a_key_is_masked(form: str, text: str) -> None:
    found = without_key_forms(text.format(form))
    assert form[-6:] not in found
    assert MASK in found


@pytest.mark.statement("E7")
def test_ordinary_words_are_not_masked() -> None:
    text = (
        "sk-learn and key-value stores, hf_hub, sess_ion, the model gpt-5.1-codex-max-2026-11-01 and v1.2.3"
    )
    assert without_key_forms(text) == text


@pytest.mark.statement("E7")
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Authorization", True), ("x-api-key", True), ("auth_token", True), ("X-Goog-Api-Key", True),
        ("cookie", True), ("password", True), ("client_secret", True),
        ("author", False), ("input_tokens", False), ("keyboard", False), ("key_origin", False), ("model", False),
    ],
)  # fmt: skip
def test_credential_names(name: str, expected: bool) -> None:
    assert is_credential_name(name) is expected
