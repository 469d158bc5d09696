"""``claude-proxy translate``: standard input to standard output, notes on standard error."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from typing import Any

import pytest

from tests.support import goldens_streams
from tests.support.command_line import Home, Result
from tests.support.sse_reader import message_of, read_events

MODELS = """
- {model_id: deep, api_base: 'https://api.deepseek.com', api_key: '${NO_SUCH_KEY}'}
- {model_id: plain, api_base: 'http://localhost:1/v1'}
- {model_id: responses, api_base: 'http://localhost:1/v1', format: openai-responses}
- {model_id: gemini, api_base: 'http://localhost:1/v1beta', provider: gemini, format: gemini}
- {model_id: direct, api_base: 'https://example.com', direct: true}
"""


@pytest.fixture
def translate(home: Home, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Run the command with standard input."""
    home.write_models(MODELS)

    def run(given: bytes, *arguments: str) -> Result:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(given)))
        return home.run("translate", *arguments)

    return run


def request(**fields: Any) -> bytes:
    payload = {"model": "x", "max_tokens": 50, "messages": [{"role": "user", "content": "hi"}], **fields}
    return json.dumps(payload).encode()


def test_request(translate: Callable[..., Result]) -> None:
    given = request(
        stream=True,
        top_k=3,
        cache_control={"type": "ephemeral"},
        thinking={"type": "adaptive"},
        output_config={"effort": "low"},
    )
    result = translate(given, "--model", "deep")
    assert result.code == 0
    body = json.loads(result.out)
    assert body["model"] == "deep"
    assert body["messages"] == [{"role": "user", "content": "hi"}]
    assert body["reasoning_effort"] == "high"
    assert "top_k: dropped: the upstream does not take it" in result.err
    assert "cache_control: dropped: only Anthropic's servers do this" in result.err


def test_request_in_the_form_of_responses(translate: Callable[..., Result]) -> None:
    result = translate(request(system="Be short.", top_k=3), "--model", "responses")
    assert result.code == 0
    body = json.loads(result.out)
    assert body["store"] is False
    said = {"type": "input_text", "text": "hi"}
    assert body["input"][-1] == {"type": "message", "role": "user", "content": [said]}
    assert "top_k: dropped: the upstream does not take it" in result.err


@pytest.mark.parametrize("name", ["tool_call", "reasoning_between_calls", "incomplete"])
def test_response_in_the_form_of_responses(translate: Callable[..., Result], name: str) -> None:
    given = (goldens_streams.ROOT / f"responses/openai/{name}.sse").read_bytes()
    result = translate(given, "--model", "responses", "--stream")
    assert result.code == 0
    kinds = [kind for kind, _ in read_events(result.out.encode())]
    expected = goldens_streams.ROOT / f"responses/openai/{name}.expected.sse"
    assert kinds == [kind for kind, _ in read_events(expected.read_bytes())]


def test_request_in_the_form_of_gemini(translate: Callable[..., Result]) -> None:
    result = translate(request(system="Be short.", service_tier="auto"), "--model", "gemini")
    assert result.code == 0
    body = json.loads(result.out)
    assert body["systemInstruction"] == {"parts": [{"text": "Be short."}]}
    assert body["contents"] == [{"role": "user", "parts": [{"text": "hi"}]}]
    assert "service_tier: dropped: the upstream has no such tiers" in result.err


@pytest.mark.parametrize("name", ["parallel_calls", "thoughts", "failed_after_text", "array"])
def test_response_in_the_form_of_gemini(translate: Callable[..., Result], name: str) -> None:
    given = (goldens_streams.ROOT / f"gemini-api/gemini/{name}.sse").read_bytes()
    result = translate(given, "--model", "gemini", "--stream")
    assert result.code == 0
    kinds = [kind for kind, _ in read_events(result.out.encode())]
    expected = goldens_streams.ROOT / f"gemini-api/gemini/{name}.expected.sse"
    assert kinds == [kind for kind, _ in read_events(expected.read_bytes())]


TOOL = {
    "name": "T",
    "input_schema": {"type": "object", "properties": {"a": {"type": "string", "maxLength": 9}}},
}


