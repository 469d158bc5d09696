"""Refusals of the Responses API, in the words of public reports."""

from __future__ import annotations

import json
from typing import Any

import pytest

from proxyd.codecs.responses.chat_terms import in_chat_terms
from proxyd.config.routes import ModelRoute
from proxyd.providers.learned_quirks import LearnedQuirks
from proxyd.providers.refusals import QuirkChange
from proxyd.providers.responses_rules import change_for_responses

SENT: dict[str, Any] = {
    "model": "m",
    "stream": True,
    "store": False,
    "include": ["reasoning.encrypted_content"],
    "stream_options": {"include_obfuscation": False},
    "max_output_tokens": 9,
    "prompt_cache_key": "k",
    "reasoning": {"effort": "high", "summary": "auto"},
    "text": {"format": {"type": "json_schema", "name": "output", "schema": {}}},
    "tools": [{"type": "function", "name": "T", "parameters": {"type": "object"}}],
    "tool_choice": {"type": "function", "name": "T"},
    "input": [
        {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "s"}]},
        {
            "type": "message",
            "role": "user",
            "content": [
                {"type": "input_image", "image_url": "u"},
                {"type": "input_text", "text": "t", "prompt_cache_breakpoint": {"mode": "explicit"}},
            ],
        },
        {"type": "reasoning", "summary": [], "encrypted_content": "g"},
        {"type": "message", "role": "assistant", "content": "a", "phase": "commentary"},
        {"type": "function_call", "call_id": "c", "name": "T", "arguments": "{}"},
        {
            "type": "function_call_output",
            "call_id": "c",
            "output": [{"type": "input_image", "image_url": "u"}],
        },
    ],
}


def error(message: str, param: str | None = None, code: str | None = None) -> bytes:
    inner = {"message": message, "type": "invalid_request_error", "param": param, "code": code}
    return json.dumps({"error": inner}).encode()


VERIFY = (
    "Your organization must be verified to generate reasoning summaries. Please go to: https://platform.openai.com/"
    "settings/organization/general and click on Verify Organization. If you just verified, it can take up to 15 "
    "minutes for access to propagate."
)
REFUSALS = [
    (error(VERIFY, "reasoning.summary", "unsupported_value"), {"reasoning_summary": "none"}),
    (error(VERIFY), {"reasoning_summary": "none"}),
    (
        error(
            "Unsupported parameter: 'reasoning.summary' is not supported with this model.",
            "reasoning.summary",
        ),
        {"reasoning_summary": "none"},
    ),
    (error("Encrypted content is not supported with this model.", "include"), {"reasoning_items": "content"}),
    (error("Missing required parameter: 'input[2].id'.", "input[2].id"), {"reasoning_item_ids": True}),
    (error("Unknown parameter: 'input[3].phase'.", "input[3].phase"), {"message_phases": False}),
    (
        error("Unknown parameter: 'input[1].content[1].prompt_cache_breakpoint'.", "input[1].content[1]"),
        {"cache_control": False},
    ),
    (
        error("Invalid type for 'input[5].output': expected a string, but got an array.", "input[5].output"),
        {"images_in_tool_results": False},
    ),
]


@pytest.mark.parametrize(("body", "quirks"), REFUSALS)
def test_a_refusal_names_the_quirk(body: bytes, quirks: dict[str, Any]) -> None:
    change = change_for_responses(400, body, in_chat_terms(SENT), {})
    assert isinstance(change, QuirkChange)
    assert change.quirks == quirks


@pytest.mark.parametrize(
    "body",
    [
        error("You exceeded your current quota."),
        error("Unknown parameter: 'input[0].foo'.", "input[0].foo"),
        error("Invalid value: 'x'. Supported values are: 'a'.", "text.verbosity"),
        b"",
    ],
)
def test_other_refusals_are_left_to_the_rules_of_all_formats(body: bytes) -> None:
    assert change_for_responses(400, body, in_chat_terms(SENT), {}) is None


def test_what_was_not_sent_is_not_the_cause() -> None:
    for body, _ in REFUSALS:
        assert change_for_responses(400, body, in_chat_terms({"model": "m", "input": []}), {}) is None


ROUTE = ModelRoute("m", "https://api.example.com/v1", "m", format="openai-responses")


@pytest.mark.parametrize(
    ("body", "quirks"),
    [
        *REFUSALS,
        (error("Unknown parameter: 'stream_options'.", "stream_options"), {"stream_options": False}),
        (error("Unrecognized request argument supplied: prompt_cache_key"), {"prompt_cache_key": False}),
        (
            error(
                "Unsupported value: 'reasoning.effort' does not support 'high' with this model. Supported values are: "
                "'low' and 'medium'.",
                "reasoning.effort",
            ),
            {"efforts": {"low": "low", "medium": "medium"}},
        ),
        (error("Unsupported parameter: 'reasoning.effort'.", "reasoning.effort"), {"effort_path": None}),
        (error("Set reasoning effort to none", "reasoning.effort"), {"effort_path": None}),
        (error("This model does not support image input."), {"vision": False}),
        (error("messages: unknown role developer", "input[0].role"), {"system_role": "system"}),
    ],
)
def test_a_route_learns(body: bytes, quirks: dict[str, Any]) -> None:
    learned = LearnedQuirks().after(400, body, SENT, ROUTE)
    assert learned is not None
    assert learned.quirks == quirks


def test_without_a_reason_the_reasoning_goes_last() -> None:
    learned, seen = LearnedQuirks(), []
    while (more := learned.after(400, error("Bad request"), SENT, ROUTE)) is not None:
        learned = more
        seen.append(set(learned.steps[-1].quirks))
    assert {"prompt_cache_key"} <= seen[0]
    assert "reasoning_items" in learned.quirks
    assert "reasoning_return" not in learned.quirks
