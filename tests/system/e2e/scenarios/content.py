"""Images, documents, server tools and reasoning in requests, and their translation for an OpenAI upstream."""

from __future__ import annotations

import base64
import json
import struct
import sys
import zlib
from collections.abc import Sequence

from aiohttp import web

from tests.support.harness import running_upstream
from tests.support.paths import ROOT
from tests.support.search_engines import RESPONSES
from tests.system.e2e.openai_upstream import call, calls, say
from tests.system.e2e.scripted import Received, Refusal, Step
from tests.system.e2e.stage import FAKE_KEY, Stage, check, check_equal, scenario


def png() -> bytes:
    """Build an image of eight by eight red pixels."""

    def part(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = (b"\0" + b"\xff\0\0" * 8) * 8
    head = struct.pack(">IIBBBBB", 8, 8, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + part(b"IHDR", head) + part(b"IDAT", zlib.compress(rows)) + part(b"IEND", b"")
    )


def pdf() -> bytes:
    """Build a PDF with one page of text."""
    content = b"BT /F1 24 Tf 20 100 Td (A page) Tj ET"
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 200 200] /Contents 4 0 R"
        b" /Resources << /Font << /F1 << /Type /Font /Subtype /Type1 /BaseFont /Helvetica >> >> >> >>",
        b"<< /Length %d >>\nstream\n%b\nendstream" % (len(content), content),
    ]
    body, places = b"%PDF-1.4\n", []
    for number, each in enumerate(objects, 1):
        places.append(len(body))
        body += b"%d 0 obj\n%b\nendobj\n" % (number, each)
    table = b"xref\n0 5\n0000000000 65535 f \n" + b"".join(b"%010d 00000 n \n" % place for place in places)
    return body + table + b"trailer << /Size 5 /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % len(body)


@scenario
async def image_in_a_tool_result(stage: Stage) -> None:
    """An image read by a tool reaches the upstream as an image, after the tool's message"""
    path = stage.project / "red.png"
    path.write_bytes(png())
    script = [calls(("Read", {"file_path": str(path)})), say("It is red.")]
    upstream, run = await stage.converse(script, "Which colour is it?", tools=["Read"])
    check_equal(run.text, "It is red.", "the answer")
    messages = upstream.requests[1].messages
    place = next(n for n, message in enumerate(messages) if message["role"] == "tool")
    check(isinstance(messages[place]["content"], str), "a tool's message must be text")
    following = messages[place + 1]
    check_equal(following["role"], "user", "the role of the message with the picture")
    urls = [part["image_url"]["url"] for part in following["content"] if part["type"] == "image_url"]
    check_equal(len(urls), 1, "pictures sent")
    kind, _, data = urls[0].partition(",")
    check(kind.startswith("data:image/"), f"the picture is sent as {kind!r}")
    check(base64.b64decode(data)[1:4] in (b"PNG", b"\xd8\xff\xe0"), "what is sent is no picture")


@scenario
async def image_for_a_model_that_sees_none(stage: Stage) -> None:
    """An image read on a text-only model is described once by another entry, in the user's words"""
    path = stage.project / "red.png"
    path.write_bytes(png())
    script = [
        call("Read", file_path=str(path)),
        call("Bash", command="echo on", description="Go on"),
        say("It is red."),
    ]
    upstream = await stage.openai(script, key=FAKE_KEY)
    eyes = await stage.openai([say("A plain red square of eight by eight pixels.")], key=FAKE_KEY)
    daemon = await stage.daemon(
        [
            {
                "model_id": "scripted",
                "api_base": upstream.api_base,
                "vision": False,
                "images": {"describe_with": "eyes"},
            },
            {"model_id": "eyes", "api_base": eyes.api_base, "api_key": FAKE_KEY},
        ]
    )
    run = await stage.succeed(daemon, "Which colour is it?", model="scripted", tools=["Read", "Bash"])
    check_equal(run.text, "It is red.", "the answer")
    check_equal(len(eyes.requests), 1, "requests for a description")
    check("Which colour is it?" in eyes.requests[0].texts("user")[0], "the user's words are missing")
    _, second, third = (json.dumps(request.messages) for request in upstream.requests)
    for sent in (second, third):
        check("image_url" not in sent, "an image was sent to a model that sees none")
        check("A plain red square" in sent, "the description is missing")
    check("This is a description of it by the model eyes" in second, "the description is not marked")


