"""``claude-proxy route``: the dry run of the rules."""

from __future__ import annotations

import io
import json
import sys
from typing import Any

import pytest

from tests.support.command_line import Home

MODELS = """
models:
- model_id: big
  api_base: builtin:demo
  fallback: eyes
  routes:
  - {when: {class: subagent, agent_type: Explore}, use: small}
- {model_id: small, api_base: 'http://localhost:1/v1', context: 100}
- {model_id: eyes, api_base: 'http://localhost:1/v1', context: 200k}
routes:
- {when: {has_image: true}, use: eyes}
- {when: {class: compaction}, use: small}
"""
IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}}


@pytest.fixture
def dry_run(home: Home, monkeypatch: pytest.MonkeyPatch) -> Any:
    home.write_models(MODELS)

    def run(request: Any, *arguments: str) -> Any:
        data = request if isinstance(request, bytes) else json.dumps(request).encode()
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
        return home.run("route", *arguments)

    return run


def request(content: Any = "hi", **changes: Any) -> dict[str, Any]:
    return {"model": "big", "max_tokens": 100, "messages": [{"role": "user", "content": content}], **changes}


def test_no_rule_applies(dry_run: Any) -> None:
    out = dry_run(request()).out
    assert "request      for big, class main, about 5 tokens" in out
    assert "served by    big (built-in demo · 200k)" in out
    assert "by           its model, since none of 3 rules applies" in out
    assert "then         eyes" in out


def test_headers_name_class_and_agent(dry_run: Any) -> None:
    headers = ("-H", "x-claude-code-request-class: subagent", "--header", "X-Claude-Code-Agent-Type:Explore")
    result = dry_run(request(), *headers)
    assert result.code == 0
    assert "agent        Explore" in result.out
    assert "served by    small (small via localhost:1 · 0k)" in result.out
    assert "by           models[0].routes[0]: class subagent, agent Explore" in result.out


def test_as_json(dry_run: Any) -> None:
    found = json.loads(dry_run(request([IMAGE], thinking={"type": "adaptive"}), "--json").out)
    assert found["served_by"] == "eyes"
    assert found["rule"] == "routes[0]"
    assert (found["has_image"], found["thinking"], found["web_search"]) == (True, True, False)
    assert found["asked_for"] == "big"


def test_a_rule_that_is_passed_over_has_its_reason(dry_run: Any) -> None:
    out = dry_run(request("CRITICAL: Respond with TEXT ONLY" + "x" * 1000)).out
    assert "passed over  routes[1]: the request is larger than the window of 'small', 100 tokens" in out
    assert "served by    big" in out


@pytest.mark.parametrize(
    ("given", "arguments", "words"),
    [
        (b"not json", (), "standard input: expected a Messages request as JSON"),
        (b"[]", (), "standard input: expected a Messages request, a JSON object"),
        (request(model="nobody"), (), "which "),
        ({}, (), "the request's model is 'None'"),
        (request(), ("-H", "nonsense"), "expected NAME:VALUE; got 'nonsense'"),
    ],
)
def test_bad_input(dry_run: Any, given: Any, arguments: tuple[str, ...], words: str) -> None:
    result = dry_run(given, *arguments)
    assert result.code == 64
    assert words in result.err


def test_check_shows_the_rules(home: Home) -> None:
    home.write_models(MODELS)
    out = home.run("check").out
    assert "REQUESTS FOR  OF THESE" in out
    assert "big           class subagent, agent Explore  small  models[0].routes[0]" in out
    assert "all           with images                    eyes   routes[0]" in out
