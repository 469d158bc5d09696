"""Runs the real Claude Code against an upstream that records what it gets: the conversations of `CONVERSATIONS`."""

from __future__ import annotations

import itertools
import json
import shutil
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiohttp import web

from tests.captures import FOLDER, TOOLS_FILE
from tests.captures.filler import filled
from tests.system.e2e.anthropic_upstream import USAGE
from tests.system.e2e.claude_code import ClaudeRun, run_claude
from tests.system.e2e.scenarios.content import pdf, png
from tests.system.e2e.scripted import MAX_BODY_BYTES
from tests.system.e2e.stage import FAKE_KEY

__all__ = [
    "CONVERSATIONS",
    "KNOWN",
    "UNKNOWN",
    "Front",
    "Recorder",
    "RecordingError",
    "Session",
    "record",
    "restart_ids",
]

Block = dict[str, Any]
#: A model name that Claude Code does not know, as those of other vendors, and one that it knows.
UNKNOWN, KNOWN = "some-model", "claude-opus-5-5"
MESSAGES, COUNT = "/v1/messages", "/v1/messages/count_tokens"

_ids = itertools.count(1)  # begun anew for each version, so that captures of two versions compare


class RecordingError(Exception):
    """Claude Code did not do what a conversation is there to show."""


def text(words: str) -> Block:
    return {"type": "text", "text": words}


def thought(words: str) -> Block:
    return {"type": "thinking", "thinking": words, "signature": "c2lnbmVkLWJ5LW5vYm9keQ=="}


def use(name: str, **arguments: Any) -> Block:
    return {"type": "tool_use", "id": f"toolu_rec_{next(_ids)}", "name": name, "input": arguments}


class Recorder:
    """An upstream in the form of Anthropic's that keeps each request, and plays a script to those that offer tools.

    Args:
        port: where it listens; 0 for any free port.

    Attributes:
        requests: path and body, in order of arrival.
    """

    def __init__(self, script: Sequence[Sequence[Block]], port: int = 0) -> None:
        self._script = iter(script)
        self._port = port
        self._runner: web.AppRunner | None = None
        self.requests: list[tuple[str, dict[str, Any]]] = []
        self.origin = ""

    async def __aenter__(self) -> Recorder:
        app = web.Application(client_max_size=MAX_BODY_BYTES)
        app.router.add_post(MESSAGES, self._answer)
        app.router.add_post(COUNT, self._count)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self._port).start()
        self.origin = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    async def _count(self, request: web.Request) -> web.Response:
        self.requests.append((COUNT, await request.json()))
        return web.json_response({"input_tokens": 1000})

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.requests.append((MESSAGES, body))
        is_asked_with_tools = any("input_schema" in tool for tool in body.get("tools") or ())
        blocks = next(self._script, [text("Done.")]) if is_asked_with_tools else [text("A side answer.")]
        used = any(block["type"] == "tool_use" for block in blocks)
        message = {
            "id": f"msg_rec_{next(_ids)}",
            "type": "message",
            "role": "assistant",
            "model": body["model"],
            "content": list(blocks),
            "stop_reason": "tool_use" if used else "end_turn",
            "stop_sequence": None,
            "usage": USAGE,
        }
        if body.get("stream") is not True:
            return web.json_response(message)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for event in _events(message):
            await response.write(
                b"event: %b\ndata: %b\n\n" % (event["type"].encode(), json.dumps(event).encode())
            )
        await response.write_eof()
        return response