@scenario
async def pdf_in_a_tool_result(stage: Stage) -> None:
    """A PDF read by a tool: a file for an upstream that accepts files, text and image of its page for another"""
    path = stage.project / "page.pdf"
    path.write_bytes(pdf())
    for quirks in ({"files": True}, {}):
        script = [call("Read", file_path=str(path)), say("It is a page.")]
        upstream, run = await stage.converse(script, "Read it.", entry={"quirks": quirks}, tools=["Read"])
        check_equal(run.text, "It is a page.", "the answer")
        messages = upstream.requests[1].messages
        after = messages[next(n for n, message in enumerate(messages) if message["role"] == "tool") :]
        texts = "\n".join(upstream.requests[1].texts("tool") + upstream.requests[1].texts("user"))
        parts = [
            part for message in after if isinstance(message["content"], list) for part in message["content"]
        ]
        files = [part["file"]["file_data"] for part in parts if part["type"] == "file"]
        images = [part["image_url"]["url"] for part in parts if part["type"] == "image_url"]
        if quirks:
            check_equal(len(files), 1, "files sent")
            check(files[0].startswith("data:application/pdf;base64,JVBERi"), "the file is no PDF")
        else:
            check_equal(files, [], "files sent to an upstream that takes none")
            check("[Page 1]\nA page" in texts, "the text of the page is missing")
            check_equal([url[:15] for url in images], ["data:image/jpeg"], "images of pages")


@scenario
async def web_search_side_call(stage: Stage) -> None:
    """WebSearch requests a server tool in a separate call: the model learns at once that no search is available"""
    script = [call("WebSearch", query="what is new"), say("I cannot search here.")]
    upstream, run = await stage.converse(
        script, "Search.", tools=["WebSearch"], environment={"ENABLE_TOOL_SEARCH": "false"}
    )
    check_equal(run.text, "I cannot search here.", "the answer")
    check_equal(len(upstream.requests), 2, "requests that reached the upstream")
    (result,) = upstream.requests[1].texts("tool")
    check("unavailable" in result, f"the result does not say that the search is unavailable: {result!r}")


@scenario
async def web_search_by_an_engine(stage: Stage) -> None:
    """WebSearch is answered by the search engine of models.yaml, within the domains, without a call of the model"""

    async def search(request: web.Request) -> web.StreamResponse:
        asked.append(dict(request.query))
        return web.json_response(RESPONSES["searxng"])

    asked: list[dict[str, str]] = []
    script = [
        call("WebSearch", query="rust news", allowed_domains=["a.example"]),
        say("It is in the news."),
    ]
    async with running_upstream(search) as engine:
        upstream, run = await stage.converse(
            script,
            "Search.",
            tools=["WebSearch"],
            environment={"ENABLE_TOOL_SEARCH": "false"},
            entry={"web_search": {"engine": "searxng", "url": engine.base}},
        )
    check_equal(run.text, "It is in the news.", "the answer")
    check_equal(len(upstream.requests), 2, "requests that reached the upstream")
    check_equal([each["q"] for each in asked], ["rust news site:a.example"], "queries of the engine")
    (result,) = upstream.requests[1].texts("tool")
    check("https://a.example/1" in result and "The first text." in result, f"results are missing: {result!r}")
    check("b.example" not in result, f"a result of another domain was shown: {result!r}")


@scenario
async def tool_search(stage: Stage) -> None:
    """A deferred tool is found by ToolSearch, offered and called"""
    script = [
        call("ToolSearch", query="select:WebFetch"),
        say("I have found it."),
    ]
    upstream, run = await stage.converse(
        script, "Find the tool.", tools=["ToolSearch", "WebFetch"], environment={"ENABLE_TOOL_SEARCH": "true"}
    )
    check_equal(run.text, "I have found it.", "the answer")
    (result,) = upstream.requests[1].texts("tool")
    check("WebFetch" in result, f"the found tool is not named: {result!r}")
    before, after = (
        [tool["function"]["name"] for tool in request.body["tools"]] for request in upstream.requests
    )
    check("WebFetch" not in before, "the deferred tool was offered before it was asked for")
    check("WebFetch" in after, f"the found tool is not offered: {after}")
    check("DeferredToolPlaceholder" not in after, "a tool that must never be called was offered")


