"""The hash of a models.yaml: what changes it, and that no key is in it."""

from __future__ import annotations

from pathlib import Path

from proxyd.config.models import load_text
from proxyd.daemon.configuration import checks
from tests.support.rows import check_rows

FILE = """
settings: {auth: keys, auth_token: 0123456789abcdef, store: 'postgresql://u:pw-1@h/db', port: 8082}
models:
  - model_id: a            # a comment
    api_base: https://example.com/v1
    api_keys: [one, {key: two, weight: 2}, '${THREE}']
    extra_headers: {x-app: cli, x-team: blue}
    extra_body: {note: n, back: 'https://u:pw-1@example.net/?code=pw-1', nested: {secret: {deep: [one, 1234]}}}
  - {model_id: b, api_base: 'https://example.com/v1', api_key: '${KEY}', max_tokens: 5}
"""


def hash_of(text: str) -> str:
    return load_text(text, Path("models.yaml"), {}, checks=checks()).hash


def test_what_is_no_key_changes_the_hash() -> None:
    before = hash_of(FILE)
    assert len(before) == 12
    assert hash_of(FILE.replace("# a comment", "# another")) == before
    assert hash_of(FILE.replace("max_tokens: 5", "max_tokens:  5")) == before

    def check(row: tuple[str, str]) -> None:
        assert row[0] in FILE
        assert hash_of(FILE.replace(*row)) != before

    check_rows(
        [
            ("auth: keys", "auth: token"),
            ("port: 8082", "port: 8083"),
            ("weight: 2", "weight: 3"),
            ("${KEY}", "${OTHER}"),
            ("${THREE}", "${FOUR}"),
            ("example.com/v1\n", "example.org/v1\n"),
            ("x-app: cli", "x-app: other"),
            ("note: n", "note: m"),
            ("max_tokens: 5", "max_tokens: 6"),
            ("model_id: b", "model_id: c"),
        ],
        check,
    )


def test_no_key_is_in_the_hash() -> None:
    """Else whoever sees the hash could test guesses at a short one."""
    before = hash_of(FILE)

    def check(row: tuple[str, str]) -> None:
        assert row[0] in FILE
        assert hash_of(FILE.replace(*row)) == before

    check_rows(
        [
            ("0123456789abcdef", "0123456789abcdeg"),
            ("u:pw-1@h/db", "v:pw-2@h/db"),
            ("u:pw-1@example", "u:pw-2@example"),
            ("code=pw-1", "code=pw-2"),
            ("[one, {key: two", "[uno, {key: dos"),
            ("x-team: blue", "x-team: red"),
            ("[one, 1234]", "[two, 5678]"),
        ],
        check,
    )
