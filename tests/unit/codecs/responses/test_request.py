"""The request transcripts of the Responses API, judged by OpenAI's own types; and what they do not cover."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from proxyd import jsonio
from proxyd.codecs.formats import RESPONSES
from proxyd.codecs.responses.request import translation
from proxyd.codecs.translation.dialect import Dialect
from proxyd.codecs.translation.translated import RequestOptions, Translated, run_to_end
from proxyd.errors import ClientError
from proxyd.prompt_cache.tool_lists import ToolLists
from proxyd.providers.registry import PROFILES, dialect_for
from tests.captures import captures, versions
from tests.support import goldens_requests as goldens
from tests.support.effort import newest
from tests.support.rows import check_rows
from tests.support.strict_responses import validate

CASES = [case for case in goldens.cases() if RESPONSES in goldens.formats_of(case)]
#: Servers whose own fields and ids OpenAI does not have.
OF_THEIR_OWN = ("top_k", "rs_", "encrypted_content: missing")
HELLO: list[dict[str, Any]] = [{"role": "user", "content": "hello"}]
TOOL = {"name": "T", "description": "d", "input_schema": {"type": "object", "properties": {}}}


def translate(
    dialect: Dialect | None = None, options: RequestOptions | None = None, **fields: Any
) -> Translated:
    payload = {"model": "x", "max_tokens": 100, "messages": HELLO, **fields}
    return run_to_end(translation(payload, dialect or Dialect(), options or RequestOptions("up", True)))


def body(dialect: Dialect | None = None, options: RequestOptions | None = None, **fields: Any) -> Any:
    return translate(dialect, options, **fields).body


@pytest.mark.parametrize("case", CASES)
def test_transcript(case: str) -> None:
    assert goldens.translate(case, RESPONSES).body == goldens.expected(case, RESPONSES)


@pytest.mark.parametrize("case", CASES)
def test_transcript_is_valid_by_the_official_types(case: str) -> None:
    faults = validate(goldens.expected(case, RESPONSES))
    if case.split("/")[0] not in ("openai", "azure", "xai"):
        faults = [fault for fault in faults if not any(own in fault for own in OF_THEIR_OWN)]
    assert faults == []


CAPTURED = [
    (version, name)
    for version in newest(versions())
    for name, capture in captures(version).items()
    if capture.path == "/v1/messages"
]


@pytest.mark.parametrize(("version", "name"), CAPTURED)
def test_what_claude_code_sends_becomes_valid(version: str, name: str) -> None:
    payload = captures(version)[name].body

    def check(model: str) -> None:
        dialect = dialect_for(PROFILES["openai"], model, {}, RESPONSES)
        options = RequestOptions(model, True, session_id="s" * 36)
        sent = run_to_end(translation(payload, dialect, options)).body
        assert validate(sent) == []
        assert sent["prompt_cache_key"] == "s" * 36

    check_rows(["gpt-5.6", "gpt-5.1", "o3", "gpt-4.1"], check)


def test_nothing_is_kept_and_reasoning_comes_encrypted() -> None:
    sent = body()
    assert sent["store"] is False
    assert sent["include"] == ["reasoning.encrypted_content"]
    assert "include" not in body(Dialect(reasoning_items="none"))
    assert body(options=RequestOptions("up", True, extra_body={"store": True}))["store"] is True


def test_what_grows_from_turn_to_turn_comes_last() -> None:
    assert list(body(tools=[TOOL]))[-2:] == ["tools", "input"]


def test_padding_is_switched_off_where_the_server_knows_it() -> None:
    assert body(Dialect(stream_options=True))["stream_options"] == {"include_obfuscation": False}
    assert "stream_options" not in body(Dialect(stream_options=False))
    assert "stream_options" not in body(Dialect(), RequestOptions("up", False))


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (
            {"thinking": {"type": "adaptive"}, "output_config": {"effort": "high"}},
            {"effort": "high", "summary": "auto"},
        ),
        ({"thinking": {"type": "enabled", "budget_tokens": 5000}}, {"effort": "medium", "summary": "auto"}),
        ({"thinking": {"type": "adaptive"}}, {"summary": "auto"}),
        ({"thinking": {"type": "disabled"}}, {"effort": "none"}),
        ({"output_config": {"effort": "high"}}, {"effort": "none"}),
        ({}, None),
    ],
)  # fmt: skip
def test_effort_and_summary(fields: dict[str, Any], expected: Any) -> None:
    dialect = Dialect(
        effort_path="reasoning.effort", efforts={"none": "none", "medium": "medium", "high": "high"}
    )
    assert body(dialect, **fields).get("reasoning") == expected


def test_no_summary_where_it_is_switched_off_or_the_model_does_not_reason() -> None:
    thinking = {"thinking": {"type": "adaptive"}, "output_config": {"effort": "high"}}
    silent = Dialect(effort_path="reasoning.effort", reasoning_summary="none")
    assert body(silent, **thinking)["reasoning"] == {"effort": "high"}
    assert "reasoning" not in body(Dialect(effort_path=None), **thinking)


def test_tools_are_flat_and_not_strict() -> None:
    assert body(tools=[TOOL])["tools"] == [
        {
            "type": "function",
            "strict": False,
            "name": "T",
            "description": "d",
            "parameters": {"type": "object", "properties": {}},
        }
    ]


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ({"type": "any"}, "required"),
        ({"type": "tool", "name": "T"}, {"type": "function", "name": "T"}),
        ({"type": "none"}, "none"),
        ({"type": "auto"}, "auto"),
    ],
)
def test_tool_choice(choice: dict[str, Any], expected: Any) -> None:
    assert body(tools=[TOOL], tool_choice=choice)["tool_choice"] == expected


def test_parallel_calls_are_switched_off() -> None:
    choice = {"type": "auto", "disable_parallel_tool_use": True}
    assert body(tools=[TOOL], tool_choice=choice)["parallel_tool_calls"] is False


def test_a_schema_for_the_response() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string"}}}
    wanted = {"output_config": {"format": {"type": "json_schema", "schema": schema}}}
    form = body(**wanted)["text"]["format"]
    assert (form["type"], form["name"], form["strict"], form["schema"]) == (
        "json_schema",
        "output",
        False,
        schema,
    )
    strict = {**schema, "required": ["a"], "additionalProperties": False}
    assert body(output_config={"format": {"schema": strict}})["text"]["format"]["strict"] is True
    words = body(Dialect(response_format="none"), **wanted)
    assert "text" not in words
    assert "JSON Schema" in words["input"][0]["content"][0]["text"]


def test_sizes_and_names() -> None:
    assert body(max_tokens=5)["max_output_tokens"] == 5
    assert translate(max_tokens=5).max_tokens == 5
    assert "max_output_tokens" not in body(max_tokens=None)
    key = body(Dialect(prompt_cache_key=True), RequestOptions("up", True, session_id="s" * 70))[
        "prompt_cache_key"
    ]
    assert len(key) == 64


def test_long_or_many_stop_sequences_are_noted() -> None:
    assert not [note for note in translate(stop_sequences=["a"]).notes if note.path == "stop_sequences"]
    for sequences in (["a" * 300], [str(number) for number in range(20)]):
        assert [note for note in translate(stop_sequences=sequences).notes if note.path == "stop_sequences"]


@pytest.mark.parametrize("fields", [{"messages": []}, {"messages": None}, {"max_tokens": "x"}, {"tools": {}}])
def test_what_is_no_request_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ClientError):
        translate(**fields)


def test_the_payload_is_not_changed() -> None:
    payload = {
        "model": "x",
        "system": [{"type": "text", "text": "s", "cache_control": {"type": "ephemeral"}}],
        "messages": [{"role": "user", "content": [{"type": "text", "text": "a"}]}],
        "tools": [copy.deepcopy(TOOL)],
    }
    before = copy.deepcopy(payload)
    sent = run_to_end(translation(payload, Dialect(cache_control=True), RequestOptions("m", True))).body
    sent["input"][0]["content"][0]["text"] = "changed"
    assert payload == before


@pytest.mark.parametrize(
    "system", ["one text", [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], None]
)
@pytest.mark.parametrize("cache_control", [True, False])
def test_the_written_body_is_the_body(system: Any, cache_control: bool) -> None:
    """With shared tools and system prompt, too, whose JSON is kept between requests."""
    payload = {"model": "x", "max_tokens": 9, "system": system, "messages": HELLO, "tools": [TOOL]}
    raw = jsonio.dumps(payload)
    lists = ToolLists()
    for _ in range(3):
        parsed = jsonio.loads(raw)
        lists.share(parsed, raw)
        dialect = Dialect(cache_control=cache_control)
        made = run_to_end(translation(parsed, dialect, RequestOptions("m", True)))
        assert json.loads(made.written()) == made.body
        assert made.written().index(b'"tools":') < made.written().index(b'"input":')