@scenario
async def long_tool_name_after_a_search(stage: Stage) -> None:
    """A deferred MCP tool with a name of 69 characters: ToolSearch's result has the offered name, and it is called"""
    name = "mcp__odd__a_tool_with_a_name_that_is_longer_than_the_sixty_four_characters"
    servers = {
        "odd": {"command": sys.executable, "args": [str(ROOT / "tests" / "captures" / "mcp_server.py")]}
    }
    offered: list[str] = []

    def play(received: Received) -> Sequence[Step] | Refusal:
        offered[:] = [tool["function"]["name"] for tool in received.body["tools"]]
        results = received.texts("tool")
        if not results:
            return call("ToolSearch", query=f"select:{name}")(received)
        if len(results) == 1:
            return call(next(each for each in offered if each.startswith("mcp__odd__a_tool")))(received)
        return say("Done.")(received)

    upstream, run = await stage.converse(
        play,
        "Use the tool.",
        tools=["ToolSearch", "mcp__odd"],
        options=["--mcp-config", json.dumps({"mcpServers": servers}), "--strict-mcp-config"],
        environment={"ENABLE_TOOL_SEARCH": "true", "MCP_CONNECTION_NONBLOCKING": "0"},
    )
    check_equal(run.text, "Done.", "the answer")
    found, called = upstream.requests[-1].texts("tool")
    (upstream_name,) = [each for each in offered if each.startswith("mcp__odd__a_tool")]
    check(upstream_name in found, f"the result names another tool than {upstream_name}: {found}")
    check(name not in found, f"the result has the name that is not offered: {found}")
    check_equal(called, "done", "the result of the tool")


@scenario
async def thinking_switched_off(stage: Stage) -> None:
    """Thinking off in Claude Code is the vendor's off, although an effort is still sent"""
    for variables, thinks in (({"MAX_THINKING_TOKENS": "0"}, False), ({}, True)):
        upstream = await stage.openai([say("Fine.")], key=FAKE_KEY, other_fields=True)
        entry = {"model_id": "thinker", "api_base": upstream.api_base, "provider": "deepseek"}
        daemon = await stage.daemon([entry])
        await stage.succeed(daemon, "Hello.", model="thinker", environment=variables)
        sent = upstream.requests[0].body
        check_equal(sent.get("thinking"), {"type": "enabled" if thinks else "disabled"}, "thinking")
        check_equal("reasoning_effort" in sent, thinks, "whether an effort is sent")


@scenario
async def thinking_over_three_turns(stage: Stage) -> None:
    """Reasoning of tool turns is returned with every later request, over three turns and a resume"""
    script = [
        call("Bash", reasoning="First I look.", command="echo one", description="Look"),
        say("One.", reasoning="So one."),
        call("Bash", reasoning="Then again.", command="echo two", description="Look again"),
        say("Two.", reasoning="So two."),
        call("Bash", reasoning="Once more.", command="echo three", description="Look once more"),
        say("Three.", reasoning="So three."),
    ]
    upstream = await stage.openai(script, key=FAKE_KEY, other_fields=True)
    entry = {"model_id": "thinker", "api_base": upstream.api_base, "provider": "deepseek"}
    daemon = await stage.daemon([entry])
    first = await stage.succeed(daemon, "One?", model="thinker", tools=["Bash"])
    resume = {"model": "thinker", "tools": ["Bash"], "options": ["--resume", first.session_id]}
    second = await stage.succeed(daemon, "Two?", **resume)
    third = await stage.succeed(daemon, "Three?", **resume)
    check_equal([run.text for run in (first, second, third)], ["One.", "Two.", "Three."], "the answers")
    returned = [
        message.get("reasoning_content")
        for message in upstream.requests[-1].messages
        if message["role"] == "assistant" and message.get("tool_calls")
    ]
    check_equal(returned, ["First I look.", "Then again.", "Once more."], "the reasoning that came back")