def _events(message: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    start = {**message, "content": [], "stop_reason": None, "usage": {**USAGE, "output_tokens": 0}}
    yield {"type": "message_start", "message": start}
    for index, block in enumerate(message["content"]):
        kind = block["type"]
        if kind == "tool_use":
            empty = {**block, "input": {}}
            deltas = [{"type": "input_json_delta", "partial_json": json.dumps(block["input"])}]
        elif kind == "thinking":
            empty = {"type": "thinking", "thinking": "", "signature": ""}
            deltas = [
                {"type": "thinking_delta", "thinking": block["thinking"]},
                {"type": "signature_delta", "signature": block["signature"]},
            ]
        else:
            empty = {"type": "text", "text": ""}
            deltas = [{"type": "text_delta", "text": block["text"]}]
        yield {"type": "content_block_start", "index": index, "content_block": empty}
        for delta in deltas:
            yield {"type": "content_block_delta", "index": index, "delta": delta}
        yield {"type": "content_block_stop", "index": index}
    end = {"stop_reason": message["stop_reason"], "stop_sequence": None}
    yield {"type": "message_delta", "delta": end, "usage": USAGE}
    yield {"type": "message_stop"}


@dataclass(frozen=True)
class Front:
    """What stands between Claude Code and the recorder.

    Args:
        base_url: for Claude Code.
        recorder_port: where it expects the recorder.
        environment: further variables for Claude Code.
    """

    base_url: str
    recorder_port: int
    environment: Mapping[str, str]


class Session:
    """One home and one project for the runs of a conversation.

    Args:
        front: None lets Claude Code call the recorder itself.
    """

    def __init__(self, folder: str, binary: Path, front: Front | None = None) -> None:
        self._binary = binary
        self._front = front
        real = Path(folder).resolve()
        self.home, self.project = real / "home", real / "project"
        self.home.mkdir()
        self.project.mkdir()

    def recorder(self, script: Sequence[Sequence[Block]]) -> Recorder:
        """Return an upstream for the runs of this session; use it as an async context manager."""
        return Recorder(script, 0 if self._front is None else self._front.recorder_port)

    async def run(self, recorder: Recorder, prompt: str, **options: Any) -> ClaudeRun:
        options.setdefault("model", UNKNOWN)
        base_url = recorder.origin
        if self._front is not None:
            base_url = self._front.base_url
            options["environment"] = {**self._front.environment, **(options.get("environment") or {})}
        run = await run_claude(
            self._binary,
            prompt,
            base_url=base_url,
            credentials={"ANTHROPIC_AUTH_TOKEN": FAKE_KEY},
            home=self.home,
            directory=self.project,
            **options,
        )
        if not run.is_success:
            raise RecordingError(f"Claude Code failed: {run.report()}")
        return run


#: A request of a conversation, by what it is kept as.
Kept = dict[str, tuple[str, dict[str, Any]]]


async def _first_turns(session: Session) -> Kept:
    kept: Kept = {}
    for name, model, environment in (
        ("first_turn", UNKNOWN, {}),
        ("first_turn_known_model", KNOWN, {}),
        ("thinking_off", UNKNOWN, {"MAX_THINKING_TOKENS": "0"}),
        (
            "thinking_budget",
            "claude-sonnet-4-5",
            {"CLAUDE_CODE_DISABLE_ADAPTIVE_THINKING": "1", "MAX_THINKING_TOKENS": "8000"},
        ),
        *((f"effort_{level}", UNKNOWN, {"CLAUDE_CODE_EFFORT_LEVEL": level}) for level in EFFORTS),
        ("tool_search_off", UNKNOWN, {"ENABLE_TOOL_SEARCH": "false"}),
    ):
        async with session.recorder([]) as recorder:
            await session.run(recorder, "Say hello.", model=model, environment=environment)
            kept[name] = recorder.requests[-1]
    return kept


EFFORTS = ("low", "medium", "high", "xhigh", "max")


async def _tools(session: Session) -> Kept:
    (session.project / "a.txt").write_text("a line\n")
    kept: Kept = {}
    for model, suffix in ((UNKNOWN, ""), (KNOWN, "_known_model")):
        script = [
            [thought("Look first."), text("I look."), use("Bash", command="echo one", description="Say one")],
            [
                use("Bash", command="echo two; exit 3", description="Fail"),
                use("Read", file_path=str(session.project / "a.txt")),
            ],
            [thought("Enough."), text("Done.")],
        ]
        async with session.recorder(script) as recorder:
            first = await session.run(recorder, "Do it.", model=model, tools=["Bash", "Read"])
            options = ["--resume", first.session_id]
            await session.run(recorder, "Go on.", model=model, options=options)
            turns = [request for request in recorder.requests if request[1].get("tools")]
        if len(turns) != 4:
            raise RecordingError(f"{len(turns)} turns instead of 4")
        kept |= dict(
            zip(
                (f"tool_turn{suffix}", f"parallel_tools{suffix}", f"next_turn{suffix}"),
                turns[1:],
                strict=True,
            )
        )
    return kept


async def _files(session: Session) -> Kept:
    (session.project / "red.png").write_bytes(png())
    (session.project / "page.pdf").write_bytes(pdf())
    kept: Kept = {}
    for name, file in (("image", "red.png"), ("document", "page.pdf")):
        async with session.recorder([[use("Read", file_path=str(session.project / file))]]) as recorder:
            await session.run(recorder, "Read it.", tools=["Read"])
            kept[name] = recorder.requests[-1]
    return kept


async def _compaction(session: Session) -> Kept:
    async with session.recorder([[text("Noted.")], [text("<summary>All is noted.</summary>")]]) as recorder:
        first = await session.run(recorder, "I like blue.")
        options = ["--resume", first.session_id]
        await session.run(recorder, "/compact", options=options)
        summary = recorder.requests[-1]
        await session.run(recorder, "What do I like?", options=options)
        return {"compaction": summary, "after_compaction": recorder.requests[-1]}


async def _subagent(session: Session) -> Kept:
    call = use("Agent", description="Count", prompt="Count to one.", subagent_type="general-purpose")
    async with session.recorder([[call]]) as recorder:
        await session.run(recorder, "Let another count.", tools=["Agent"])
        prompts = [json.dumps(body["messages"]) for _, body in recorder.requests]
        at = next(
            n for n, words in enumerate(prompts) if "Count to one." in words and "Let another" not in words
        )
        return {"subagent": recorder.requests[at]}


async def _web_search(session: Session) -> Kept:
    async with session.recorder([[use("WebSearch", query="what is new")]]) as recorder:
        await session.run(
            recorder, "Search.", tools=["WebSearch"], environment={"ENABLE_TOOL_SEARCH": "false"}
        )
        at = next(
            n
            for n, (_, body) in enumerate(recorder.requests)
            if any(str(tool.get("type", "")).startswith("web_search") for tool in body.get("tools") or ())
        )
        return {"web_search": recorder.requests[at]}


async def _tool_search(session: Session) -> Kept:
    async with session.recorder([[use("ToolSearch", query="select:WebFetch")]]) as recorder:
        await session.run(
            recorder, "Find it.", tools=["ToolSearch"], environment={"ENABLE_TOOL_SEARCH": "true"}
        )
        return {"tool_search": recorder.requests[-1]}


async def _mcp(session: Session) -> Kept:
    servers = {"odd": {"command": sys.executable, "args": [str(FOLDER / "mcp_server.py")]}}
    options = ["--mcp-config", json.dumps({"mcpServers": servers}), "--strict-mcp-config"]
    async with session.recorder([[use("mcp__odd__typeless", anything=1)]]) as recorder:
        await session.run(
            recorder,
            "Use it.",
            tools=["mcp__odd"],
            options=options,
            environment={"ENABLE_TOOL_SEARCH": "false", "MCP_CONNECTION_NONBLOCKING": "0"},
        )
        names = [tool["name"] for tool in recorder.requests[-1][1]["tools"]]
        if not any(name.startswith("mcp__odd__") for name in names):
            raise RecordingError(f"the MCP server's tools are missing: {names}")
        return {"mcp_tools": recorder.requests[-1]}


async def _structured(session: Session) -> Kept:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    async with session.recorder([[use("StructuredOutput", n=1)]]) as recorder:
        await session.run(recorder, "Count.", options=["--json-schema", json.dumps(schema)])
        return {"structured_output": recorder.requests[0]}


async def _counted(session: Session) -> Kept:
    async with session.recorder([[text("Hello.")]]) as recorder:
        first = await session.run(recorder, "Say hello.")
        await session.run(recorder, "/context", options=["--resume", first.session_id])
        counted = [request for request in recorder.requests if request[0] == COUNT]
        if not counted:
            raise RecordingError("/context counted no tokens")
        with_tools = [request for request in counted if request[1].get("tools")]
        return {"count_tokens": (with_tools or counted)[0]}


CONVERSATIONS: dict[str, Callable[[Session], Awaitable[Kept]]] = {
    "first_turns": _first_turns,
    "tools": _tools,
    "files": _files,
    "compaction": _compaction,
    "subagent": _subagent,
    "web_search": _web_search,
    "tool_search": _tool_search,
    "mcp": _mcp,
    "structured": _structured,
    "counted": _counted,
}


def restart_ids() -> None:
    """Begin the ids of messages and tool calls anew, so that what two versions send compares."""
    global _ids
    _ids = itertools.count(1)


async def record(binary: Path, version: str) -> list[str]:
    """Record all conversations of one version, in place of what is there; returns what went wrong.

    Nothing is replaced where a conversation failed.
    """
    restart_ids()
    kept: Kept = {}
    failures = []
    for name, conversation in CONVERSATIONS.items():
        with tempfile.TemporaryDirectory(prefix="captures-", ignore_cleanup_errors=True) as folder:
            try:
                kept |= await conversation(Session(folder, binary))
            except (RecordingError, StopIteration, LookupError) as exc:
                failures.append(f"{version} {name}: {exc or type(exc).__name__}")
        print(f"{version} {name}: {len(kept)} requests so far", flush=True)
    if not failures:
        _write(FOLDER / version, kept)
    return failures


def _write(folder: Path, kept: Kept) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    known: dict[str, Any] = {}
    for name, (path, body) in sorted(kept.items()):
        clean = filled(body)
        if "tools" in clean:
            clean["tools"] = [_place(tool, known) for tool in clean["tools"]]
        _dump(folder / f"{name}.json", {"path": path, "body": clean})
    _dump(folder / TOOLS_FILE, known)


def _place(tool: dict[str, Any], known: dict[str, Any]) -> str:
    """The name under which `known` holds a definition; a second one of that name gets a number."""
    for number in itertools.count(1):
        name = tool["name"] if number == 1 else f"{tool['name']}#{number}"
        if known.setdefault(name, tool) == tool:
            return str(name)
    raise AssertionError("the count has no end")


def _dump(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", "utf-8")
