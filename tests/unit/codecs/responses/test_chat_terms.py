"""Responses requests in the terms in which refusals are judged."""

from __future__ import annotations

from proxyd.codecs.responses.chat_terms import encrypted_contents, in_chat_terms

BODY = {
    "model": "m",
    "max_output_tokens": 7,
    "text": {"format": {"type": "json_schema"}},
    "reasoning": {"effort": "high"},
    "tools": [{"type": "function", "name": "T", "parameters": {}}],
    "input": [
        {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "s"}]},
        {
            "type": "message",
            "role": "user",
            "content": [
                {"type": "input_image", "image_url": "u"},
                {"type": "input_file", "prompt_cache_breakpoint": {"mode": "explicit"}},
            ],
        },
        {"type": "reasoning", "summary": [], "encrypted_content": "g"},
        {"type": "message", "role": "assistant", "content": "a", "phase": "commentary"},
        {"type": "function_call", "call_id": "c", "name": "T", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c", "output": [{"type": "input_text", "text": "o"}]},
        "junk",
    ],
}


def test_roles_parts_tools_and_formats() -> None:
    view = in_chat_terms(BODY)
    assert [message["role"] for message in view["messages"]] == [
        "developer", "user", "assistant", "assistant", "assistant", "tool",
    ]  # fmt: skip
    assert [part["type"] for part in view["messages"][1]["content"]] == ["image_url", "file"]
    assert "cache_control" in view["messages"][1]["content"][1]
    assert view["messages"][4]["tool_calls"][0]["function"]["name"] == "T"
    assert view["tools"][0]["function"]["name"] == "T"
    assert view["response_format"] == {"type": "json_schema"}
    assert view["max_tokens"] == 7
    assert (view["reasoning_options"], view["reasoning_effort"]) == ({"effort": "high"}, "high")
    assert "reasoning" not in view


def test_encrypted_reasoning() -> None:
    assert encrypted_contents(BODY) == ["g"]
    assert encrypted_contents({}) == encrypted_contents({"input": "text"}) == []
    assert in_chat_terms({"input": None})["messages"] == []
