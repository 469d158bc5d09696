"""The embedded upstream over real sockets: its text, its tool calls, its refusals."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from proxyd.daemon.demo.server import DemoServer, start_demo

WRITE_SCHEMA = {
    "type": "object",
    "properties": {"file_path": {"type": "string"}, "content": {"type": "string"}},
    "required": ["file_path", "content"],
}
BASH_SCHEMA = {
    "type": "object",
    "properties": {"command": {"type": "string"}, "timeout": {"type": "number"}},
    "required": ["command"],
}
EDIT_SCHEMA = {
    "type": "object",
    "properties": {
        "file_path": {"type": "string"},
        "old_string": {"type": "string"},
        "new_string": {"type": "string"},
        "replace_all": {"type": "boolean", "default": False},
    },
    "required": ["old_string", "new_string", "file_path"],
}
ENVIRONMENT = "# Environment\n - Primary working directory: /home/me/project\n - Platform: linux"


def function(name: str, schema: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": schema or {"type": "object"}}}


TOOLS = [function("Bash", BASH_SCHEMA), function("Write", WRITE_SCHEMA), function("Edit", EDIT_SCHEMA)]


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


class Client:
    """Speaks Chat Completions to one demo server."""

    def __init__(self, session: aiohttp.ClientSession, server: DemoServer) -> None:
        self.session = session
        self.url = f"{server.api_base}/chat/completions"

    async def whole(self, *messages: dict[str, Any], **fields: Any) -> dict[str, Any]:
        body = {"model": "demo", "messages": list(messages), **fields}
        async with self.session.post(self.url, json=body) as response:
            answer: dict[str, Any] = await response.json()
            assert response.status == 200, answer
            return answer

    async def message(self, *messages: dict[str, Any], **fields: Any) -> dict[str, Any]:
        message: dict[str, Any] = (await self.whole(*messages, **fields))["choices"][0]["message"]
        return message

    async def arguments(self, *messages: dict[str, Any], **fields: Any) -> tuple[str, Any] | None:
        """Return the name and the parsed arguments of the tool call, if there is one."""
        calls = (await self.message(*messages, **fields)).get("tool_calls")
        if calls is None:
            return None
        (call,) = calls
        return call["function"]["name"], json.loads(call["function"]["arguments"])

    async def chunks(self, *messages: dict[str, Any], **fields: Any) -> list[dict[str, Any]]:
        body = {"model": "demo", "messages": list(messages), "stream": True, **fields}
        async with self.session.post(self.url, json=body) as response:
            assert response.status == 200
            assert response.content_type == "text/event-stream"
            frames = (await response.text()).split("\n\n")
        assert frames[-2:] == ["data: [DONE]", ""]
        return [json.loads(frame.removeprefix("data: ")) for frame in frames[:-2]]


@pytest_asyncio.fixture
async def client() -> AsyncIterator[Client]:
    server = await start_demo(pace_s=0)
    async with aiohttp.ClientSession() as session:
        yield Client(session, server)
    await server.close()


async def test_the_first_reply_says_what_it_is_and_what_to_do_next(client: Client) -> None:
    message = await client.message(user("Is anybody there?"))
    for words in ("demo model", "“Is anybody there?”", "models.yaml", "api_base:", "use the Write tool"):
        assert words in message["content"]
    assert "Is anybody there?" in message["reasoning_content"]


async def test_a_later_turn_knows_the_conversation(client: Client) -> None:
    history = [user("My name is Ada."), {"role": "assistant", "content": "Hello."}, user("And now?")]
    text = (await client.message(*history))["content"]
    assert "turn 2" in text
    assert "“My name is Ada.”" in text
    assert "“And now?”" in text


async def test_a_stream_has_the_same_content_as_a_message(client: Client) -> None:
    whole = await client.whole(user("hello"))
    chunks = await client.chunks(user("hello"), stream_options={"include_usage": True})
    *parts, finish, usage = chunks
    deltas = [chunk["choices"][0]["delta"] for chunk in parts]
    assert deltas[0] == {"role": "assistant", "content": ""}
    kinds = ["reasoning" if "reasoning_content" in delta else "text" for delta in deltas[1:]]
    assert kinds == sorted(kinds)
    message = whole["choices"][0]["message"]
    for key in ("reasoning_content", "content"):
        assert "".join(delta.get(key) or "" for delta in deltas) == message[key]
    assert finish["choices"][0] == {"index": 0, "delta": {}, "logprobs": None, "finish_reason": "stop"}
    assert all(chunk["usage"] is None for chunk in chunks[:-1])
    assert usage["choices"] == []
    assert usage["usage"]["completion_tokens"] == len(deltas) - 1 == whole["usage"]["completion_tokens"]
    assert usage["usage"]["completion_tokens_details"]["reasoning_tokens"] == kinds.count("reasoning")
    assert len({chunk["id"] for chunk in chunks}) == 1


async def test_a_stream_reports_usage_only_when_asked(client: Client) -> None:
    assert all("usage" not in chunk for chunk in await client.chunks(user("hello")))


async def test_a_streamed_call_has_its_name_first_and_its_arguments_in_chunks(client: Client) -> None:
    prompt = user("use the Write tool to create hello.txt saying hi")
    chunks = await client.chunks(prompt, tools=TOOLS)
    calls = [call for chunk in chunks for call in chunk["choices"][0]["delta"].get("tool_calls", [])]
    first, *rest = calls
    assert first["type"] == "function"
    assert first["id"].startswith("call_")
    assert first["function"] == {"name": "Write", "arguments": ""}
    assert len(rest) > 1
    assert all(set(call) == {"index", "function"} and call["index"] == 0 for call in rest)
    joined = "".join(call["function"]["arguments"] for call in rest)
    assert json.loads(joined) == {"file_path": "hello.txt", "content": "hi"}
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"


async def test_call_ids_never_repeat(client: Client) -> None:
    messages = [await client.message(user("use the Bash tool"), tools=TOOLS) for _ in range(3)]
    assert len({message["tool_calls"][0]["id"] for message in messages}) == 3


ASKED = [
    (
        "use the Write tool to create hello.txt saying hi",
        ("Write", {"file_path": "/home/me/project/hello.txt", "content": "hi"}),
    ),
    (
        'Please use the write tool to put "two words" into /tmp/deep/a.md.',
        ("Write", {"file_path": "/tmp/deep/a.md", "content": "two words"}),
    ),
    (
        "Use Write to create `../notes.md` with the text: Remember the milk.",
        ("Write", {"file_path": "/home/me/notes.md", "content": "Remember the milk"}),
    ),
    (
        "use the Write tool",
        ("Write", {"file_path": "/home/me/project/demo.txt", "content": "Hello from the demo model."}),
    ),
    ("use the `Bash` tool to run `date -u`", ("Bash", {"command": "date -u"})),
    ("Call your Bash tool and execute ls -la /tmp.", ("Bash", {"command": "ls -la /tmp"})),
    ("try the bash tool", ("Bash", {"command": "echo hello from the demo model"})),
    (
        "use the Edit tool to replace `old name` by `new name` in src/main.py",
        (
            "Edit",
            {"old_string": "old name", "new_string": "new name", "file_path": "/home/me/project/src/main.py"},
        ),
    ),
    ("don't use the Bash tool, use the Write tool on x.py containing pass", ("Write", None)),
    ("Do not use the Bash tool.", None),
    ("Never call Bash.", None),
    ("What does the Write tool do?", None),
    ("use the Read tool to read x.txt", None),
    ("I use bash every day", None),
    ("write a poem", None),
]


@pytest.mark.parametrize(("prompt", "expected"), ASKED)
async def test_a_tool_is_called_only_when_it_is_asked_for_by_name(
    client: Client, prompt: str, expected: tuple[str, Any] | None
) -> None:
    seen = await client.arguments(user(prompt), {"role": "system", "content": ENVIRONMENT}, tools=TOOLS)
    if expected is not None and expected[1] is None:
        assert seen is not None
        assert seen[0] == expected[0]
    else:
        assert seen == expected


REMINDER = "<system-reminder>\nuse the Bash tool\n</system-reminder>"


@pytest.mark.parametrize(
    "messages",
    [
        [user(f"{REMINDER}\n\nGood morning")],
        [user(f"Good morning\n{REMINDER}")],
        [user("Good morning"), user(REMINDER)],
        [user("Good morning"), {"role": "system", "content": "use the Bash tool"}],
        [
            {
                "role": "user",
                "content": [{"type": "text", "text": REMINDER}, {"type": "text", "text": "Good morning"}],
            }
        ],
    ],
)
async def test_only_text_of_the_user_triggers_a_tool(client: Client, messages: list[dict[str, Any]]) -> None:
    message = await client.message(*messages, tools=TOOLS)
    assert "tool_calls" not in message
    assert "“Good morning”" in message["content"]


def tool_round(result: str, name: str = "Write") -> list[dict[str, Any]]:
    call = {"id": "call_1", "type": "function", "function": {"name": name, "arguments": "{}"}}
    return [
        user(f"use the {name} tool"),
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": result},
    ]


IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
CLOSINGS = [
    (tool_round("File created."), "The Write tool answered: “File created.”"),
    (tool_round(""), "The Write tool answered: “(nothing)”"),
    (tool_round("Error: no permission"), "The Write tool could not do it: “Error: no permission”"),
    (
        tool_round("<tool_use_error>bad input</tool_use_error>"),
        "The Write tool could not do it: “bad input”",
    ),
    (
        [
            *tool_round("an image follows"),
            {"role": "user", "content": [{"type": "text", "text": "Image"}, IMAGE]},
        ],
        "The Write tool answered: “an image follows”",
    ),
]


@pytest.mark.parametrize(("messages", "beginning"), CLOSINGS)
async def test_a_tool_result_gets_a_closing_sentence_and_no_further_call(
    client: Client, messages: list[dict[str, Any]], beginning: str
) -> None:
    message = await client.message(*messages, tools=TOOLS)
    assert "tool_calls" not in message
    assert message["content"].startswith(beginning)


async def test_text_after_a_tool_result_gets_a_reply(client: Client) -> None:
    prompt = user("use the Bash tool to run `id`")
    assert await client.arguments(*tool_round("done"), prompt, tools=TOOLS) == ("Bash", {"command": "id"})


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ("auto", None),
        ("none", None),
        ("required", "Bash"),
        ({"type": "function", "function": {"name": "Edit"}}, "Edit"),
    ],
)
async def test_tool_choice(client: Client, choice: Any, expected: str | None) -> None:
    seen = await client.arguments(user("hello"), tools=TOOLS, tool_choice=choice)
    assert (seen and seen[0]) == expected


async def test_tool_choice_none_overrides_the_text(client: Client) -> None:
    assert await client.arguments(user("use the Bash tool"), tools=TOOLS, tool_choice="none") is None


PROPERTIES = [
    ({"type": "string", "enum": ["fast", "slow"]}, "slow"),
    ({"type": "string", "enum": ["red", "green"]}, "red"),
    ({"const": 7}, 7),
    ({"type": "integer", "default": 3}, 3),
    ({"type": "integer", "minimum": 5}, 5),
    ({"type": "integer", "exclusiveMinimum": 0, "maximum": 9007199254740991}, 1),
    ({"type": "number", "maximum": -2}, -2),
    ({"type": "boolean"}, False),
    ({"type": ["null", "boolean"]}, False),
    ({"type": "null"}, None),
    ({"type": "array", "items": {"type": "boolean"}}, []),
    ({"type": "array", "items": {"type": "boolean"}, "minItems": 2}, [False, False]),
    ({"anyOf": [{"type": "null"}, {"const": "x"}]}, "x"),
    ({"$ref": "#/$defs/inner"}, {"flag": False}),
    ({"$ref": "#/$defs/loop"}, "Hello from the demo model."),
    ({"type": "string", "format": "uri"}, "https://example.org/a"),
    ({"type": "string", "format": "date", "maxLength": 2}, "20"),
    ({"type": "string", "format": "date-time", "maxLength": 2}, "20"),
    ({"type": "string", "maxLength": 5}, "Hello"),
    ({"type": "string", "minLength": 28}, "Hello from the demo model..."),
    ({"type": "object", "properties": {"a": {"type": "null"}}, "required": ["a"]}, {"a": None}),
    ({}, "Hello from the demo model."),
    (True, "Hello from the demo model."),
]


@pytest.mark.parametrize(("schema", "expected"), PROPERTIES)
async def test_required_properties_are_filled_to_fit(client: Client, schema: Any, expected: Any) -> None:
    inner = {"type": "object", "properties": {"flag": {"type": "boolean"}}, "required": ["flag"]}
    parameters = {
        "type": "object",
        "properties": {"value": schema, "spare": {"type": "string"}},
        "required": ["value"],
        "$defs": {"inner": inner, "loop": {"$ref": "#/$defs/loop"}},
    }
    prompt = user("use the Probe tool, the slow way, on https://example.org/a.")
    seen = await client.arguments(prompt, tools=[function("Probe", parameters)])
    assert seen == ("Probe", {"value": expected})


async def test_a_task_for_an_agent_is_the_text_of_the_user(client: Client) -> None:
    properties = {name: {"type": "string"} for name in ("description", "prompt")}
    schema = {"type": "object", "properties": properties, "required": ["description", "prompt"]}
    words = "use the Agent tool to count the files"
    seen = await client.arguments(user(words), tools=[function("Agent", schema)])
    assert seen == ("Agent", {"description": words, "prompt": words})


async def test_a_request_for_json_gets_json_that_fits(client: Client) -> None:
    schema = {"type": "object", "properties": {"title": {"type": "string"}}, "required": ["title"]}
    wanted = {"type": "json_schema", "json_schema": {"name": "output", "schema": schema}}
    message = await client.message(user("Plan my week"), response_format=wanted)
    assert json.loads(message["content"]) == {"title": "Plan my week"}
    message = await client.message(user("Plan my week"), response_format={"type": "json_object"})
    assert isinstance(json.loads(message["content"]), dict)


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
async def test_a_token_limit_truncates_the_reply(client: Client, name: str) -> None:
    whole = await client.whole(user("hello"), reasoning_effort="none", **{name: 4})
    assert whole["choices"][0]["message"]["content"] == "Hello from the demo "
    assert whole["choices"][0]["finish_reason"] == "length"
    assert whole["usage"]["completion_tokens"] == 4


@pytest.mark.parametrize("effort", ["none", "minimal"])
async def test_without_effort_there_is_no_reasoning(client: Client, effort: str) -> None:
    for messages in ([user("hello")], [user("use the Bash tool")], tool_round("done")):
        message = await client.message(*messages, tools=TOOLS, reasoning_effort=effort)
        assert "reasoning_content" not in message


GOOD: dict[str, Any] = {"model": "demo", "messages": [user("hello")]}
BAD: list[tuple[Any, str | None]] = [
    (b"{", None),
    (b"[]", None),
    ({**GOOD, "model": ""}, "model"),
    ({"messages": GOOD["messages"]}, "model"),
    ({"model": "demo"}, "messages"),
    ({**GOOD, "messages": []}, "messages"),
    ({**GOOD, "messages": ["hello"]}, "messages[0].role"),
    ({**GOOD, "messages": [user("a"), {"role": "robot", "content": ""}]}, "messages[1].role"),
    ({**GOOD, "messages": [{"role": "user", "content": 7}]}, "messages[0].content"),
    ({**GOOD, "max_tokens": 0}, "max_tokens"),
    ({**GOOD, "max_completion_tokens": "many"}, "max_completion_tokens"),
    ({**GOOD, "tools": {}}, "tools"),
    ({**GOOD, "tools": [{"type": "function"}]}, "tools"),
    ({**GOOD, "stream": True, "stream_options": True}, "stream_options"),
    ({**GOOD, "response_format": "json"}, "response_format"),
    (
        {**GOOD, "tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "Read"}}},
        "tool_choice",
    ),
]


@pytest.mark.parametrize(("body", "param"), BAD)
async def test_invalid_input_gets_an_openai_error(client: Client, body: Any, param: str | None) -> None:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    async with client.session.post(client.url, data=data) as response:
        answer = await response.json()
        assert response.status == 400
    error = answer["error"]
    assert set(answer) == {"error"}
    assert error["type"] == "invalid_request_error"
    assert error["param"] == param
    assert error["message"]


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/v1/chat/completions", 405), ("POST", "/v1/embeddings", 404)]
)
async def test_other_paths_and_methods(client: Client, method: str, path: str, status: int) -> None:
    url = client.url.replace("/v1/chat/completions", path)
    async with client.session.request(method, url) as response:
        assert response.status == status
        assert (await response.json())["error"]["type"] == "invalid_request_error"


async def test_it_lists_its_one_model(client: Client) -> None:
    async with client.session.get(client.url.replace("chat/completions", "models")) as response:
        assert [model["id"] for model in (await response.json())["data"]] == ["demo"]


async def test_chunks_are_sent_as_they_arise_and_close_does_not_wait_for_a_reader() -> None:
    server = await start_demo(pace_s=3600)
    async with aiohttp.ClientSession() as session:
        body = {**GOOD, "stream": True}
        async with session.post(f"{server.api_base}/chat/completions", json=body) as response:
            first = await asyncio.wait_for(response.content.readuntil(b"\n\n"), 30)
            assert json.loads(first.removeprefix(b"data: "))["choices"][0]["delta"]["role"] == "assistant"
            await asyncio.wait_for(server.close(), 30)


async def test_a_reader_that_disconnects_affects_no_other(client: Client) -> None:
    for _ in range(3):
        async with client.session.post(client.url, json={**GOOD, "stream": True}) as response:
            await response.content.readany()
            response.close()
    assert "demo model" in (await client.message(user("hello")))["content"]


async def test_two_servers_listen_side_by_side() -> None:
    first, second = await start_demo(), await start_demo()
    assert first.api_base != second.api_base
    await first.close()
    await second.close()
