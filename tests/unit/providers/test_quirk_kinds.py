"""Values under ``quirks:`` of an entry: accepted for every field of `Dialect`, refused with a clear text."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import pytest

from proxyd.codecs.translation.dialect import Dialect
from proxyd.errors import ConfigError
from proxyd.providers.registry import PROFILES, dialect_for


def test_every_field_can_be_overridden() -> None:
    generic = PROFILES["generic"]
    for field in dataclasses.fields(Dialect):
        value = getattr(generic.dialect, field.name)
        if isinstance(value, tuple):
            value = list(value)
        dialect = dialect_for(generic, "m", {field.name: value})
        assert getattr(dialect, field.name) == getattr(generic.dialect, field.name)


def test_quirks_beat_variants() -> None:
    assert dialect_for(PROFILES["openai"], "gpt-4o", {"system_role": "developer"}).system_role == "developer"
    assert dialect_for(PROFILES["generic"], "m", {"efforts": ["low"]}).efforts == {"low": "low"}
    assert dialect_for(PROFILES["generic"], "m", {"budget_range": [1, 2]}).budget_range == (1, 2)
    assert dialect_for(PROFILES["generic"], "m", {"think_tags": ["think"]}).think_tags == ("think",)
    assert dialect_for(PROFILES["generic"], "m", {"stop_limit": None}).stop_limit is None
    assert dialect_for(PROFILES["generic"], "m", {"thinking_off": False}).thinking_off is False


@pytest.mark.parametrize(
    ("quirks", "words"),
    [
        ({"max_token_field": "x"}, "did you mean max_tokens_field"),
        ({"wholly_unknown_thing": 1}, "unknown quirk"),
        ({"max_tokens_field": "tokens"}, "expected one of max_tokens, max_completion_tokens"),
        ({"system_role": ["system"]}, "expected one of system, developer"),
        ({"vision": "yes"}, "expected true or false, got str"),
        ({"vision": None}, "expected true or false"),
        ({"stop_limit": True}, "expected a whole number"),
        ({"think_tags": "think"}, "expected a list of words"),
        ({"think_tags": [1]}, "expected a list of words"),
        ({"budget_range": [1]}, "expected two whole numbers"),
        ({"body": [1]}, "expected a mapping"),
        ({"efforts": {"huge": "x"}}, "expected a list or mapping of none, minimal"),
        ({"efforts": "high"}, "expected a list or mapping"),
        ({"thinking_path": 3}, "expected a word"),
    ],
)
def test_invalid_quirks(quirks: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(words)) as caught:
        dialect_for(PROFILES["generic"], "m", quirks)
    assert caught.value.message.startswith(f"quirks.{next(iter(quirks))}: ")
