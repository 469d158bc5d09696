"""Refusals that Claude Code recovers from: recognised in the words of several servers, and only where they fit."""

from __future__ import annotations

import json
from typing import Any

import pytest

from proxyd.providers.client_recovery import is_content_refusal, rejected_capability

TEXT = {"type": "text", "text": "hi"}
IMAGE = {"type": "image", "source": {}}
PDF = {"type": "document", "source": {}}
THOUGHT = {"type": "thinking", "thinking": "hm", "signature": "x"}


def request(*content: Any, role: str = "user", **changes: Any) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": list(content) or [TEXT]}], **changes}


def in_result(block: Any) -> dict[str, Any]:
    return request({"type": "tool_result", "tool_use_id": "t", "content": [TEXT, block]})


ADAPTIVE = request(thinking={"type": "adaptive"})
EFFORT = request(output_config={"effort": "high"})
SCHEMA = request(output_config={"effort": "high", "format": {"type": "json_schema", "schema": {}}})
SYSTEM = request(role="system")
THOUGHTS = request(THOUGHT, role="assistant")


def body(message: str, **more: Any) -> bytes:
    return json.dumps(
        {"type": "error", "error": {"type": "invalid_request_error", "message": message, **more}}
    ).encode()


@pytest.mark.parametrize(
    ("message", "payload", "expected"),
    [
        # DeepSeek
        (
            "Failed to deserialize the JSON body into the target type: messages[66].content: unknown variant `image`, "
            "expected one of `text`, `tool_use`, `tool_result`, `thinking` at line 1 column 971539",
            in_result(IMAGE),
            "image_block",
        ),
        ("This model does not support image input.", request(IMAGE), "image_block"),
        ("User message image blocks are not supported", request(IMAGE), "image_block"),
        ("Multimodal input is not supported by this model", request(IMAGE), "image_block"),
        ("This model does not support image input.", request(), None),
        ("unknown variant `document`, expected `text`", request(PDF), "document_block"),
        ("PDF input is not supported", in_result(PDF), "document_block"),
        ("PDF input is not supported", request(IMAGE), None),
        ("messages.1.content.0: Invalid `signature` in `thinking` block", THOUGHTS, "thinking_signature"),
        ("messages.1.content.0: Invalid `signature` in `thinking` block", request(), None),
        ("thinking.type: Input should be 'enabled' or 'disabled'", ADAPTIVE, "thinking_type:adaptive"),
        ("unknown variant `adaptive`, expected `enabled` or `disabled`", ADAPTIVE, "thinking_type:adaptive"),
        (
            "thinking.type: Input should be 'enabled' or 'disabled'",
            request(thinking={"type": "enabled"}),
            None,
        ),
        # Bedrock; older gateways
        ("output_config.effort: Extra inputs are not permitted", EFFORT, "effort_unsupported"),
        ("output_config: Extra inputs are not permitted", EFFORT, "effort_unsupported"),
        ("output_config: Extra inputs are not permitted", SCHEMA, "effort_unsupported"),
        ("output_config: Extra inputs are not permitted", request(output_config={"format": {}}), None),
        ("output_config.format: Extra inputs are not permitted", SCHEMA, "structured_outputs_unsupported"),
        ("output_config.format: Extra inputs are not permitted", EFFORT, None),
        ("Structured outputs are not supported by this model", SCHEMA, "structured_outputs_unsupported"),
        (
            "This response_format type is unavailable now: json_schema",
            SCHEMA,
            "structured_outputs_unsupported",
        ),
        ("unknown variant `json_schema`, expected `text`", SCHEMA, "structured_outputs_unsupported"),
        ("Structured outputs are not supported by this model", request(), None),
        ("messages.1.role: Input should be 'user' or 'assistant'", SYSTEM, "mid_conv_system"),
        ("Unexpected role 'system' after role 'user'", SYSTEM, "mid_conv_system"),
        # CLIProxyAPI
        (
            "messages.2.output_config: Extra inputs are not permitted",
            {**SYSTEM, **EFFORT, **SYSTEM},
            "mid_conv_system",
        ),
        ("messages.1.role: Input should be 'user' or 'assistant'", request(), None),
        ("prompt is too long: 9 tokens > 8 maximum, images not supported", request(IMAGE), None),
        ("tools.0.name: Extra inputs are not permitted", EFFORT, None),
        ("something else went wrong", request(IMAGE, PDF, **EFFORT), None),
        ("see the documentation of images", request(PDF), None),
    ],
)
def test_a_refusal_names_its_class_where_the_request_has_it(
    message: str, payload: dict[str, Any], expected: str | None
) -> None:
    assert rejected_capability(400, body(message), payload) == expected


@pytest.mark.parametrize(
    ("status", "expected"),
    [(400, "image_block"), (422, "image_block"), (500, "image_block"), (429, None), (401, None), (529, None)],
)
def test_only_statuses_of_invalid_requests_count(status: int, expected: str | None) -> None:
    assert rejected_capability(status, body("images are not supported"), request(IMAGE)) == expected


@pytest.mark.parametrize("data", [b"", b"<html>", b"[]", b"null", b'{"error":{}}'])
def test_a_response_without_words_is_nothing(data: bytes) -> None:
    assert rejected_capability(400, data, request(IMAGE)) is None
    assert not is_content_refusal(400, data)


@pytest.mark.parametrize("payload", [{}, {"messages": 3}, {"messages": [3, {"content": [4]}], "thinking": 5}])
def test_any_request_is_looked_at(payload: dict[str, Any]) -> None:
    assert rejected_capability(400, body("images: not supported"), payload) is None


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (body("Content Exists Risk"), True),
        (body("no", code="data_inspection_failed"), True),
        (b'{"error":{"code":"1301","message":"no"}}', True),
        (body("images are not supported"), False),
    ],
)
def test_a_filter_of_contents_is_known_by_words_and_codes(data: bytes, expected: bool) -> None:
    assert is_content_refusal(400, data) is expected
