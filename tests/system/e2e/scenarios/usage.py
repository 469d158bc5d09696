"""Usage as reported by the upstreams, stored in the ledger, and shown by Claude Code."""

from __future__ import annotations

import asyncio
import json
import os
import random
import sqlite3
from pathlib import Path
from typing import Any

from aiohttp import web

from tests.support.harness import chunk, running_upstream, sse
from tests.system.e2e.daemon import Daemon
from tests.system.e2e.stage import Stage, check_equal, scenario

#: Number of runs of Claude Code, of some seconds each.
CONVERSATIONS = int(os.environ.get("E2E_USAGE_CONVERSATIONS", "20"))
_NAMES = ("input_tokens", "cache_read_tokens", "cache_write_tokens", "output_tokens")
_CLIENT_NAMES = ("inputTokens", "cacheReadInputTokens", "cacheCreationInputTokens", "outputTokens")
_LEDGER_S = 10.0


class _Upstream:
    """Script of both dialects: some tool calls, then a text; each response reports other numbers."""

    def __init__(self) -> None:
        self._chance = random.Random(8)
        self._ids = 0
        self.tool_calls = 0  # remaining in this conversation
        self.reported = [0, 0, 0, 0]

    async def respond(self, request: web.Request) -> web.StreamResponse:
        if request.path.endswith("/count_tokens"):
            return web.json_response({"input_tokens": 10})
        fresh, read, written, output = (self._chance.randrange(1, top) for top in (5000, 90_000, 3000, 900))
        is_direct = request.path.endswith("/v1/messages")
        if not is_direct:
            written = 0  # OpenAI's dialect does not report it
        self.reported = [
            old + new for old, new in zip(self.reported, (fresh, read, written, output), strict=True)
        ]
        self._ids += 1
        calls_a_tool, self.tool_calls = self.tool_calls > 0, self.tool_calls - 1
        make = _direct if is_direct else _translated
        body = make(f"call_{self._ids}", calls_a_tool, fresh, read, written, output)
        return web.Response(body=body, content_type="text/event-stream")


_ARGUMENTS = json.dumps({"command": "echo counted", "description": "Say a word"})


def _translated(call_id: str, calls_a_tool: bool, fresh: int, read: int, written: int, output: int) -> bytes:
    usage = {
        "prompt_tokens": fresh + read,
        "completion_tokens": output,
        "total_tokens": fresh + read + output,
        "prompt_tokens_details": {"cached_tokens": read},
    }
    function = {"name": "Bash", "arguments": _ARGUMENTS}
    call = {"index": 0, "id": call_id, "type": "function", "function": function}
    said = {"tool_calls": [call]} if calls_a_tool else {"content": "Counted."}
    return sse(chunk(said), chunk({}, "tool_calls" if calls_a_tool else "stop"), chunk(usage=usage))


def _direct(call_id: str, calls_a_tool: bool, fresh: int, read: int, written: int, output: int) -> bytes:
    usage = {
        "input_tokens": fresh,
        "cache_read_input_tokens": read,
        "cache_creation_input_tokens": written,
        "output_tokens": 1,
    }
    message = {
        "id": f"msg_{call_id}", "type": "message", "role": "assistant", "model": "m", "content": [],
        "stop_reason": None, "stop_sequence": None, "usage": usage,
    }  # fmt: skip
    if calls_a_tool:
        block: dict[str, Any] = {"type": "tool_use", "id": f"toolu_{call_id}", "name": "Bash", "input": {}}
        delta = {"type": "input_json_delta", "partial_json": _ARGUMENTS}
    else:
        block, delta = {"type": "text", "text": ""}, {"type": "text_delta", "text": "Counted."}
    end = {"stop_reason": "tool_use" if calls_a_tool else "end_turn", "stop_sequence": None}
    events = [
        {"type": "message_start", "message": message},
        {"type": "content_block_start", "index": 0, "content_block": block},
        {"type": "content_block_delta", "index": 0, "delta": delta},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": end, "usage": {"output_tokens": output}},
        {"type": "message_stop"},
    ]
    return b"".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode() for event in events)


@scenario
async def usage_three_ways(stage: Stage) -> None:
    """Over 20 conversations in both modes, upstream, ledger and Claude Code agree on every token"""
    upstream = _Upstream()
    async with running_upstream(upstream.respond) as server:
        daemon = await stage.daemon(
            [
                {"model_id": "translated-model", "api_base": f"{server.base}/v1"},
                {"model_id": "direct-model", "api_base": server.base, "direct": True},
            ]
        )
        for number in range(CONVERSATIONS):
            model = ("translated-model", "direct-model")[number % 2]
            upstream.reported, upstream.tool_calls = [0, 0, 0, 0], number % 4
            run = await stage.succeed(daemon, "Count something.", model=model, tools=["Bash"])
            used = [
                sum(int(model_usage[name]) for model_usage in run.result["modelUsage"].values())
                for name in _CLIENT_NAMES
            ]
            check_equal(used, upstream.reported, f"conversation {number}: what Claude Code says it used")
            kept = await _in_ledger(daemon, run.session_id, 1 + number % 4)
            check_equal(kept, upstream.reported, f"conversation {number}: what the ledger holds")


async def _in_ledger(daemon: Daemon, session: str, calls: int) -> list[int]:
    """Return the sums of a session as soon as it has so many calls."""
    path = daemon.state_folder / "usage.db"
    loop = asyncio.get_running_loop()
    deadline = loop.time() + _LEDGER_S
    while True:
        count, *sums = _sums(path, session)
        if count >= calls or loop.time() > deadline:
            return sums
        await asyncio.sleep(0.05)


def _sums(path: Path, session: str) -> list[int]:
    if not path.exists():
        return [0] * (1 + len(_NAMES))
    database = sqlite3.connect(path)
    try:
        columns = ", ".join(f"ifnull(sum({name}), 0)" for name in _NAMES)
        query = f"SELECT count(*), {columns} FROM calls WHERE session_id = ?"
        return list(database.execute(query, (session,)).fetchone())
    except sqlite3.OperationalError:  # no tables yet
        return [0] * (1 + len(_NAMES))
    finally:
        database.close()
