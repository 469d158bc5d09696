"""A stream that breaks inside a block: why the block is left open before the error event (docs/reliability.md).

On direct routes the bytes go on as they are, so the scripted upstream shows Claude Code both endings: the error event
with the block still open, which is how the proxy ends a stream, and with the block stopped first.
"""

from __future__ import annotations

from typing import Any

from tests.system.e2e.anthropic_upstream import USAGE, call, say
from tests.system.e2e.scripted import Received, Step, Turn
from tests.system.e2e.stage import FAKE_KEY, Stage, check, check_equal, scenario

_ERROR = {
    "type": "error",
    "error": {"type": "api_error", "message": "the upstream closed the stream before finishing"},
}
_START: dict[str, dict[str, Any]] = {
    "text": {"type": "text", "text": ""},
    "thinking": {"type": "thinking", "thinking": "", "signature": ""},
    "tool_use": {"type": "tool_use", "id": "toolu_cut", "name": "Write", "input": {}},
}


def _broken(kind: str, delta: dict[str, Any], *, is_stopped: bool) -> Turn:
    """Break a stream after one delta of one block."""

    def play(received: Received) -> list[Step]:
        message = {
            "id": "msg_cut",
            "type": "message",
            "role": "assistant",
            "model": received.body["model"],
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": USAGE | {"output_tokens": 0},
        }
        steps: list[Step] = [
            {"type": "message_start", "message": message},
            {"type": "content_block_start", "index": 0, "content_block": _START[kind]},
            {"type": "content_block_delta", "index": 0, "delta": delta},
        ]
        if is_stopped:
            steps.append({"type": "content_block_stop", "index": 0})
        return [*steps, _ERROR]

    return play


async def _run(
    stage: Stage, kind: str, delta: dict[str, Any], *, is_stopped: bool, after: list[Turn]
) -> list[Received]:
    script = [_broken(kind, delta, is_stopped=is_stopped), *after]
    upstream = await stage.anthropic(script, key_header="authorization", key=FAKE_KEY)
    daemon = await stage.daemon([{"model_id": "breaks", "api_base": upstream.api_base, "direct": True}])
    await stage.succeed(daemon, "Write it.", model="breaks", tools=["Write"])
    return upstream.requests


def _whole_call(stage: Stage) -> dict[str, Any]:
    """Arguments that are complete JSON although the stream broke before their end."""
    text = '{"file_path": "%s", "content": "only the first ha"}' % (stage.project / "half.txt")
    return {"type": "input_json_delta", "partial_json": text}


@scenario
async def break_in_open_text(stage: Stage) -> None:
    """Text, block left open: retried at once, the partial response is discarded"""
    delta = {"type": "text_delta", "text": "Half of an answ"}
    requests = await _run(stage, "text", delta, is_stopped=False, after=[say("Whole.")])
    check_equal(len(requests), 2, "requests")
    check("Half of an answ" not in str(requests[1].body["messages"]), "the half answer came back")


@scenario
async def break_in_stopped_text(stage: Stage) -> None:
    """Text, block stopped: the same as left open"""
    delta = {"type": "text_delta", "text": "Half of an answ"}
    requests = await _run(stage, "text", delta, is_stopped=True, after=[say("Whole.")])
    check_equal(len(requests), 2, "requests")


@scenario
async def break_in_open_thinking(stage: Stage) -> None:
    """Thinking, block left open: retried at once"""
    delta = {"type": "thinking_delta", "thinking": "Half a tho"}
    requests = await _run(stage, "thinking", delta, is_stopped=False, after=[say("Whole.")])
    check_equal(len(requests), 2, "requests")
    check("Half a tho" not in str(requests[1].body["messages"]), "the half thought came back")


@scenario
async def break_in_stopped_thinking(stage: Stage) -> None:
    """Thinking, block stopped: the same as left open"""
    delta = {"type": "thinking_delta", "thinking": "Half a tho"}
    requests = await _run(stage, "thinking", delta, is_stopped=True, after=[say("Whole.")])
    check_equal(len(requests), 2, "requests")


@scenario
async def break_in_open_tool_call(stage: Stage) -> None:
    """A tool call, block left open: never run, even if its arguments look complete; retried at once"""
    after = [call("Write", file_path=str(stage.project / "whole.txt"), content="all of it"), say("Done.")]
    await _run(stage, "tool_use", _whole_call(stage), is_stopped=False, after=after)
    check(not (stage.project / "half.txt").exists(), "half a tool call was run")
    check_equal((stage.project / "whole.txt").read_text(), "all of it", "whole.txt")


@scenario
async def break_in_stopped_tool_call(stage: Stage) -> None:
    """A tool call, block stopped: Claude Code runs the partial call, so the proxy never stops the block"""
    await _run(stage, "tool_use", _whole_call(stage), is_stopped=True, after=[say("Done.")])
    check(
        (stage.project / "half.txt").exists(), "Claude Code has changed: docs/reliability.md can be simpler"
    )
