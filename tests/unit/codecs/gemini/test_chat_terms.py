"""The view of a Gemini request that the rules about refusals read."""

from __future__ import annotations

from typing import Any

import pytest

from proxyd.codecs.gemini.chat_terms import as_chat_terms, thought_signatures

BODY: dict[str, Any] = {
    "systemInstruction": {"parts": [{"text": "s"}]},
    "tools": [{"functionDeclarations": [{"name": "T", "parametersJsonSchema": {"type": "object"}}]}],
    "toolConfig": {"functionCallingConfig": {"mode": "ANY"}},
    "generationConfig": {
        "maxOutputTokens": 9,
        "topK": 3,
        "stopSequences": ["a"],
        "responseMimeType": "application/json",
        "responseJsonSchema": {},
        "thinkingConfig": {"thinkingLevel": "HIGH", "thinkingBudget": 5, "includeThoughts": True},
    },
    "contents": [
        {"role": "user", "parts": [{"text": "u"}, {"inlineData": {"mimeType": "image/png", "data": "x"}}]},
        {
            "role": "model",
            "parts": [
                {"text": "m"},
                {"functionCall": {"id": "i", "name": "T", "args": {}}, "thoughtSignature": "sigA"},
                {
                    "functionCall": {"name": "T", "args": {}},
                    "thoughtSignature": "skip_thought_signature_validator",
                },
            ],
        },
        {
            "role": "user",
            "parts": [
                {"functionResponse": {"name": "T", "response": {"output": "o"}}},
                {
                    "functionResponse": {
                        "name": "T",
                        "response": {"error": "e"},
                        "parts": [{"inlineData": {}}],
                    }
                },
                {"fileData": {"mimeType": "application/pdf"}},
            ],
        },
    ],
}


def test_the_view() -> None:
    view = as_chat_terms(BODY)
    assert [message["role"] for message in view["messages"]] == [
        "system",
        "user",
        "assistant",
        "tool",
        "tool",
        "user",
    ]
    _, user, assistant, first, second, last = view["messages"]
    assert [part["type"] for part in user["content"]] == ["text", "image_url"]
    assert [call.get("id") for call in assistant["tool_calls"]] == ["i", None]
    assert assistant["tool_calls"][0]["thought_signature"] == "sigA"
    assert (first["content"], first["name"]) == ("o", "T")
    assert [part["type"] for part in second["content"]] == ["text", "file"]
    assert [part["type"] for part in last["content"]] == ["file"]
    assert view["tools"] == [
        {"type": "function", "function": {"name": "T", "parameters": {"type": "object"}}}
    ]
    assert view["tool_choice"] == "required"
    assert view["response_format"] == {"type": "json_schema"}
    names = ("max_tokens", "top_k", "stop", "reasoning_effort", "thinking_budget", "include_thoughts")
    assert [view[name] for name in names] == [9, 3, ["a"], "high", 5, True]
    assert not {"contents", "generationConfig", "toolConfig"} & view.keys()


@pytest.mark.parametrize(
    ("config", "choice"),
    [
        ({"mode": "AUTO"}, "auto"),
        ({"mode": "NONE"}, "none"),
        ({"mode": "ANY", "allowedFunctionNames": ["T"]}, {"type": "function", "function": {"name": "T"}}),
        ({"mode": "VALIDATED"}, None),
        (None, None),
    ],
)
def test_the_choice_of_a_tool(config: Any, choice: Any) -> None:
    view = as_chat_terms({**BODY, "toolConfig": {"functionCallingConfig": config}})
    assert view.get("tool_choice") == choice


def test_any_body_has_a_view() -> None:
    for odd in (None, 5, "x", [], {}, [None], [{"parts": 5}], [{"parts": [None, 5, {}]}]):
        body = dict.fromkeys(BODY, odd)
        assert as_chat_terms(body)["messages"] is not None
        assert thought_signatures(body) == []


def test_signatures_without_placeholders() -> None:
    assert thought_signatures(BODY) == ["sigA"]
