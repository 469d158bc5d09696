"""The request transcripts of the Gemini API, judged by Google's own types; and what they do not cover."""

from __future__ import annotations

import copy
import itertools
import json
from typing import Any

import pytest

from proxyd import jsonio
from proxyd.codecs.formats import GEMINI
from proxyd.codecs.gemini.request import path_of, translation
from proxyd.codecs.translation.dialect import Dialect
from proxyd.codecs.translation.translated import RequestOptions, Translated, run_to_end
from proxyd.errors import ClientError
from proxyd.prompt_cache.tool_lists import ToolLists
from proxyd.providers.registry import PROFILES, dialect_for
from tests.captures import captures, versions
from tests.support import goldens_requests as goldens
from tests.support.effort import newest
from tests.support.rows import check_rows
from tests.support.strict_gemini import validate

CASES = [case for case in goldens.cases() if GEMINI in goldens.formats_of(case)]
HELLO: list[dict[str, Any]] = [{"role": "user", "content": "hello"}]
TOOL = {
    "name": "T",
    "description": "d",
    "input_schema": {"type": "object", "properties": {"a": {"const": 1}}},
}
#: The families of models that differ.
MODELS = [
    "gemini-3-pro-preview",
    "gemini-3.6-flash",
    "gemini-2.5-pro",
    "gemini-2.5-flash-lite",
    "gemini-2.0-flash",
]


def translate(
    dialect: Dialect | None = None, options: RequestOptions | None = None, **fields: Any
) -> Translated:
    payload = {"model": "x", "max_tokens": 100, "messages": HELLO, **fields}
    chosen = GEMINI.dialect(Dialect()) if dialect is None else dialect
    return run_to_end(translation(payload, chosen, options or RequestOptions("up", True)))


def body(dialect: Dialect | None = None, options: RequestOptions | None = None, **fields: Any) -> Any:
    return translate(dialect, options, **fields).body


def of(model: str, **quirks: Any) -> Dialect:
    return dialect_for(PROFILES["gemini"], model, quirks, GEMINI)


@pytest.mark.parametrize("case", CASES)
def test_transcript(case: str) -> None:
    assert goldens.translate(case, GEMINI).body == goldens.expected(case, GEMINI)


@pytest.mark.parametrize("case", CASES)
def test_transcript_is_valid_by_the_official_types(case: str) -> None:
    assert validate(goldens.expected(case, GEMINI), wants_signatures="2_5" not in case) == []


def test_there_are_transcripts_of_every_kind() -> None:
    assert len(CASES) >= 15


CAPTURED = [
    (version, name)
    for version in newest(versions())
    for name, capture in captures(version).items()
    if capture.path == "/v1/messages"
]


@pytest.mark.parametrize(("version", "name"), CAPTURED)
def test_what_claude_code_sends_becomes_valid(version: str, name: str) -> None:
    payload = captures(version)[name].body

    def check(row: tuple[str, str]) -> None:
        model, style = row
        dialect, options = of(model, schema_style=style), RequestOptions(model, True, session_id="s" * 36)
        sent = run_to_end(translation(payload, dialect, options)).body
        assert validate(sent, wants_signatures="gemini-3" in model) == []

    check_rows(itertools.product(MODELS, ("full", "gemini", "common", "plain")), check)


@pytest.mark.parametrize(
    ("model", "is_stream", "path"),
    [
        ("gemini-3-pro", True, "/models/gemini-3-pro:streamGenerateContent?alt=sse"),
        ("gemini-3-pro", False, "/models/gemini-3-pro:generateContent"),
        ("models/gemini-3-pro", False, "/models/gemini-3-pro:generateContent"),
        ("tunedModels/my-1", False, "/tunedModels/my-1:generateContent"),
        ("a b?c#d", False, "/models/a%20b%3Fc%23d:generateContent"),
    ],
)
def test_the_path_names_the_model(model: str, is_stream: bool, path: str) -> None:
    assert path_of(model, is_stream) == path


def test_what_grows_from_turn_to_turn_comes_last() -> None:
    assert list(body(tools=[TOOL], system="s"))[-1] == "contents"


def test_the_model_is_not_in_the_body() -> None:
    assert "model" not in body()
    assert "stream" not in body()


def test_the_system_prompt_is_one_part_without_attribution() -> None:
    system = [
        {"type": "text", "text": "x-anthropic-billing-header: cc_version=1;"},
        {"type": "text", "text": "a"},
        {"type": "text", "text": "b"},
    ]
    assert body(system=system)["systemInstruction"] == {"parts": [{"text": "a\n\nb"}]}
    assert "systemInstruction" not in body()


def test_a_model_without_system_prompt_gets_it_from_the_user() -> None:
    sent = body(of("gemma-3-27b-it"), system="Be brief.")
    assert "systemInstruction" not in sent
    assert sent["contents"][0]["parts"] == [{"text": "Be brief."}, {"text": "hello"}]
    assert "thinkingConfig" not in sent["generationConfig"]


def test_sizes_and_sampling() -> None:
    config = body(temperature=0.5, top_p=0.9, top_k=7, stop_sequences=["a", "", "b"])["generationConfig"]
    assert config == {
        "maxOutputTokens": 100,
        "temperature": 0.5,
        "topP": 0.9,
        "topK": 7,
        "stopSequences": ["a", "b"],
    }
    assert "generationConfig" not in body(max_tokens=None)
    assert translate(max_tokens=5).max_tokens == 5


