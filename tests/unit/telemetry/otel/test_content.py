"""What is said in a call, as the conventions define it: kinds of parts, limits, and bodies that are none."""

from __future__ import annotations

import json
from typing import Any

from proxyd import jsonio
from proxyd.secret import Secret
from proxyd.telemetry.otel import conventions as names
from proxyd.telemetry.otel.content import CallContent
from tests.support.streams import DIRECT


def attributes(request: Any, response: bytes = b"") -> dict[str, Any]:
    content = CallContent(request if isinstance(request, bytes) else jsonio.dumps(request))
    for start in range(0, len(response), 7):
        content.add(response[start : start + 7])
    return {name: json.loads(value) for name, value in content.attributes().items()}


def test_each_kind_of_part() -> None:
    secret = Secret("key-in-a-tool-0123456789")
    messages = [
        {
            "role": "user",
            "content": [
                {"type": "image", "source": {"type": "base64", "data": "AAAA"}},
                {"type": "text", "text": f"see {secret.reveal()}"},
            ],
        },
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "Hm.", "signature": "s"},
                {"type": "tool_use", "id": "t1", "name": "Read", "input": {"path": "a", "password": "xyz"}},
            ],
        },
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1", "content": "text"}]},
        {"role": "user", "content": [{"type": "tool_result", "content": [{"type": "text", "text": "x"}]}, 5]},
    ]
    (first, second, third, fourth) = attributes({"messages": messages})[names.INPUT_MESSAGES]
    assert first["parts"] == [{"type": "image"}, {"type": "text", "content": "see ***"}]
    reasoning, call = second["parts"]
    assert reasoning == {"type": "reasoning", "content": "Hm."}
    assert (call["id"], call["name"]) == ("t1", "Read")
    assert json.loads(call["arguments"]) == {"path": "a", "password": "***"}
    assert third["parts"] == [{"type": "tool_call_response", "id": "t1", "response": "text"}]
    assert json.loads(fourth["parts"][0]["response"]) == [{"type": "text", "content": "x"}]


def test_a_streamed_response() -> None:
    (message,) = attributes({}, b"".join(DIRECT.values()))[names.OUTPUT_MESSAGES]
    assert [part["type"] for part in message["parts"]][-1] == "tool_call"
    assert message["finish_reason"] == "tool_call"


def test_the_newest_messages_are_kept_and_long_texts_are_cut() -> None:
    messages = [{"role": "user", "content": f"{number} " + "x" * 40_000} for number in range(40)]
    found = attributes({"messages": messages})[names.INPUT_MESSAGES]
    texts = [message["parts"][0]["content"] for message in found]
    assert texts[-1].startswith("39 ")
    assert 4 <= len(texts) < 12
    assert {len(text) for text in texts} == {16 * 1024 + 1}
    assert all(text.endswith("…") for text in texts)


def test_what_is_no_message_is_left_out() -> None:
    for body in (b"", b"[]", b"{", b"\x1f\x8b\x00", b"null"):
        assert attributes(body, body) == {}
    assert (
        attributes({"messages": "none", "system": 5}, b'event: x\ndata: {"type":"content_block_stop"}\n\n')
        == {}
    )
    assert attributes({"messages": [5, {"role": "user"}]}) == {
        names.INPUT_MESSAGES: [{"role": "user", "parts": []}]
    }
    large = CallContent(b"x" * (4 << 20 | 1))
    assert large.size == 0
    large.add(b"y" * (4 << 20 | 1))
    large.add(b"y")
    assert (large.size, large.attributes()) == (0, {})
