"""What a call is for, from the shapes that Claude Code gives its side calls.

See docs/spec/claude-code.md#side-requests.
"""

from __future__ import annotations

from typing import Any

import pytest

from proxyd.telemetry.request_kind import KINDS, kind_of, session_in

READ = {"name": "Read", "input_schema": {"type": "object"}}
SEARCH = {"type": "web_search_20250305", "name": "web_search", "max_uses": 8}
TITLE = {"format": {"type": "json_schema", "schema": {"type": "object"}}}
HELLO = [{"role": "user", "content": "Hello"}]
REVIEW = {
    "max_tokens": 64,
    "thinking": {"type": "disabled"},
    "system": [{"type": "text", "text": "Reply with <severity>N</severity>."}],
    "messages": HELLO,
}
SUMMARY = "CRITICAL: Respond with TEXT ONLY. Do NOT call any tools."


@pytest.mark.parametrize(
    ("payload", "kind"),
    [
        ({"tools": [READ], "messages": HELLO}, "main"),
        ({"messages": HELLO}, "main"),
        ({"tools": [], "messages": HELLO}, "main"),
        ({"tools": [], "messages": HELLO, "output_config": TITLE}, "title"),
        ({"tools": [READ], "messages": HELLO, "output_config": TITLE}, "main"),
        ({"tools": [SEARCH], "messages": HELLO}, "search"),
        ({"tools": [READ, SEARCH], "messages": HELLO}, "main"),  # a conversation that may search
        ({"tools": [READ], "messages": [*HELLO, {"role": "user", "content": SUMMARY}]}, "compact"),
        (
            {
                "tools": [READ],
                "messages": [
                    {
                        "role": "user",
                        "content": [{"type": "text", "text": "a"}, {"type": "text", "text": SUMMARY}],
                    }
                ],
            },
            "compact",
        ),
        (
            {
                "messages": [
                    {"role": "user", "content": SUMMARY},
                    {"role": "assistant", "content": "Done."},
                    *HELLO,
                ]
            },
            "main",
        ),
        (REVIEW, "review"),
        ({**REVIEW, "system": "Be kind."}, "main"),
        ({**REVIEW, "stream": True}, "main"),
        ({**REVIEW, "tools": [READ]}, "main"),
        ({"max_tokens": 1, "system": "x", "messages": HELLO}, "probe"),
        ({"max_tokens": True, "messages": HELLO}, "main"),
        ({"max_tokens": 1, "messages": HELLO, "tools": [READ]}, "main"),
        ({"max_tokens": 3072, "stream": True, "messages": HELLO}, "background"),
        ({"max_tokens": 2080, "stream": True, "messages": HELLO, "tools": []}, "background"),
        ({"max_tokens": 3072, "stream": True, "messages": HELLO, "tools": [READ]}, "main"),
        ({"tools": [None, 5], "messages": [None]}, "main"),
        ({"tools": ["web_search_"], "messages": "Hello"}, "main"),
    ],
)
def test_kinds(payload: dict[str, Any], kind: str) -> None:
    assert kind_of(payload, is_subagent=False) == kind
    assert kind_of(payload, is_subagent=True) == ("subagent" if kind == "main" else kind)
    assert kind in KINDS


@pytest.mark.parametrize(
    ("request_class", "payload", "kind"),
    [
        ("main", {"tools": [], "output_config": TITLE}, "main"),  # the client knows better than we do
        ("subagent", {}, "subagent"),
        ("workflow", {"messages": HELLO}, "workflow"),
        ("compaction", {"messages": HELLO}, "compact"),
        ("side_reply", {"messages": HELLO}, "side_reply"),
        ("auxiliary", {"messages": HELLO}, "auxiliary"),
        ("auxiliary", {"tools": [], "output_config": TITLE}, "title"),
        ("auxiliary", {"tools": [SEARCH]}, "search"),
        ("auxiliary", REVIEW, "review"),
        ("of a later version", REVIEW, "review"),
        ("", {"messages": HELLO}, "main"),
    ],
)
def test_request_class_is_preferred(request_class: str, payload: dict[str, Any], kind: str) -> None:
    assert kind_of(payload, is_subagent=False, request_class=request_class) == kind
    assert kind in KINDS


@pytest.mark.parametrize(
    ("user_id", "session"),
    [
        ('{"device_id":"d","session_id":"5f0c1c0e"}', "5f0c1c0e"),
        ('{"session_id":5}', None),
        ("{", None),
        ("[]", None),
        ("user_a_session_5f0c1c0e", None),
        (None, None),
    ],
)
def test_session_in_the_metadata(user_id: Any, session: str | None) -> None:
    assert session_in({"metadata": {"user_id": user_id}}) == session