def test_the_temperature_of_gemini_3_stays_its_own() -> None:
    assert "temperature" not in body(of("gemini-3-pro"), temperature=0.1)["generationConfig"]
    assert body(of("gemini-2.5-pro"), temperature=0.1)["generationConfig"]["temperature"] == 0.1


def test_more_stop_sequences_than_five_are_noted() -> None:
    sent = translate(stop_sequences=list("abcdefg"))
    assert sent.body["generationConfig"]["stopSequences"] == list("abcde")
    assert [note for note in sent.notes if note.path == "stop_sequences"]


def test_schemas_go_whole_or_narrowed() -> None:
    (tool,) = body(tools=[TOOL])["tools"][0]["functionDeclarations"]
    assert tool["parametersJsonSchema"] == TOOL["input_schema"]
    (tool,) = body(of("gemini-3-pro", schema_style="gemini"), tools=[TOOL])["tools"][0][
        "functionDeclarations"
    ]
    assert "parametersJsonSchema" not in tool
    assert tool["parameters"] == {"type": "object", "properties": {"a": {}}}


def test_a_narrowed_schema_has_properties_or_is_left_out() -> None:
    empty = {"name": "T", "input_schema": {"type": "object", "properties": {}}}
    (tool,) = body(of("gemini-3-pro", schema_style="gemini"), tools=[empty])["tools"][0][
        "functionDeclarations"
    ]
    assert tool == {"name": "T"}
    (tool,) = body(tools=[empty])["tools"][0]["functionDeclarations"]
    assert tool["parametersJsonSchema"] == {"type": "object", "properties": {}}


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ({"type": "any"}, {"mode": "ANY"}),
        ({"type": "tool", "name": "T"}, {"mode": "ANY", "allowedFunctionNames": ["T"]}),
        ({"type": "none"}, {"mode": "NONE"}),
        ({"type": "auto"}, {"mode": "AUTO"}),
    ],
)
def test_tool_choice(choice: dict[str, Any], expected: Any) -> None:
    assert body(tools=[TOOL], tool_choice=choice)["toolConfig"] == {"functionCallingConfig": expected}
    assert "toolConfig" not in body(tools=[TOOL])


def test_a_schema_for_the_response() -> None:
    schema = {"type": "object", "properties": {"a": {"type": ["string", "null"]}}}
    wanted = {"output_config": {"format": {"type": "json_schema", "schema": schema}}}
    config = body(**wanted)["generationConfig"]
    assert (config["responseMimeType"], config["responseJsonSchema"]) == ("application/json", schema)
    narrowed = body(of("gemini-3-pro", schema_style="gemini"), **wanted)["generationConfig"]
    assert narrowed["responseSchema"]["properties"]["a"] == {"type": "string", "nullable": True}
    assert "responseJsonSchema" not in narrowed
    words = body(of("gemini-3-pro", response_format="none"), **wanted)
    assert "responseMimeType" not in words["generationConfig"]
    assert "JSON Schema" in words["systemInstruction"]["parts"][0]["text"]
    some = body(of("gemini-3-pro", response_format="json_object"), **wanted)
    assert some["generationConfig"]["responseMimeType"] == "application/json"
    assert "systemInstruction" in some


def test_fields_of_the_entry_are_merged() -> None:
    extra = {"safetySettings": [], "generationConfig": {"seed": 1, "maxOutputTokens": 7}}
    sent = translate(options=RequestOptions("up", True, extra_body=extra))
    assert sent.body["generationConfig"] == {"maxOutputTokens": 7, "seed": 1}
    assert sent.body["safetySettings"] == []
    assert sent.max_tokens == 7


@pytest.mark.parametrize("fields", [{"messages": []}, {"messages": None}, {"max_tokens": "x"}, {"tools": {}}])
def test_what_is_no_request_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ClientError):
        translate(**fields)


def test_the_payload_is_not_changed() -> None:
    payload = {
        "model": "x",
        "system": [{"type": "text", "text": "s", "cache_control": {"type": "ephemeral"}}],
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "a"}]},
            {
                "role": "assistant",
                "content": [{"type": "tool_use", "id": "i", "name": "T", "input": {"a": 1}}],
            },
        ],
        "tools": [copy.deepcopy(TOOL)],
    }
    before = copy.deepcopy(payload)
    sent = run_to_end(translation(payload, of("gemini-3-pro"), RequestOptions("m", True))).body
    sent["contents"][0]["parts"][0]["text"] = "changed"
    assert payload == before


@pytest.mark.parametrize(
    "system", ["one text", [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], None]
)
@pytest.mark.parametrize("max_tokens", [9, None])
@pytest.mark.parametrize("model", ["gemini-3-pro", "gemini-2.0-flash"])
@pytest.mark.parametrize("extra", [{}, {"systemInstruction": {"parts": [{"text": "mine"}]}}, {"tools": []}])
def test_the_written_body_is_the_body(
    system: Any, max_tokens: int | None, model: str, extra: dict[str, Any]
) -> None:
    """With shared tools and system prompt, too, whose JSON is kept between requests."""
    payload = {"model": "x", "max_tokens": max_tokens, "system": system, "messages": HELLO, "tools": [TOOL]}
    raw = jsonio.dumps(payload)
    lists = ToolLists()
    for _ in range(3):
        parsed = jsonio.loads(raw)
        lists.share(parsed, raw)
        options = RequestOptions("m", True, extra_body=extra)
        made = run_to_end(translation(parsed, of(model), options))
        assert json.loads(made.written()) == made.body
        assert made.written().index(b'"tools":') < made.written().index(b'"contents":')
        assert json.loads(made.written_in_pieces()) == made.body
