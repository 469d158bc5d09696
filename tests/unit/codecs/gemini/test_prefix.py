"""Ten turns of a Claude Code session keep the longest possible common beginning, whatever differs between requests."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import pytest

from proxyd import jsonio
from proxyd.codecs.anthropic.thinking_signature import encode_signature
from proxyd.codecs.formats import GEMINI
from proxyd.codecs.translation.dialect import Dialect
from proxyd.codecs.translation.translated import RequestOptions, run_to_end
from proxyd.providers.registry import PROFILES, dialect_for
from tests.captures import captures, versions
from tests.support.prefix_cache import PrefixCache
from tests.support.strict_gemini import validate

#: What a strict cache must have read of what a perfect client gets.
LEAST_SHARE = 0.95
TURNS = 10
MODEL = "gemini-3-pro"


def session(version: str, model: str) -> list[dict[str, Any]]:
    """Requests as the captured client sends them: each has all before it, another attribution, and moved marks.

    Every third turn is one of the user, behind which signatures are not checked any more; the first calls are those of
    another model.
    """
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
        ids = [f"call_{turn}_{number}" for number in range(2)]
        signature = encode_signature(
            "other" if turn < 2 else model, "thought", None, {ids[0]: f"EqQB{turn}AAA" * 50}
        )
        payload["messages"] += [
            {
                "role": "assistant",
                "content": [
                    {"type": "text", "text": "Looking."},
                    {"type": "thinking", "thinking": f"Thought {turn}.", "signature": signature},
                    *(
                        {"type": "tool_use", "id": id, "name": "Read", "input": {"path": f"/{id}"}}
                        for id in ids
                    ),
                ],
            },
            {
                "role": "user",
                "content": [
                    *(
                        {"type": "tool_result", "tool_use_id": id, "content": f"line\n{id}" * 50}
                        for id in ids[::-1]
                    ),
                    {
                        "type": "text",
                        "text": f"<system-reminder>\nIt is 2026-11-{turn + 10}.\n</system-reminder>",
                    },
                ],
            },
        ]
        if turn % 3 == 2:
            payload["messages"] += [
                {"role": "assistant", "content": [{"type": "text", "text": "Done."}]},
                {"role": "user", "content": [{"type": "text", "text": f"Next: {turn}."}]},
            ]
    return requests


def written(requests: list[dict[str, Any]], model: str, dialect: Dialect) -> list[bytes]:
    options = RequestOptions(model, True, session_id="5f3c")
    return [run_to_end(GEMINI.translation(request, dialect, options)).written() for request in requests]


@pytest.mark.parametrize("version", versions())
@pytest.mark.parametrize("model", [MODEL, "gemini-2.5-flash"])
def test_a_body_begins_with_the_whole_body_before_it(version: str, model: str) -> None:
    dialect = dialect_for(PROFILES["gemini"], model, {}, GEMINI)
    bodies = written(session(version, model), model, dialect)
    for before, after in itertools.pairwise(bodies):
        # All but the brackets that close the parts, the contents and the body.
        kept = before.rstrip(b"]}")
        assert after.startswith(kept)


@pytest.mark.parametrize("version", versions())
@pytest.mark.parametrize("style", ["full", "gemini"])
def test_a_strict_cache_reads_what_a_perfect_client_gets(version: str, style: str) -> None:
    dialect = dialect_for(PROFILES["gemini"], MODEL, {"schema_style": style}, GEMINI)
    cache = PrefixCache()
    for body in written(session(version, MODEL), MODEL, dialect):
        sent = jsonio.loads(body)
        assert validate(sent) == []
        cache.add(sent)
    assert cache.share >= LEAST_SHARE, f"{cache.share:.1%}"
