"""Parts that no transcript shows."""

from __future__ import annotations

import json
from typing import Any

import pytest

from proxyd.codecs.anthropic.events import encode_events
from proxyd.codecs.anthropic.thinking_signature import decode_signature
from proxyd.codecs.anthropic.usage import Usage
from proxyd.codecs.codec import ResponseContext
from proxyd.codecs.gemini.part_writer import PartWriter
from proxyd.codecs.translation.message_writer import MessageWriter
from tests.support.sse_reader import message_of


def written(*parts: Any, **context: Any) -> list[dict[str, Any]]:
    known = ResponseContext("m", upstream_model="up", **context)
    numbers = iter(range(1, 100))
    writer = MessageWriter(known, lambda prefix: f"{prefix}{next(numbers)}", Usage())
    out = PartWriter(known, writer, lambda name: None)
    for part in parts:
        out.add(part)
    out.close()
    writer.finish({"stop_reason": "end_turn", "stop_sequence": None}, Usage())
    blocks: list[dict[str, Any]] = message_of(encode_events(writer.take_events()))["content"]
    return blocks


def call(name: str = "Read", **fields: Any) -> dict[str, Any]:
    return {"functionCall": {"name": name, **fields}}


def test_the_client_has_its_own_names_of_tools() -> None:
    (block,) = written(call("short_1"), tool_names={"short_1": "mcp__server__a_long_name"})
    assert block["name"] == "mcp__server__a_long_name"


def test_an_id_of_an_earlier_turn_is_replaced() -> None:
    (block,) = written(call(id="i1"), used_ids=("i1",))
    assert block["id"].startswith("toolu_")


def test_a_signature_is_kept_with_the_id_that_the_client_sees() -> None:
    thinking, use = written({**call(id="i1"), "thoughtSignature": "s"}, used_ids=("i1",))
    signature = decode_signature(thinking["signature"])
    assert signature is not None
    assert signature.tool_signatures == {use["id"]: "s"}
    assert signature.model == "up"


def test_the_same_call_with_another_id_is_another_call() -> None:
    assert len(written(call(id="a"), call(id="b"), call(), call())) == 4


def test_a_text_signature_waits_for_its_text_beyond_a_call() -> None:
    blocks = written(
        {"text": "", "thoughtSignature": "t"}, {**call(id="a"), "thoughtSignature": "c"}, {"text": "x"}
    )
    signatures = [decode_signature(block["signature"]) for block in blocks if block["type"] == "thinking"]
    assert [(dict(each.tool_signatures), dict(each.part_signatures)) for each in signatures if each] == [
        ({"a": "c"}, {}),
        ({}, {"text": "t"}),
    ]


@pytest.mark.parametrize(
    ("part", "text"),
    [
        ({"inlineData": {"mimeType": 5}}, "[data, 0 bytes]"),
        ({"fileData": {"fileUri": "gs://a/b"}}, "[file gs://a/b]"),
        ({"executableCode": {}}, "\n```\n\n```\n"),
        ({"codeExecutionResult": {"output": "1"}}, "\n```\n1\n```\n"),
    ],
)
def test_what_is_no_text_is_described(part: dict[str, Any], text: str) -> None:
    assert written(part) == [{"type": "text", "text": text}]


@pytest.mark.parametrize("args", [None, {}, "", "{}", "null"])
def test_no_arguments(args: Any) -> None:
    (block,) = written(call(args=args))
    assert json.loads(block["input"]) in ({}, {"input": "null"})


def test_arguments_that_json_cannot_express() -> None:
    (block,) = written(call(args={"x": float("nan")}))
    assert json.loads(block["input"]) == {"x": None}
