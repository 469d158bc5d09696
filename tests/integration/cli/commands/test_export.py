"""``claude-proxy export``: an anonymised transcript for the test suite."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from proxyd.codecs.formats import GEMINI, RESPONSES, Format
from proxyd.recording import store as record_files
from tests.support import error_cases, goldens_requests, goldens_streams
from tests.support.command_line import Home
from tests.support.raw_sockets import Fault
from tests.support.recording import GOOD, one_record, steps_of, whole
from tests.support.sse_reader import read_events

PLANTED = (
    "plantedprompt",
    "plantedtool",
    "planteddescription",
    "plantedmodel",
    "plantedsystem",
    "plantedkey",
)
PAYLOAD = {
    "messages": [{"role": "user", "content": "plantedprompt, please"}],
    "system": "plantedsystem",
    "tools": [
        {
            "name": "plantedtool",
            "description": "planteddescription",
            "input_schema": {"type": "object", "properties": {"plantedkey": {"type": "string"}}},
        }
    ],
}
SAID = (b"Let me think", b"I will", b"write it", b"a.txt", b"Write")
REFUSED = whole(
    "400 No",
    b'{"error": {"message": "maximum context length is 1000 tokens; plantedprompt has 2000", "type": "x"}}',
    "Retry-After: 5",
)


def recorded(home: Home, steps: Any, mode: str = "translated", **more: Any) -> Path:
    with capture_logs():
        return asyncio.run(one_record(home.path / "state", [steps], mode, PAYLOAD, max_retries=0, **more))


def assert_no_word(folder: Path) -> None:
    for path in folder.rglob("*"):
        data = path.read_bytes() if path.is_file() else b""
        for word in (*(each.encode() for each in PLANTED), *SAID):
            assert word.lower() not in data.lower(), f"{word!r} in {path}"


@pytest.mark.parametrize("stream", [True, False])
def test_translated_call(home: Home, monkeypatch: pytest.MonkeyPatch, stream: bool) -> None:
    entry = {
        "provider": "deepseek",
        "model_name": "plantedmodel-reasoner",
        "extra_body": {"plantedkey": "plantedtool"},
    }
    path = recorded(home, GOOD["translated"], more=entry)
    target = home.path / "out"
    result = home.run("export", str(path), str(target), "--case", "one")
    assert (result.code, result.err) == (0, "")
    assert "the same 16 events" in result.out
    written = sorted(str(each.relative_to(target)) for each in target.rglob("*") if each.is_file())
    assert written == [
        "deepseek/one.options.json",
        "deepseek/one.sse",
        "requests/deepseek/one.request.json",
        "requests/deepseek/one.route.json",
    ]
    assert all(str(target / name) in result.out for name in written)
    assert_no_word(target)
    # The test suite can run it.
    monkeypatch.setattr(goldens_streams, "ROOT", target)
    monkeypatch.setattr(goldens_requests, "ROOT", target / "requests")
    goldens_streams.load.cache_clear()
    assert goldens_streams.cases() == ["deepseek/one"]
    case = goldens_streams.load("deepseek/one")
    outcome = goldens_streams.play(case.new_decoder(), [case.upstream])
    kinds = [kind for kind, _ in read_events(outcome.stream)]
    recorded_kinds = [kind for kind, _ in read_events((path / "client-response.sse").read_bytes())]
    assert kinds == recorded_kinds
    body = goldens_requests.translate("deepseek/one").body
    assert body["tools"][0]["function"]["name"] == case.request["tools"][0]["name"]
    sent = json.loads((path / "1-upstream-request.body.json").read_bytes())
    assert sorted(map(len, body)) == sorted(map(len, sent)), (
        "the same fields, one of them under filler's name"
    )
    goldens_streams.load.cache_clear()


@pytest.mark.parametrize(
    ("chosen", "profile", "name"), [(RESPONSES, "openai", "tool_call"), (GEMINI, "gemini", "parallel_calls")]
)
def test_call_of_another_format(
    home: Home, monkeypatch: pytest.MonkeyPatch, chosen: Format, profile: str, name: str
) -> None:
    stream = (goldens_streams.ROOT / f"{chosen.folder}/{profile}/{name}.sse").read_bytes()
    entry = {"provider": profile, "format": chosen.name, "model_name": "plantedmodel"}
    path = recorded(home, whole("200 OK", stream, kind="text/event-stream"), more=entry)
    target = home.path / "out"
    result = home.run("export", str(path), str(target), "--case", "one")
    assert (result.code, result.err) == (0, "")
    assert (target / f"requests/{profile}/one.route.json").exists()
    assert_no_word(target)
    monkeypatch.setattr(goldens_streams, "ROOT", target)
    goldens_streams.load.cache_clear()
    exported = f"{chosen.folder}/{profile}/one"
    assert goldens_streams.cases(chosen) == [exported]
    case = goldens_streams.load(exported)
    outcome = goldens_streams.play(case.new_decoder(), [case.upstream])
    kinds = [kind for kind, _ in read_events(outcome.stream)]
    assert kinds == [kind for kind, _ in read_events((path / "client-response.sse").read_bytes())]
    goldens_streams.load.cache_clear()


def test_quirks_replace_the_models_name(home: Home) -> None:
    path = recorded(home, GOOD["translated"], more={"provider": "groq", "model_name": "qwen/qwen3-32b"})
    target = home.path / "out"
    assert home.run("export", str(path), str(target)).code == 0
    options = json.loads((target / "groq/recorded.options.json").read_text())
    assert "qwen" not in json.dumps(options)
    assert options["quirks"]
    case = goldens_streams.Case(
        "groq/recorded", b"", options["model_name"], options["quirks"], options["request"]
    )
    assert case.new_decoder()


def test_truncated_stream(home: Home) -> None:
    path = recorded(home, steps_of("translated", until=6, end=(Fault.RESET,)))
    result = home.run("export", str(path), str(home.path / "out"))
    assert result.code == 0
    sse = (home.path / "out/generic/recorded.sse").read_bytes()
    assert len(sse) == (path / "1-upstream-response.sse").stat().st_size
    assert_no_word(home.path / "out")


def test_upstream_error(home: Home) -> None:
    path = recorded(home, REFUSED)
    result = home.run("export", str(path), str(home.path / "out"))
    assert result.code == 0
    case = error_cases.read_case(home.path / "out/errors/generic/recorded.json")
    assert case["status"] == 400
    assert case["headers"] == {"retry-after": "5"}
    assert case["expect"]["message"].startswith("prompt is too long: ")
    assert error_cases.context_of(case)
    assert not (home.path / "out/generic").exists()
    assert_no_word(home.path / "out")


def test_direct_call(home: Home) -> None:
    path = recorded(home, GOOD["direct"], "direct")
    target = home.path / "out"
    result = home.run("export", str(path), str(target))
    assert (result.code, result.err) == (0, "")
    names = sorted(str(each.relative_to(target)) for each in target.rglob("*") if each.is_file())
    assert names == ["anthropic/recorded.request.json", "anthropic/recorded.sse"]
    assert_no_word(target)


def test_transcript_with_other_events_is_exit_4(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    path = recorded(home, GOOD["translated"])
    monkeypatch.setattr(
        "proxyd.replay.transcript.anonymize_body", lambda body, _: body.replace(b"data:", b"date:")
    )
    result = home.run("export", str(path), str(home.path / "out"))
    assert result.code == 4
    assert "does not produce the events" in result.err
    assert (home.path / "out/generic/recorded.sse").exists()


def test_usage_errors(home: Home) -> None:
    path = recorded(home, GOOD["translated"])
    target = str(home.path / "out")
    for arguments, message in (
        ((str(path), target, "--case", "No Name"), "--case: expected small letters"),
        (("req_none", target), "is neither a folder nor a request id"),
        ((target, target), "neither a folder"),
    ):
        result = home.run("export", *arguments)
        assert result.code == 64
        assert message in result.err
    assert home.run("export", str(path), target).code == 0
    again = home.run("export", str(path), target)
    assert again.code == 64
    assert "is there already; choose another name with --case" in again.err
    call = json.loads((path / "call.json").read_text())
    (path / "call.json").write_text(json.dumps({**call, "attempts": 0}))
    result = home.run("export", str(path), target, "--case", "other")
    assert result.code == 64
    assert "record_bodies: true" in result.err
    (path / "call.json").write_text(json.dumps(call))
    (path / "1-upstream-response.json").unlink()
    result = home.run("export", str(path), target, "--case", "other")
    assert "has no response of an upstream" in result.err
    assert record_files.load(path).attempts[0].response is None
