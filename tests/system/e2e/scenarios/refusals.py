"""Refusals of a direct upstream: the number of calls until Claude Code goes on, or shows the message.

Without the proxy's help the same refusals cost six or seven calls and end in an error; one of `effort` ends the run at
once (docs/spec/hints-and-modes.md#capability-rejected).
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tests.system.e2e.anthropic_upstream import AnthropicUpstream, calls, refuse, say
from tests.system.e2e.scripted import Received, Refusal, Step
from tests.system.e2e.stage import FAKE_KEY, Stage, check, check_equal, scenario

PDF = (
    b"%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\n2 0 obj<</Type/Pages/Kids[3 0 R]/Count 1>>endobj\n"
    b"3 0 obj<</Type/Page/Parent 2 0 R/MediaBox[0 0 200 200]>>endobj\ntrailer<</Root 1 0 R>>\n%%EOF\n"
)


def png() -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + b"\xff\0\0" * 4 for _ in range(4))
    head = struct.pack(">IIBBBBB", 4, 4, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


async def _upstream(stage: Stage, play: Callable[[Received], Sequence[Step] | Refusal]) -> AnthropicUpstream:
    return await stage.anthropic(play, key_header="authorization", key=FAKE_KEY)


def _entry(name: str, upstream: AnthropicUpstream) -> Mapping[str, Any]:
    return {"model_id": name, "api_base": upstream.api_base, "direct": True}


@scenario
async def refused_features_are_left_out(stage: Stage) -> None:
    """A direct upstream refuses images, PDFs, effort, thinking, context edits and more: one refused call each"""
    (stage.project / "a.png").write_bytes(png())
    (stage.project / "a.pdf").write_bytes(PDF)
    (stage.project / "a.txt").write_text("A text.")
    cases: dict[str, tuple[str, Callable[[dict[str, Any]], bool], str]] = {
        "images": (
            "unknown variant `image`, expected one of `text`, `tool_use`, `tool_result`, `thinking`",
            lambda body: '"type": "image"' in json.dumps(body["messages"]),
            "a.png",
        ),
        "documents": (
            "This model does not support PDF documents.",
            lambda body: '"type": "document"' in json.dumps(body["messages"]),
            "a.pdf",
        ),
        "effort": (
            "output_config.effort: Extra inputs are not permitted",
            lambda body: "effort" in (body.get("output_config") or {}),
            "",
        ),
        "adaptive": (
            "thinking.type: Input should be 'enabled' or 'disabled'",
            lambda body: (body.get("thinking") or {}).get("type") == "adaptive",
            "",
        ),
        "signatures": (
            "messages.1.content.0: Invalid `signature` in `thinking` block",
            lambda body: '"type": "thinking"' in json.dumps(body["messages"]),
            "a.txt",
        ),
        "context edits": (
            "context_management: Extra inputs are not permitted",
            lambda body: "context_management" in body,
            "",
        ),
        "system turns": (
            "messages.1.role: Input should be 'user' or 'assistant'",
            lambda body: any(message["role"] == "system" for message in body["messages"]),
            "",
        ),
    }

    def playing(
        message: str, has_feature: Callable[[dict[str, Any]], bool], file: str
    ) -> Callable[[Received], Sequence[Step] | Refusal]:
        def play(received: Received) -> Sequence[Step] | Refusal:
            if has_feature(received.body):
                return refuse(400, "invalid_request_error", message)(received)
            if file and "tool_result" not in json.dumps(received.messages):
                wanted = ("Read", {"file_path": str(stage.project / file)})
                return calls(wanted, thought="I have to read it.")(received)
            return say("It goes on.")(received)

        return play

    upstreams = {name: await _upstream(stage, playing(*case)) for name, case in cases.items()}
    daemon = await stage.daemon([_entry(name, upstream) for name, upstream in upstreams.items()])
    for name, upstream in upstreams.items():
        run = await stage.succeed(daemon, "Go on.", model=name, tools=["Read"])
        check_equal(run.text, "It goes on.", f"the answer after refused {name}")
        refused = [request for request in upstream.requests if cases[name][1](request.body)]
        check_equal(len(refused), 1, f"the number of refused calls with {name}")


@scenario
async def refusals_are_shown_after_one_call(stage: Stage) -> None:
    """A direct upstream's content filter and an empty account: one call, and the message says what to do"""
    filtered = await _upstream(stage, refuse(400, "invalid_request_error", "Content Exists Risk"))
    empty = await _upstream(stage, refuse(429, "rate_limit_error", "Insufficient balance, please recharge"))
    daemon = await stage.daemon([_entry("filtered", filtered), _entry("empty", empty)])
    run = await stage.run(daemon, "Hello.", model="filtered")
    check("Content Exists Risk" in run.text and "choose another model" in run.text, f"shown: {run.text!r}")
    check_equal(len(filtered.requests), 1, "the number of calls to the filtering upstream")
    run = await stage.run(daemon, "Hello.", model="empty")
    check("Insufficient balance" in run.text, f"shown: {run.text!r}")
    check_equal(len(empty.requests), 1, "the number of calls with the empty account")