@pytest.mark.parametrize(
    ("refusal", "lines"),
    [
        ("", ["quirks: {schema_style: common}", "quirks: {sampling: []}", "quirks: {effort_path: null}"]),
        ("temperature is not supported", ["quirks: {sampling: []}"]),
        ('{"detail": "set reasoning_effort to none"}', ["quirks: {efforts: {none: none}}"]),
        ("Invalid API key", []),
    ],
)
def test_retries_after_a_refusal(translate: Callable[..., Result], refusal: str, lines: list[str]) -> None:
    given = request(tools=[TOOL], temperature=0.5, thinking={"type": "enabled", "budget_tokens": 2000})
    result = translate(given, "--model", "plain", "--refusal", refusal)
    assert result.code == 0
    shown = result.out.splitlines()
    assert shown[0] == "try 1: as translated"
    assert shown[1 : 1 + len(lines)] == [f"try {number}: {line}" for number, line in enumerate(lines, 2)]
    assert shown[-1] == "then the client gets the refusal"
    assert len(shown) <= 5


def test_a_refusal_of_a_response_is_a_mistake(translate: Callable[..., Result]) -> None:
    result = translate(b"", "--model", "plain", "--stream", "--refusal", "no")
    assert result.code == 64
    assert "leave one of them out" in result.err


def test_effort_alone_switches_thinking_off(translate: Callable[..., Result]) -> None:
    result = translate(request(output_config={"effort": "high"}), "--model", "deep")
    body = json.loads(result.out)
    assert body["thinking"] == {"type": "disabled"}
    assert "reasoning_effort" not in body


def test_stream(translate: Callable[..., Result]) -> None:
    case = goldens_streams.load("deepseek/reasoning_call")
    result = translate(case.upstream, "--model", "deep", "--stream")
    assert (result.code, result.err) == (0, "")
    seen = message_of(result.out.encode())
    wanted = message_of(goldens_streams.expected(case.name).stream)
    for block in (*seen["content"], *wanted["content"]):
        block.pop("signature", None)  # holds the model's name
    assert seen["content"] == wanted["content"]
    assert seen["stop_reason"] == "tool_use"


def test_stream_with_its_request_and_warnings(home: Home, translate: Callable[..., Result]) -> None:
    case = goldens_streams.load("openai/long_tool_name")
    request_file = home.path / "request.json"
    request_file.write_bytes(request(**case.request))
    upstream = case.upstream.replace(b'"tool_calls"}', b'"moonrise"}')
    result = translate(upstream, "--model", "plain", "--stream", "--request", str(request_file))
    (block,) = message_of(result.out.encode())["content"]
    assert block["name"] == case.request["tools"][0]["name"]
    assert result.err == "stream.unknown_finish_reason\n"


def test_stream_that_ends_in_an_error(translate: Callable[..., Result]) -> None:
    case = goldens_streams.load("generic/cut_in_text")
    result = translate(case.upstream, "--model", "plain", "--stream")
    assert result.code == 0
    assert message_of(result.out.encode())["error"]["type"] == "api_error"
    assert result.err == "the stream ends in an error: the upstream closed the stream before finishing\n"


def test_refused_request(translate: Callable[..., Result]) -> None:
    case = goldens_streams.load("openai/too_long")
    result = translate(case.upstream, "--model", "plain", "--stream")
    assert json.loads(result.out)["error"]["message"] == "prompt is too long: 190000 tokens > 128000 maximum"
    assert result.err == "the client gets HTTP 400\n"
    result = translate(request(messages=[]), "--model", "plain")
    assert json.loads(result.out)["error"]["type"] == "invalid_request_error"
    assert result.err == "the client gets HTTP 400\n"


def test_usage_errors(translate: Callable[..., Result]) -> None:
    for given, arguments, words in (
        (
            b"{}",
            ["--model", "none"],
            "no model 'none' in models.yaml; there are: deep, plain, responses, gemini",
        ),
        (b"{}", ["--model", "direct"], "is direct: nothing of it is translated"),
        (b"{nonsense", ["--model", "plain"], "the request is not JSON"),
        (b"[]", ["--model", "plain"], "the request is not a JSON object"),
        (b"{}", ["--model", "plain", "--request", "/dev/null"], "--request goes with --stream"),
        (b"{}", [], "Missing option '--model'"),
    ):
        result = translate(given, *arguments)
        assert result.code == 64, arguments
        assert words in result.err
        assert result.out == ""
