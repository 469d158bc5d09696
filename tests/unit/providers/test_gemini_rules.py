"""Refusals of the Gemini API, each with the quirk that avoids it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from proxyd.codecs.anthropic.thinking_signature import encode_signature
from proxyd.codecs.formats import GEMINI
from proxyd.codecs.translation.translated import RequestOptions, run_to_end
from proxyd.config.routes import ModelRoute
from proxyd.providers.gemini_rules import change_for_gemini
from proxyd.providers.learned_quirks import LearnedQuirks
from proxyd.providers.registry import PROFILES, dialect_for

BASE = "https://generativelanguage.googleapis.com/v1beta"
IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGk="}}
SIGNATURE = encode_signature("gemini-3-pro", None, None, {"t1": "sigA"})
PAYLOAD: dict[str, Any] = {
    "model": "m",
    "max_tokens": 100,
    "temperature": 0.5,
    "top_p": 0.9,
    "stop_sequences": ["a", "b"],
    "thinking": {"type": "adaptive"},
    "output_config": {"effort": "high", "format": {"type": "json_schema", "schema": {"type": "object"}}},
    "tools": [{"name": "T", "input_schema": {"type": "object", "properties": {"a": {"const": 1}}}}],
    "tool_choice": {"type": "tool", "name": "T"},
    "messages": [
        {"role": "user", "content": "go"},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "", "signature": SIGNATURE},
                {"type": "tool_use", "id": "t1", "name": "T", "input": {}},
            ],
        },
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1", "content": [IMAGE]}]},
    ],
}


def refused(message: str) -> bytes:
    return json.dumps({"error": {"code": 400, "message": message, "status": "INVALID_ARGUMENT"}}).encode()


def quirks_after(message: str, model: str = "gemini-3-pro", **payload: Any) -> dict[str, Any] | None:
    """The quirks of the next try, as the driver learns them."""
    route = ModelRoute("m", BASE, model, format=GEMINI.name)
    dialect = dialect_for(PROFILES["gemini"], model, {}, GEMINI)
    sent = run_to_end(GEMINI.translation({**PAYLOAD, **payload}, dialect, RequestOptions(model, True))).body
    after = LearnedQuirks().after(400, refused(message), sent, route)
    return None if after is None else dict(after.quirks)


@pytest.mark.parametrize(
    ("message", "quirks"),
    [
        (
            'Invalid JSON payload received. Unknown name "parametersJsonSchema" at '
            "'tools[0].function_declarations[0]': Cannot find field.",
            {"schema_style": "gemini"},
        ),
        (
            "* GenerateContentRequest.tools[0].function_declarations[0].parameters_json_schema: unsupported keyword",
            {"schema_style": "gemini"},
        ),
        (
            "The specified schema produces a constraint that has too many states for serving.",
            {"schema_style": "gemini"},
        ),
        (
            'Invalid JSON payload received. Unknown name "includeThoughts" at '
            "'generation_config.thinking_config': Cannot find field.",
            {"reasoning_summary": "none"},
        ),
        (
            "Invalid JSON payload received. Unknown name \"id\" at 'contents[1].parts[0].function_call': "
            "Cannot find field.",
            {"function_call_ids": False},
        ),
        (
            "Invalid JSON payload received. Unknown name \"parts\" at 'contents[2].parts[0].function_response': "
            "Cannot find field.",
            {"images_in_tool_results": False},
        ),
        ("Thinking level HIGH is not supported for this model.", {"effort_path": None}),
        ("Thinking level is not supported for this model.", {"effort_path": None}),
        (
            "Unable to submit request because response_schema is not supported with function calling.",
            {"response_format": "none"},
        ),
        (
            "Function calling with a response mime type: 'application/json' is unsupported",
            {"response_format": "none"},
        ),
        ("top_p is not supported by this model.", {"sampling": []}),
        ("Developer instruction is not enabled for models/gemma-3-27b-it", {"system_role": "user"}),
    ],
)
def test_a_refusal_names_its_quirk(message: str, quirks: dict[str, Any]) -> None:
    learned = quirks_after(message)
    assert learned is not None
    assert {name: learned.get(name, "none") for name in quirks} == quirks


def test_a_budget_that_is_refused() -> None:
    message = "Budget 0 is invalid. This model only works in thinking mode."
    assert quirks_after(message, "gemini-2.5-flash", thinking={"type": "disabled"}) == {"budget_path": None}
    assert quirks_after("The thinking budget 24576 is invalid. Please choose a value between 128 and 8192.",
                        "gemini-2.5-flash") == {"budget_range": [1024, 8192]}  # fmt: skip


@pytest.mark.parametrize(
    "message",
    ["API key not valid. Please pass a valid API key.", "", "models/x is not found for API version v1beta"],
)
def test_what_is_not_about_the_request(message: str) -> None:
    assert quirks_after(message) is None


def test_a_missing_signature_of_a_gateway_brings_the_placeholder() -> None:
    route = ModelRoute("m", "https://gateway.example/v1beta", "gemini-3-pro", format=GEMINI.name)
    dialect = dialect_for(PROFILES["generic"], "gemini-3-pro", {}, GEMINI)
    foreign = [
        PAYLOAD["messages"][0],
        {"role": "assistant", "content": [PAYLOAD["messages"][1]["content"][1]]},
    ]
    sent = run_to_end(
        GEMINI.translation({**PAYLOAD, "messages": foreign}, dialect, RequestOptions("gemini-3-pro", True))
    ).body
    message = "Function call is missing a thought_signature in functionCall parts."
    after = LearnedQuirks().after(400, refused(message), sent, route)
    assert after is not None
    assert after.quirks["thought_signature_placeholder"] == "skip_thought_signature_validator"


def test_a_narrowed_schema_that_is_refused_is_not_narrowed_again() -> None:
    sent = {"tools": [{"type": "function", "function": {"name": "T", "parameters": {}}}], "messages": []}
    body = refused("Invalid schema for function_declarations[0].parameters")
    assert change_for_gemini(400, body, sent, {}) is not None
    assert change_for_gemini(400, body, sent, {"schema_style": "gemini"}) is None
