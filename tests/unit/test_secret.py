"""Secrets do not print their value."""

from __future__ import annotations

import pytest

from proxyd.redaction import masked
from proxyd.secret import MASK, Secret


@pytest.mark.parametrize(
    ("value", "printed"),
    [("", "***"), ("short", "***"), ("fifteen-letters", "***"), ("sk-sixteen-chars", "***hars")],
)
def test_printed_form(value: str, printed: str) -> None:
    secret = Secret(value)
    assert repr(secret) == str(secret) == f"{secret}" == printed
    assert repr([secret]) == f"[{printed}]"
    assert secret.reveal() == value


def test_comparison() -> None:
    assert Secret("a").matches("a")
    assert not Secret("a").matches("b")
    assert not Secret("a").matches("\udcff")
    assert Secret("a") == Secret("a")
    assert Secret("a") != Secret("b")
    assert Secret("a") != "a"
    assert len({Secret("a"), Secret("a")}) == 1


def test_key_that_contains_another_is_masked_completely() -> None:
    keys = [Secret("account-0042"), Secret("account-0042-of-the-team"), Secret("of-the-team")]
    assert masked(f"I sent {keys[1].reveal()} to them") == f"I sent {MASK} to them"
