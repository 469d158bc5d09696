"""Ten turns of a Claude Code session keep the longest possible common beginning, whatever differs between requests."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import pytest

from proxyd import jsonio
from proxyd.codecs.anthropic.thinking_signature import encode_signature
from proxyd.codecs.formats import RESPONSES
from proxyd.codecs.translation.dialect import Dialect
from proxyd.codecs.translation.translated import RequestOptions, run_to_end
from proxyd.providers.registry import PROFILES, dialect_for
from tests.captures import captures, versions
from tests.support.prefix_cache import PrefixCache

#: What a strict cache must have read of what a perfect client gets.
LEAST_SHARE = 0.95
TURNS = 10


def session(version: str) -> list[dict[str, Any]]:
    """Requests as the captured client sends them: each has all before it, another attribution, and moved marks."""
    payload = copy.deepcopy(captures(version)["tool_turn"].body)
    requests = []
    for turn in range(TURNS):
        request = copy.deepcopy(payload)
        request["system"][0]["text"] = (
            f"x-anthropic-billing-header: cc_version=2.1.332.{turn:03x}; cch={turn * 7919 % 65536:05x};"
        )
        for message in request["messages"]:
            for block in message["content"] if isinstance(message["content"], list) else ():
                block.pop("cache_control", None)
        last = request["messages"][-1]["content"]
        if isinstance(last, list):
            last[-1]["cache_control"] = {"type": "ephemeral"}
        requests.append(request)
        signature = encode_signature(
            "gpt-5.6",
            "summary",
            None,
            None,
            response_item={"encrypted_content": f"gAAA{turn}" * 200, "phase": "commentary"},
        )
        call_id = f"call_{turn}"
        payload["messages"] += [
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": f"Thought {turn}.", "signature": signature},
                    {"type": "text", "text": "Looking."},
                    {"type": "tool_use", "id": call_id, "name": "Read", "input": {"path": f"/{turn}", "n": turn}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": call_id, "content": f"line\n{turn}" * 50},
                    {"type": "text", "text": f"<system-reminder>\nIt is 2026-11-{turn + 10}.\n</system-reminder>"},
                ],
            },
        ]  # fmt: skip
    return requests


def written(requests: list[dict[str, Any]], dialect: Dialect) -> list[bytes]:
    options = RequestOptions("gpt-5.6", True, session_id="5f3c")
    return [run_to_end(RESPONSES.translation(request, dialect, options)).written() for request in requests]


def common(first: bytes, second: bytes) -> int:
    return next(
        (at for at, (a, b) in enumerate(zip(first, second, strict=False)) if a != b),
        min(len(first), len(second)),
    )


@pytest.mark.parametrize("version", versions())
@pytest.mark.parametrize("profile", ["openai", "azure", "xai"])
def test_a_body_begins_with_the_whole_body_before_it(version: str, profile: str) -> None:
    dialect = dialect_for(PROFILES[profile], "gpt-5.6", {}, RESPONSES)
    bodies = written(session(version), dialect)
    for before, after in itertools.pairwise(bodies):
        # All but the brackets that close the input and the body.
        assert common(before, after) >= len(before.rstrip(b"]}")) - 1


@pytest.mark.parametrize("version", versions())
@pytest.mark.parametrize("cache_control", [False, True])
def test_a_strict_cache_reads_what_a_perfect_client_gets(version: str, cache_control: bool) -> None:
    dialect = dialect_for(PROFILES["openai"], "gpt-5.6", {"cache_control": cache_control}, RESPONSES)
    cache = PrefixCache()
    for body in written(session(version), dialect):
        sent = jsonio.loads(body)
        assert sent["prompt_cache_key"] == "5f3c"
        for item in sent["input"]:  # a mark is no part of the prompt
            for part in item.get("content") or () if isinstance(item.get("content"), list) else ():
                part.pop("prompt_cache_breakpoint", None)
        cache.add(sent)
    assert cache.share >= LEAST_SHARE, f"{cache.share:.1%}"
