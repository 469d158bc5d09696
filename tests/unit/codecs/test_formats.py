"""The table of upstream protocols."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from proxyd.codecs.codec import ResponseContext
from proxyd.codecs.formats import CHAT, FORMATS, GEMINI, RESPONSES, Format
from proxyd.codecs.gemini.thinking import BUDGET_PATH, LEVEL_PATH
from proxyd.codecs.translation.dialect import Dialect
from proxyd.codecs.translation.translated import RequestOptions, run_to_end
from proxyd.errors import ClientError

PAYLOAD = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}


@pytest.mark.parametrize("chosen", FORMATS.values(), ids=lambda chosen: chosen.name)
def test_a_row_is_complete(chosen: Format) -> None:
    assert FORMATS[chosen.name] is chosen
    assert chosen.path("model", True).startswith("/")
    dialect = chosen.dialect(Dialect())
    made = run_to_end(chosen.translation(PAYLOAD, dialect, RequestOptions("up", True)))
    assert made.max_tokens == 9
    assert made.written()
    assert chosen.chat_terms(made.body)["messages"][0]["role"] == "user"
    assert chosen.signed_data(made.body) == []
    codec = chosen.codec(ResponseContext("m"), dialect, lambda prefix: prefix, lambda name: None)
    assert not codec.has_started
    assert not codec.on_body({"something": "else"})


@pytest.mark.parametrize("chosen", FORMATS.values(), ids=lambda chosen: chosen.name)
@pytest.mark.parametrize("message", [{"content": "x"}, None, 5, {"role": []}, {"role": "model"}])
def test_a_malformed_message_is_refused_in_words(chosen: Format, message: Any) -> None:
    payload = {**PAYLOAD, "messages": [message], "tools": [{"name": "T", "input_schema": {}}]}
    with pytest.raises(ClientError, match=r"messages\.0"):
        run_to_end(chosen.translation(payload, chosen.dialect(Dialect()), RequestOptions("up", True)))


def test_switches_that_gemini_has_elsewhere_or_not_at_all() -> None:
    dialect = GEMINI.dialect(
        Dialect(
            thinking_path="thinking.type",
            budget_path="budget",
            body={"a": 1},
            body_with_tools={"reasoning_effort": "none"},
            schema_style="gemini",
            prompt_cache_key=True,
        )
    )
    assert (dialect.effort_path, dialect.budget_path, dialect.thinking_path) == (
        LEVEL_PATH,
        BUDGET_PATH,
        None,
    )
    assert (dialect.body, dialect.body_with_tools, dialect.prompt_cache_key) == ({}, {}, False)
    assert (dialect.schema_style, dialect.leading_system_only) == ("full", True)
    without = GEMINI.dialect(Dialect(effort_path=None))
    assert (without.effort_path, without.budget_path) == (None, None)


def test_every_format_has_a_folder_of_its_own() -> None:
    assert len({each.folder for each in FORMATS.values()}) == len(FORMATS)


def test_chat_completions_are_as_the_profiles_have_them() -> None:
    dialect = Dialect(thinking_path="thinking", body={"a": 1})
    assert CHAT.dialect(dialect) is dialect


def test_switches_that_the_responses_api_has_elsewhere_or_not_at_all() -> None:
    dialect = RESPONSES.dialect(
        Dialect(
            thinking_path="thinking.type",
            thinking_on="enabled",
            budget_path="budget",
            body={"a": 1},
            body_with_tools={"reasoning_effort": "none"},
            thought_signatures=True,
        )
    )
    assert dialect.effort_path == "reasoning.effort"
    assert (dialect.thinking_path, dialect.budget_path, dialect.thought_signatures) == (None, None, False)
    assert not dialect.body
    assert not dialect.body_with_tools
    without = RESPONSES.dialect(dataclasses.replace(Dialect(), effort_path=None))
    assert without.effort_path is None
