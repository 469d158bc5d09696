"""``claude-proxy replay``: the list, a replay, the comparison with another model; exit codes and messages."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.support.command_line import Home
from tests.support.recording import GOOD, call_of, one_record, play, until_records, whole

MODELS = """
- {model_id: deep, api_base: 'https://api.deepseek.com', api_key: '${NO_SUCH_KEY}'}
- {model_id: kimi, api_base: 'https://api.moonshot.ai/anthropic', direct: true}
"""
REFUSED = whole("429 Slow", b'{"error": {"message": "slow \\u001b[31mdown", "type": "x"}}')


def state(home: Home) -> Path:
    return home.path / ".local/state/claude-proxy"


def recorded(home: Home, *, steps: Any = None, **more: Any) -> Path:
    """Write a record to the daemon's folder."""
    with capture_logs():  # they would be printed
        return asyncio.run(one_record(state(home), [steps or GOOD["translated"]], max_retries=0, **more))


def without_bodies(home: Home) -> Path:
    async def make() -> Path:
        async with play(state(home), [REFUSED], max_retries=0):
            return (await until_records(state(home), 1))[0]

    with capture_logs():
        return asyncio.run(make())


async def _another(home: Home) -> Path:
    async with play(state(home), [REFUSED], max_retries=0, record_bodies=True):
        return (await until_records(state(home), 2))[1]


@pytest.mark.parametrize("by", ["path", "id", "beginning"])
def test_no_difference(home: Home, by: str) -> None:
    path = recorded(home)
    request_id = call_of(path)["facts"]["request_id"]
    argument = {"path": str(path), "id": request_id, "beginning": request_id[:10]}[by]
    result = home.run("replay", argument)
    assert (result.code, result.err) == (0, "")
    title, *parts = result.out.splitlines()
    assert request_id in title
    assert "200 ok" in title
    assert parts == ["request 1: no difference", "response: no difference"]


def test_difference(home: Home) -> None:
    path = recorded(home)
    body = path / "client-request.body.json"
    body.write_text(body.read_text().replace('"hi"', '"ho"'))
    result = home.run("replay", str(path))
    assert result.code == 4
    assert result.out.splitlines()[1:5] == [
        "request 1: differs",
        "  body.messages[0].content",
        '    recorded: "hi"',
        '    now:      "ho"',
    ]
    found = home.run("replay", str(path), "--json")
    assert found.code == 4
    parts = json.loads(found.out)["parts"]
    assert parts[0]["difference"] == {"place": "body.messages[0].content", "recorded": '"hi"', "now": '"ho"'}
    assert parts[1] == {"part": "response", "difference": None}


def test_list(home: Home) -> None:
    assert "No records in" in home.run("replay", "--list").out
    assert json.loads(home.run("replay", "--list", "--json").out) == []
    good = recorded(home)
    with capture_logs():
        bad = asyncio.run(_another(home))
    newest, oldest = json.loads(home.run("replay", "--list", "--json").out)
    assert (newest["folder"], oldest["folder"]) == (str(bad), str(good))
    assert (newest["status"], newest["outcome"], newest["model"]) == (429, "refused", "m")
    assert (oldest["cause"], oldest["has_bodies"]) == ("tool_use", True)
    (good / "call.json").write_text("no")
    result = home.run("replay", "--list")
    assert result.code == 0
    head, first, second = result.out.splitlines()
    assert head.split()[:2] == ["request", "id"]
    assert newest["request_id"] in first
    assert "slow" in first
    assert re.search(r"http://127\.0\.0\.1:\d+/v1/chat/completions", first), "the address that was called"
    assert "\x1b" not in first
    assert oldest["request_id"] in second
    assert "cannot be read" in second


def test_record_without_bodies(home: Home) -> None:
    path = without_bodies(home)
    for arguments in ((), ("--against", "deep")):
        home.write_models(MODELS)
        result = home.run("replay", str(path), *arguments)
        assert (result.code, result.out) == (64, "")
        assert len(result.err.splitlines()) == 1
        assert "record_bodies: true" in result.err


def test_against_another_model(home: Home) -> None:
    home.write_models(MODELS)
    path = recorded(home)
    result = home.run("replay", str(path), "--against", "deep")
    assert (result.code, result.err) == (4, "")
    lines = result.out.splitlines()
    assert lines[1] == "sent to m, and as it would be for deep:"
    at = lines.index("  url")
    assert lines[at + 2] == '    now:      "https://api.deepseek.com/chat/completions"'
    at = lines.index("  body.model")
    assert lines[at + 1 : at + 3] == ['    recorded: "m"', '    now:      "deep"']
    found = json.loads(home.run("replay", str(path), "--against", "kimi", "--json").out)
    assert found["against"] == "kimi"
    assert {"place": "url", "recorded": found["differences"][0]["recorded"]}.items() <= found["differences"][
        0
    ].items()
    assert found["differences"][0]["now"] == '"https://api.moonshot.ai/anthropic/v1/messages"'


def test_against_the_same_entry(home: Home) -> None:
    path = recorded(home)
    base = call_of(path)["entries"]["m"]["api_base"]
    home.write_models(f"- {{model_id: m, api_base: '{base}'}}\n")
    result = home.run("replay", str(path), "--against", "m")
    assert "headers.authorization" in result.out, "it has no key here, and would have one there"
    body = [line for line in result.out.splitlines() if line.startswith("  body")]
    assert body == []


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ((), 64, "give the folder of a record or its request id"),
        (("req_nothing",), 64, "is neither a folder nor a request id"),
        (("--list", "x"), 64, "--list stands alone"),
        (("{}", "--models", "x.yaml"), 64, "--models goes with --against"),
        (("/",), 64, "is no record"),
        (("{}", "--against", "unknown"), 64, "there are: deep, kimi"),
        (("{}", "--against", "deep", "--models", "/nowhere.yaml"), 78, "there is no such file"),
    ],
)
def test_usage_errors(home: Home, arguments: tuple[str, ...], code: int, message: str) -> None:
    home.write_models(MODELS)
    path = recorded(home)
    result = home.run("replay", *(each.format(path) for each in arguments))
    assert result.code == code
    assert message in result.err
    assert "Traceback" not in result.err
    assert result.out == ""


def test_ambiguous_request_id(home: Home) -> None:
    recorded(home)
    with capture_logs():
        asyncio.run(_another(home))
    result = home.run("replay", "req_")
    assert result.code == 64
    assert "is the beginning of more than one" in result.err
