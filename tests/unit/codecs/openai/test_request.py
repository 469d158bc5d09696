"""The request transcripts, and what they do not cover: refusals, notes, purity."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from proxyd.codecs.openai.request import to_openai_request
from proxyd.codecs.translation.dialect import Dialect
from proxyd.codecs.translation.translated import RequestOptions
from proxyd.errors import ClientError
from proxyd.providers.registry import PROFILES
from tests.support import goldens_requests as goldens
from tests.support.rows import check_rows
from tests.support.strict_openai import validate

OPTIONS = RequestOptions("m", True)
HELLO: list[dict[str, Any]] = [{"role": "user", "content": "hello"}]


def translated(
    dialect: Dialect | None = None, options: RequestOptions = OPTIONS, **fields: Any
) -> dict[str, Any]:
    payload = {"model": "x", "max_tokens": 100, "messages": HELLO, **fields}
    return to_openai_request(payload, dialect or Dialect(), options).body


# -- transcripts


@pytest.mark.parametrize("case", goldens.cases())
def test_transcript(case: str) -> None:
    assert goldens.translate(case).body == goldens.expected(case)


def test_transcripts_satisfy_the_strict_upstream() -> None:
    def check(case: str) -> None:
        body = goldens.expected(case)
        if body.get("tool_choice") == "any":  # Mistral's name for required
            body["tool_choice"] = "required"
        profile = case.split("/")[0]
        assert validate(body, other_fields=profile not in ("openai", "azure", "github")) == []

    check_rows(goldens.cases(), check)


def test_every_profile_has_a_transcript() -> None:
    assert {case.split("/")[0] for case in goldens.cases()} == set(PROFILES)


# -- purity


def test_payload_and_options_are_not_changed() -> None:
    payload = {
        "messages": [{"role": "user", "content": [{"type": "text", "text": "a"}]}],
        "tools": [{"name": "T", "input_schema": {"$schema": "s", "type": "object"}}],
    }
    extra = {"a": {"b": 1}}
    before = copy.deepcopy((payload, extra))
    body = to_openai_request(payload, Dialect(), RequestOptions("m", True, extra_body=extra)).body
    body["a"]["b"] = 2
    assert (payload, extra) == before


def test_switches_of_the_dialect_are_not_shared_between_requests() -> None:
    dialect = Dialect(thinking_path="thinking", thinking_on={"type": "enabled"}, body={"provider": {"a": 1}})
    first = translated(dialect, thinking={"type": "adaptive"})
    first["thinking"]["type"] = first["provider"]["a"] = "changed"
    second = translated(dialect, thinking={"type": "adaptive"})
    assert second["thinking"] == {"type": "enabled"}
    assert second["provider"] == {"a": 1}


# -- refusals


@pytest.mark.parametrize(
    ("fields", "beginning"),
    [
        ({"messages": None}, "messages: expected an array, got nothing"),
        ({"messages": "hi"}, "messages: expected an array, got str"),
        ({"messages": []}, "messages: expected at least one"),
        ({"messages": ["hi"]}, "messages.0: expected an object, got str"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages.0.role:"),
        (
            {"messages": [{"role": "user", "content": 3}]},
            "messages.0.content: expected a string or an array, got int",
        ),
        ({"system": 3}, "system: expected a string or an array"),
        ({"tools": {}}, "tools: expected an array"),
        ({"tools": ["T"]}, "tools.0: expected an object"),
        ({"tools": [{"input_schema": {}}]}, "tools.0.name:"),
        ({"tools": [{"name": {"a": 1}, "input_schema": {}}]}, "tools.0.name:"),  # found by make fuzz
        ({"tool_choice": "any"}, "tool_choice: expected an object"),
        ({"tool_choice": {"type": "some"}, "tools": [{"name": "T"}]}, "tool_choice.type:"),
        ({"tool_choice": {"type": "any"}}, "tool_choice: a tool call is demanded"),
        ({"max_tokens": "many"}, "max_tokens:"),
        ({"max_tokens": -1}, "max_tokens:"),
        ({"max_tokens": True}, "max_tokens:"),
        ({"temperature": "hot"}, "temperature: expected a number, got str"),
        ({"temperature": float("nan")}, "temperature:"),
        ({"compaction": {}}, "compaction:"),
    ],
)
def test_meaningless_request_is_refused(fields: dict[str, Any], beginning: str) -> None:
    with pytest.raises(ClientError) as caught:
        translated(**fields)
    assert caught.value.message.startswith(beginning)


def test_forced_server_tool_is_refused_by_name() -> None:
    search = {"type": "web_search_20250305", "name": "web_search"}
    with pytest.raises(ClientError, match="web_search"):
        translated(tools=[search], tool_choice={"type": "tool", "name": "web_search"})
    assert "tool_choice" not in translated(tools=[search], tool_choice={"type": "auto"})


# -- limits


@pytest.mark.parametrize(
    ("asked", "clamp", "sent"),
    [(10, None, 10), (10, 5, 5), (5, 10, 5), (None, 7, 7), (None, None, None), (0, 5, 1)],
)
def test_output_limit(asked: int | None, clamp: int | None, sent: int | None) -> None:
    body = translated(options=RequestOptions("m", True, max_tokens=clamp), max_tokens=asked)
    assert body.get("max_tokens") == sent


def test_stream_is_as_the_route_says() -> None:
    body = translated(options=RequestOptions("m", False), stream=True)
    assert body["stream"] is False
    assert "stream_options" not in body


def test_extra_body_takes_precedence() -> None:
    extra = {"temperature": 0.3, "stream_options": {"include_obfuscation": False}, "new": [1]}
    body = translated(options=RequestOptions("m", True, temperature=0.9, extra_body=extra))
    assert body["temperature"] == 0.3
    assert body["stream_options"] == {"include_usage": True, "include_obfuscation": False}
    assert body["new"] == [1]


def test_long_session_id_fits_the_cache_key() -> None:
    dialect = Dialect(prompt_cache_key=True)
    body = translated(dialect, RequestOptions("m", True, session_id="s" * 65))
    assert len(body["prompt_cache_key"]) == 64
    assert translated(dialect, RequestOptions("m", True, session_id="s"))["prompt_cache_key"] == "s"


def test_user_ids_are_sent_as_digests_only() -> None:
    user = {"user_id": "somebody@example.org"}
    assert "somebody" not in str(translated(metadata=user))
    body = translated(Dialect(safety_identifier=True), metadata=user)
    assert len(body["safety_identifier"]) == 64
    assert "somebody" not in str(body)


# -- notes


def test_notes_name_the_field_without_content() -> None:
    payload = {
        "max_tokens": 10,
        "messages": [
            {"role": "user", "content": [{"type": "document", "source": {"type": "file", "file_id": "f"}}]},
            {
                "role": "assistant",
                "content": [{"type": "tool_use", "id": "a", "name": "T", "input": {"secret": 1}}],
            },
        ],
        "stop_sequences": ["1", "2", "3", "4", "5"],
        "top_k": 3,
        "context_management": {"edits": []},
        "brand_new": "secret",
    }
    notes = to_openai_request(payload, Dialect(), OPTIONS).notes
    assert {note.path for note in notes} == {
        "messages.0.content.0",
        "messages",
        "stop_sequences",
        "top_k",
        "context_management",
        "brand_new",
    }
    assert all(note.why and note.what and "secret" not in str(note) for note in notes)


def test_equal_notes_are_counted() -> None:
    calls = [{"type": "tool_use", "id": name, "name": "T", "input": {}} for name in "abc"]
    notes = to_openai_request(
        {"messages": [{"role": "assistant", "content": calls}]}, Dialect(), OPTIONS
    ).notes
    assert [note.times for note in notes if note.what == "got a tool result"] == [3]


def test_plain_request_has_no_notes() -> None:
    payload = {"model": "x", "max_tokens": 5, "messages": HELLO, "system": "s", "stream": True}
    assert to_openai_request(payload, Dialect(), OPTIONS).notes == ()
