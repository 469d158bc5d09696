"""The end-to-end harness: scripted upstreams that validate requests and fail on demand, runs with a timeout.

Neither Claude Code nor the daemon takes part: what is tested here is that the harness would notice.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import anthropic
import pytest
import pytest_asyncio

from tests.system.e2e import __main__ as entry
from tests.system.e2e import anthropic_upstream, openai_upstream, stage
from tests.system.e2e.anthropic_upstream import AnthropicUpstream
from tests.system.e2e.claude_code import ClaudeRun, run_claude
from tests.system.e2e.compatibility import PAGE, with_version
from tests.system.e2e.install import InstallError, UnreachableRegistryError, installed_claude
from tests.system.e2e.openai_upstream import DONE, OpenAIUpstream, call, calls, chunk, refuse, say
from tests.system.e2e.scripted import Fault, Step, cut
from tests.system.e2e.shape import shape_of
from tests.system.e2e.stage import ScenarioError, Stage

HELLO = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}
STREAM = {**HELLO, "stream": True, "stream_options": {"include_usage": True}}


@pytest_asyncio.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=20)) as opened:
        yield opened


def url_of(upstream: OpenAIUpstream) -> str:
    return f"{upstream.api_base}/chat/completions"


async def read_frames(response: aiohttp.ClientResponse) -> list[Any]:
    frames = (await response.text()).split("\n\n")
    assert frames.pop() == ""
    datas = [frame.removeprefix("data: ") for frame in frames]
    return [data if data == "[DONE]" else json.loads(data) for data in datas]


# The OpenAI dialect.


async def test_a_script_is_played_turn_by_turn(session: aiohttp.ClientSession) -> None:
    async with OpenAIUpstream([say("One.", reasoning="Why not."), call("Bash", command="ls")]) as upstream:
        for _ in range(2):
            async with session.post(url_of(upstream), json=STREAM) as response:
                frames = await read_frames(response)
                assert frames[-1] == "[DONE]"
                assert frames[-2]["usage"] == openai_upstream.USAGE
        assert upstream.complaints() == []
        assert [received.messages for received in upstream.requests] == [HELLO["messages"]] * 2
        deltas = [frame["choices"][0]["delta"] for frame in frames[:-2]]
        joined = "".join(
            part["function"]["arguments"] for delta in deltas for part in delta.get("tool_calls", [])
        )
        assert json.loads(joined) == {"command": "ls"}


async def test_without_a_stream_the_same_turn_comes_whole(session: aiohttp.ClientSession) -> None:
    turn = calls(("Bash", {"command": "ls"}), ("Write", {}), text="Both of them.", reasoning="Why not.")
    async with (
        OpenAIUpstream([turn]) as upstream,
        session.post(url_of(upstream), json=HELLO) as response,
    ):
        answer = await response.json()
    (choice,) = answer["choices"]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] == "Both of them."
    assert choice["message"]["reasoning_content"] == "Why not."
    made = [
        (part["function"]["name"], part["function"]["arguments"]) for part in choice["message"]["tool_calls"]
    ]
    assert made == [("Bash", '{"command": "ls"}'), ("Write", "{}")]
    assert answer["usage"] == openai_upstream.USAGE


OPENAI_VIOLATIONS = [
    ({**HELLO, "messages": [{"role": "tool", "content": "x", "tool_call_id": "a"}]}, {}),
    ({**HELLO, "thinking": {"type": "adaptive"}}, {}),
    (HELLO, {"x-api-key": "k"}),
    (HELLO, {"anthropic-version": "2023-06-01"}),
    (HELLO, {"Authorization": "Bearer another"}),
    ([], {}),
]


@pytest.mark.parametrize(("body", "headers"), OPENAI_VIOLATIONS)
async def test_requests_invalid_for_openai_are_refused_and_reported(
    session: aiohttp.ClientSession, body: Any, headers: dict[str, str]
) -> None:
    async with OpenAIUpstream([], key="k") as upstream:
        allowed = {"Authorization": "Bearer k", **headers}
        async with session.post(url_of(upstream), json=body, headers=allowed) as response:
            assert response.status == 400
            assert (await response.json())["error"]["type"] == "invalid_request_error"
        assert upstream.violations
        assert upstream.violations[0] in upstream.report()
        assert upstream.violations[0] in upstream.complaints()[0]


async def test_a_wrong_path_is_a_violation(session: aiohttp.ClientSession) -> None:
    async with OpenAIUpstream([]) as upstream:
        async with session.post(f"{upstream.api_base}/responses", json=HELLO) as response:
            assert response.status == 400
        assert "/v1/responses" in upstream.violations[0]


async def test_too_many_and_too_few_requests_are_complaints(session: aiohttp.ClientSession) -> None:
    async with OpenAIUpstream([say("Once.")]) as upstream:
        assert "1 turns of the script were never asked for" in upstream.complaints()[0]
        for status in (200, 403):
            async with session.post(url_of(upstream), json=HELLO) as response:
                assert response.status == status
        assert upstream.unexpected == 1
        assert "1 more requests" in upstream.complaints()[0]


async def test_one_turn_may_answer_everything(session: aiohttp.ClientSession) -> None:
    async with OpenAIUpstream(say("Always.")) as upstream:
        for _ in range(3):
            async with session.post(url_of(upstream), json=HELLO) as response:
                assert (await response.json())["choices"][0]["message"]["content"] == "Always."
        assert upstream.complaints() == []


async def test_a_refusal_keeps_its_status_and_headers(session: aiohttp.ClientSession) -> None:
    turn = refuse(429, "Slow down", kind="requests", code="rate_limit_exceeded", headers={"retry-after": "3"})
    async with OpenAIUpstream([turn]) as upstream:
        async with session.post(url_of(upstream), json=STREAM) as response:
            assert response.status == 429
            assert response.headers["retry-after"] == "3"
            assert (await response.json())["error"]["code"] == "rate_limit_exceeded"
        assert upstream.complaints() == []


async def test_raw_bytes_are_written_as_they_are(session: aiohttp.ClientSession) -> None:
    async with (
        OpenAIUpstream([lambda received: [b": a comment\n\n", b"data: {oops\n\n", DONE]]) as upstream,
        session.post(url_of(upstream), json=STREAM) as response,
    ):
        assert await response.read() == b": a comment\n\ndata: {oops\n\ndata: [DONE]\n\n"


async def test_a_cut_stream_ends_at_the_given_place(session: aiohttp.ClientSession) -> None:
    async with (
        OpenAIUpstream([cut(say("A longer text."), after=2, by=Fault.EOF)]) as upstream,
        session.post(url_of(upstream), json=STREAM) as response,
    ):
        frames = await read_frames(response)
    assert [frame["choices"][0]["delta"] for frame in frames] == [
        {"role": "assistant", "content": ""},
        {"content": "A longe"},
    ]


@pytest.mark.parametrize("body", [STREAM, HELLO])
async def test_a_reset_is_a_reset(session: aiohttp.ClientSession, body: dict[str, Any]) -> None:
    async with OpenAIUpstream([cut(say("A longer text."), after=2, by=Fault.RESET)]) as upstream:
        with pytest.raises(aiohttp.ClientError):
            async with session.post(url_of(upstream), json=body) as response:
                await response.read()


async def test_a_stall_lasts_until_the_reader_leaves(session: aiohttp.ClientSession) -> None:
    async with OpenAIUpstream(
        [cut(say("A longer text."), after=1, by=Fault.STALL), say("Next.")]
    ) as upstream:
        async with session.post(url_of(upstream), json=STREAM) as response:
            await response.content.readuntil(b"\n\n")
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(response.content.readany(), 0.05)
            response.close()
        async with session.post(url_of(upstream), json=HELLO) as response:
            assert response.status == 200


async def test_an_event_delays_the_rest(session: aiohttp.ClientSession) -> None:
    gate = asyncio.Event()
    steps: list[Step] = [chunk({"content": "before"}), gate, chunk({"content": "after"}), DONE]
    async with (
        OpenAIUpstream([lambda received: steps]) as upstream,
        session.post(url_of(upstream), json=STREAM) as response,
    ):
        assert b"before" in await response.content.readuntil(b"\n\n")
        gate.set()
        assert b"after" in await response.content.readuntil(b"\n\n")


# The Anthropic dialect, read by the official SDK.


def sdk(upstream: AnthropicUpstream, **credentials: str) -> anthropic.AsyncAnthropic:
    return anthropic.AsyncAnthropic(
        base_url=upstream.api_base,
        max_retries=0,
        default_headers={"anthropic-beta": "claude-code-20250219"},
        **credentials,  # type: ignore[arg-type]
    )


ASK: dict[str, Any] = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hello"}]}


async def test_the_sdk_reads_text_and_calls_in_both_forms() -> None:
    turn = anthropic_upstream.calls(("Write", {"a": [1, "ü"]}), text="I write it.")
    async with AnthropicUpstream([turn, turn], key_header="authorization", key="k") as upstream:
        async with sdk(upstream, auth_token="k") as client:
            whole = await client.messages.create(**ASK)
            async with client.messages.stream(**ASK) as stream:
                streamed = await stream.get_final_message()
        assert upstream.complaints() == []
    for message in (whole, streamed):
        assert message.stop_reason == "tool_use"
        assert message.usage.output_tokens == anthropic_upstream.USAGE["output_tokens"]
        text, used = message.content
        assert isinstance(text, anthropic.types.TextBlock)
        assert text.text == "I write it."
        assert isinstance(used, anthropic.types.ToolUseBlock)
        assert used.input == {"a": [1, "ü"]}


async def test_a_refusal_in_anthropics_form() -> None:
    turn = anthropic_upstream.refuse(529, "overloaded_error", "Overloaded")
    async with (
        AnthropicUpstream([turn], key_header="authorization", key="k") as upstream,
        sdk(upstream, auth_token="k") as client,
    ):
        with pytest.raises(anthropic.APIStatusError) as caught:
            await client.messages.create(**ASK)
    assert caught.value.status_code == 529


GOOD_HEADERS = {
    "x-api-key": "k",
    "anthropic-version": "2023-06-01",
    "anthropic-beta": "claude-code-20250219",
}
CALLED = {"role": "assistant", "content": [{"type": "tool_use", "id": "t1", "name": "Bash", "input": {}}]}
ANTHROPIC_VIOLATIONS = [
    ({"x-api-key": "another"}, ASK),
    ({"x-api-key": None}, ASK),
    ({"Authorization": "Bearer k"}, ASK),
    ({"anthropic-version": None}, ASK),
    ({"anthropic-version": "2020-01-01"}, ASK),
    ({"anthropic-beta": None}, ASK),
    ({}, {**ASK, "model": None}),
    ({}, {**ASK, "max_tokens": None}),
    ({}, {**ASK, "messages": []}),
    ({}, {**ASK, "messages": [{"role": "tool", "content": "x"}]}),
    ({}, {**ASK, "messages": [{"role": "user", "content": ""}]}),
    ({}, {**ASK, "messages": [*ASK["messages"], CALLED, *ASK["messages"]]}),
]


@pytest.mark.parametrize(("changed", "body"), ANTHROPIC_VIOLATIONS)
async def test_requests_invalid_for_anthropic_are_refused_and_reported(
    session: aiohttp.ClientSession, changed: dict[str, str | None], body: dict[str, Any]
) -> None:
    merged = {**GOOD_HEADERS, **changed}
    headers = {name: value for name, value in merged.items() if value is not None}
    async with AnthropicUpstream([], key_header="x-api-key", key="k") as upstream:
        async with session.post(f"{upstream.api_base}/v1/messages", json=body, headers=headers) as response:
            assert response.status == 400
            assert (await response.json())["type"] == "error"
        (violation,) = upstream.violations
        assert violation.startswith("request 1: ")


async def test_a_good_request_passes_the_anthropic_judge(session: aiohttp.ClientSession) -> None:
    answer = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1", "content": "ok"}]}
    body = {**ASK, "messages": [*ASK["messages"], CALLED, answer]}
    script = [anthropic_upstream.say("Yes.")]
    async with AnthropicUpstream(script, key_header="x-api-key", key="k") as upstream:
        url = f"{upstream.api_base}/v1/messages?beta=true"
        async with session.post(url, json=body, headers=GOOD_HEADERS) as response:
            assert response.status == 200
        assert upstream.complaints() == []
        assert upstream.requests[0].query == "beta=true"


# Reports.


def test_a_shape_shows_roles_and_names_but_no_text() -> None:
    body = {
        **STREAM,
        "system": [{"type": "text", "text": "secret system"}],
        "tools": [{"type": "function", "function": {"name": "Bash"}}, {"name": "Write"}, 7],
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "secret words"}]},
            {
                "role": "assistant",
                "content": None,
                "reasoning_content": "secret thought",
                "tool_calls": [{"id": "c1", "function": {"name": "Bash", "arguments": "secret"}}],
            },
            {"role": "tool", "tool_call_id": "c1", "content": "secret result"},
            "nonsense",
        ],
    }
    shape = shape_of(body)
    assert "secret" not in shape
    for words in ("model='m'", "stream=True", "text 12", "call Bash c1", "answers c1", "Bash, Write"):
        assert words in shape
    assert "reasoning_content 14" in shape


# Runs of a program that stands in for Claude Code.


def program(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!{sys.executable}\n{text}")
    path.chmod(0o755)
    return path


async def run(binary: Path, folder: Path, **options: Any) -> ClaudeRun:
    options = {"credentials": {"ANTHROPIC_AUTH_TOKEN": "k"}, **options}
    return await run_claude(
        binary,
        "the prompt",
        base_url="http://127.0.0.1:9",
        model="m",
        home=folder,
        directory=folder,
        **options,
    )


async def test_a_run_sees_a_clean_environment_and_its_arguments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "of the caller")
    monkeypatch.setenv("HTTPS_PROXY", "http://of.the.caller")
    source = (
        "import json, os, sys\n"
        "seen = {'env': dict(os.environ), 'argv': sys.argv[1:], 'cwd': os.getcwd()}\n"
        "seen['stdin'] = sys.stdin.read()\n"
        "print(json.dumps({'result': 'fine', 'is_error': False, 'session_id': 's1', 'seen': seen}))\n"
    )
    seen_run = await run(
        program(tmp_path / "claude", source), tmp_path, tools=["Bash", "Write"], options=["--resume", "s0"]
    )
    assert seen_run.is_success
    assert (seen_run.text, seen_run.session_id) == ("fine", "s1")
    seen = seen_run.result["seen"]
    assert "ANTHROPIC_API_KEY" not in seen["env"]
    assert "HTTPS_PROXY" not in seen["env"]
    assert seen["env"]["ANTHROPIC_AUTH_TOKEN"] == "k"
    assert seen["env"]["HOME"] == seen["cwd"] == str(tmp_path)
    assert seen["stdin"] == ""
    assert seen["argv"][:2] == ["-p", "the prompt"]
    assert "--resume s0" in " ".join(seen["argv"])
    assert seen["argv"][-2:] == ["--allowedTools", "Bash,Write"]


FAILING_RUNS = [
    "import sys; print('no json'); sys.exit(1)",
    "print('[]')",
    "import json; print(json.dumps({'is_error': True, 'result': 'API Error'}))",
    "import json, sys; print(json.dumps({'is_error': False})); sys.exit(3)",
]


@pytest.mark.parametrize("source", FAILING_RUNS)
async def test_a_failed_run_is_reported(tmp_path: Path, source: str) -> None:
    failed = await run(program(tmp_path / "claude", source), tmp_path)
    assert not failed.is_success
    assert "claude ended with" in failed.report()


async def test_a_hanging_run_is_killed_with_its_children(tmp_path: Path) -> None:
    source = (
        "import subprocess, sys\nsubprocess.run([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
    )
    hanging = await run(program(tmp_path / "claude", source), tmp_path, timeout_s=0.5)
    assert not hanging.is_success
    assert "ended by the harness" in hanging.report()


# Installing, with a program that stands in for npm.


def fake_npm(folder: Path, monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    program(folder / "npm", source)
    monkeypatch.setenv("PATH", str(folder))


INSTALLS = """
import os, sys
target = sys.argv[sys.argv.index("--prefix") + 1]
def put(name, text):
    path = os.path.join(target, "node_modules", name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as file:
        file.write(f"#!{sys.executable}\\n{text}\\n")
    os.chmod(path, 0o755)
put(".bin/claude", "import sys; sys.exit('native binary not installed')")
put("@anthropic-ai/claude-code-linux-x64/claude", %r)
"""


def test_the_platforms_own_binary_is_found_when_scripts_were_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_npm(tmp_path / "bin", monkeypatch, INSTALLS % "print('1.2.3 (Claude Code)')")
    binary, version = installed_claude(tmp_path / "e2e", "1.2.3")
    assert binary.name == "claude"
    assert binary.parent.name == "claude-code-linux-x64"
    assert version == "1.2.3"
    monkeypatch.setenv("PATH", "")  # npm must not be called again
    assert installed_claude(tmp_path / "e2e", "1.2.3") == (binary, version)


@pytest.mark.parametrize(
    "code", ["ENOTFOUND", "ECONNREFUSED", "ETIMEDOUT", "E503", "SELF_SIGNED_CERT_IN_CHAIN"]
)
def test_an_unreachable_registry_is_not_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    fake_npm(tmp_path / "bin", monkeypatch, f"import sys; sys.exit('npm error code {code}')")
    with pytest.raises(UnreachableRegistryError, match=code):
        installed_claude(tmp_path / "e2e", "1.2.3")


@pytest.mark.parametrize(
    "source", ["import sys; sys.exit('npm error code ETARGET')", INSTALLS % "import sys; sys.exit(1)"]
)
def test_an_install_that_does_not_work_is_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    fake_npm(tmp_path / "bin", monkeypatch, source)
    with pytest.raises(InstallError):
        installed_claude(tmp_path / "e2e", "1.2.3")


# The command.


@pytest.mark.parametrize(("required", "words"), [("", "e2e skipped: npm"), ("1", "*** e2e SKIPPED: npm")])
def test_without_npm_it_says_so_and_is_skipped(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    required: str,
    words: str,
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("E2E_REQUIRED", required)
    monkeypatch.setattr(entry, "ROOT", tmp_path)
    assert entry.main([]) == 0
    said = capsys.readouterr().out
    assert said.startswith(words)
    assert said.count("\n") == 1


def test_an_unknown_name_is_an_error_that_lists_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    assert entry.main(["no_such_scenario"]) == 1
    assert "hello_on_demo" in capsys.readouterr().err


async def _passes(one: Stage) -> None:
    """Passes"""
    stage.check_equal(1, 1, "one")


async def _fails(one: Stage) -> None:
    """Fails"""
    stage.check_equal(2, 3, "the sum")


async def _leaves_a_turn(one: Stage) -> None:
    """Leaves a turn over"""
    await one.openai([say("Nobody asks.")])


async def _breaks(one: Stage) -> None:
    """Breaks"""
    raise KeyError("missing")


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (_passes, ["PASS", "1 passed, 0 failed"]),
        (_fails, ["FAIL", "the sum is 2, expected 3", "0 passed, 1 failed"]),
        (_leaves_a_turn, ["FAIL", "never asked for", "received 0 request(s)", "0 passed, 1 failed"]),
        (_breaks, ["FAIL", "KeyError: 'missing'", "0 passed, 1 failed"]),
    ],
)
def test_results_are_reported_by_name_and_exit_code(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    function: stage.Scenario,
    expected: list[str],
) -> None:
    claude = program(tmp_path / ".e2e/claude-9.9.9/node_modules/.bin/claude", "print('9.9.9 (Claude Code)')")
    assert os.access(claude, os.X_OK)
    monkeypatch.setenv("CLAUDE_VERSION", "9.9.9")
    monkeypatch.setattr(entry, "ROOT", tmp_path)
    monkeypatch.setattr(entry, "all_scenarios", lambda: {"the_name": function})
    assert entry.main(["the_name"]) == (0 if "PASS" in expected else 1)
    said = capsys.readouterr().out
    assert "the_name" in said
    for words in expected:
        assert words in said
    assert said.rstrip().endswith("failed")


def test_scenarios_have_titles_and_names_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "_scenarios", {})

    async def untitled(one: Stage) -> None:
        raise ScenarioError("never run")

    with pytest.raises(TypeError, match="docstring"):
        stage.scenario(untitled)
    stage.scenario(_passes)
    with pytest.raises(TypeError, match="two scenarios"):
        stage.scenario(_passes)


def test_the_table_of_versions_has_a_row_for_each_the_newest_first() -> None:
    page = PAGE.read_text()
    before, _, rest = page.partition("<!-- written by make e2e -->\n")
    after = rest.partition("<!-- end -->\n")[2]
    empty = f"{before}<!-- written by make e2e -->\n<!-- end -->\n{after}"
    found = with_version(empty, "2.1.99", "2026-01-01", "3.11", "all 50")
    found = with_version(found, "2.1.332", "2026-01-02", "3.10", "49 passed, 1 skipped")
    found = with_version(found, "2.1.99", "2026-01-03", "3.13", "all 51")
    assert found == (
        f"{before}<!-- written by make e2e -->\n"
        "| Claude Code | date | Python | scenarios |\n|---|---|---|---|\n"
        "| 2.1.332 | 2026-01-02 | 3.10 | 49 passed, 1 skipped |\n"
        "| 2.1.99 | 2026-01-03 | 3.13 | all 51 |\n"
        f"<!-- end -->\n{after}"
    )
    with pytest.raises(ValueError, match="written by make e2e"):
        with_version("no table", "1", "", "", "")
