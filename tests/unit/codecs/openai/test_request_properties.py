"""Any history gives a request that the strictest upstream takes, for every vendor, and never an exception."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from proxyd import jsonio
from proxyd.codecs.cache.tool_inputs import ToolInputs
from proxyd.codecs.openai.request import to_openai_request, translation
from proxyd.codecs.translation.token_estimate import estimate_input_tokens
from proxyd.codecs.translation.translated import RequestOptions, run_to_end
from proxyd.prompt_cache.cache import PromptCache
from proxyd.prompt_cache.parser import parse_request
from proxyd.providers.registry import PROFILES, dialect_for
from tests.support.effort import examples
from tests.support.histories import PAYLOADS
from tests.support.strict_openai import validate

#: A model of each variant, so that all dialects of a profile are met.
MODELS = {
    "openai": ["gpt-6", "gpt-5-mini", "gpt-4o", "o3"],
    "openrouter": ["anthropic/claude-x", "mistralai/mistral-large", "moonshotai/kimi-k2.5"],
    "moonshot": ["kimi-k2.6", "kimi-k2-0905-preview", "kimi-k3"],
    "gemini": ["gemini-3-pro", "gemini-2.5-flash"],
    "groq": ["openai/gpt-oss-120b", "qwen/qwen3-32b"],
}
DIALECTS = {
    f"{name}:{model}": dialect_for(profile, model, {})
    for name, profile in PROFILES.items()
    for model in MODELS.get(name, ["m"])
}
#: Those that promise nothing beyond OpenAI's own fields.
STRICT = ("openai", "azure", "github", "bedrock")


@given(payload=PAYLOADS, name=st.sampled_from(sorted(DIALECTS)), stream=st.booleans())
@example(
    payload={  # an id of another upstream's
        "model": "x",
        "max_tokens": 1,
        "messages": [
            {"role": "assistant", "content": [{"type": "tool_use", "id": "t" * 64, "name": "R", "input": {}}]}
        ],
    },
    name="bedrock:m",
    stream=True,
)
@settings(max_examples=examples(400), deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_history_gives_a_valid_request(payload: dict[str, Any], name: str, stream: bool) -> None:
    before = copy.deepcopy(payload)
    translated = to_openai_request(
        payload, DIALECTS[name], RequestOptions("m", stream, max_tokens=1000, session_id="s" * 80)
    )
    assert repr(payload) == repr(before)  # repr, since NaN differs from itself
    other_fields = not name.startswith(STRICT)
    body = {**translated.body}
    if body.get("tool_choice") == "any":  # Mistral's word
        body["tool_choice"] = "required"
    if body.get("reasoning_effort") == "default":  # Groq's word for Qwen
        del body["reasoning_effort"]
    assert validate(body, other_fields=other_fields) == []
    assert jsonio.dumps(body)


@given(payload=PAYLOADS)
@example(
    payload={  # a summary behind a call that was left without a result
        "model": "x",
        "messages": [
            {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "Read", "input": {}}]},
            {"role": "assistant", "content": [{"type": "compaction", "content": "a"}]},
            {"role": "user", "content": ""},
            {"role": "assistant", "content": [{"type": "compaction", "content": "a"}]},
        ],
    }
)
@settings(max_examples=examples(200), deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_strict_alternation(payload: dict[str, Any]) -> None:
    roles = [
        message["role"]
        for message in to_openai_request(payload, DIALECTS["mistral:m"], RequestOptions("m", True)).body[
            "messages"
        ]
    ]
    if roles[0] == "system":
        roles.pop(0)
    assert "system" not in roles
    assert roles[0] == "user"
    for before, after in itertools.pairwise(roles):
        assert (before, after) in {
            ("user", "assistant"),
            ("assistant", "user"),
            ("assistant", "tool"),
            ("tool", "tool"),
            ("tool", "assistant"),
        }


@given(payload=PAYLOADS)
@settings(max_examples=examples(200), deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_payload_can_be_estimated(payload: dict[str, Any]) -> None:
    inputs = ToolInputs()
    estimate = estimate_input_tokens(payload, inputs)
    assert estimate >= 1
    assert estimate_input_tokens(payload) == estimate
    # What was written on the way is what the translation would have written.
    options = RequestOptions("m", True)
    translated = run_to_end(translation(payload, DIALECTS["generic:m"], options, inputs))
    assert repr(translated) == repr(to_openai_request(payload, DIALECTS["generic:m"], options))


@pytest.mark.parametrize("name", sorted(DIALECTS))
@given(payload=PAYLOADS)
@settings(max_examples=examples(50), deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_translation_counts_as_the_estimate_does(name: str, payload: dict[str, Any]) -> None:
    translated = to_openai_request(payload, DIALECTS[name], RequestOptions("m", True))
    assert translated.input_tokens == estimate_input_tokens(payload)


def containers_in(value: Any) -> dict[int, Any]:
    """All lists and objects within `value`, by what they are."""
    found: dict[int, Any] = {}
    waiting = [value]
    while waiting:
        node = waiting.pop()
        if isinstance(node, (dict, list)):
            found[id(node)] = node
            waiting += node.values() if isinstance(node, dict) else node
    return found


@pytest.mark.parametrize("name", sorted(DIALECTS))
@given(payload=PAYLOADS)
@settings(max_examples=examples(50), deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_messages_share_no_containers(name: str, payload: dict[str, Any]) -> None:
    theirs = containers_in(payload["messages"])
    body = to_openai_request(payload, DIALECTS[name], RequestOptions("m", True)).body
    assert not [node for key, node in containers_in(body["messages"]).items() if key in theirs]


@given(payload=PAYLOADS, name=st.sampled_from(sorted(DIALECTS)))
@settings(max_examples=examples(300), deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_shared_parts_are_serialised_as_unshared_ones(payload: dict[str, Any], name: str) -> None:
    payload = {key: payload[key] for key in sorted(payload, key=lambda key: (key == "tools", key))}
    try:
        body = jsonio.dumps(payload)
    except jsonio.JSONError:
        assume(False)
    options = RequestOptions("m", True)
    expected = to_openai_request(jsonio.loads(body), DIALECTS[name], options).body
    cache = PromptCache()
    for _ in range(4):
        again = parse_request(body, cache)[0]
        cache.keep(again, body)
        written = to_openai_request(again, DIALECTS[name], options).written()
        assert jsonio.loads(written) == expected
        assert written.isascii()


@pytest.mark.parametrize("name", sorted(DIALECTS))
def test_translation_is_deterministic(name: str) -> None:
    payload = {
        "max_tokens": 10,
        "messages": [
            {"role": "user", "content": "hi"},
            {
                "role": "assistant",
                "content": [{"type": "tool_use", "id": "x" * 70, "name": "Read", "input": {}}],
            },
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "x" * 70, "content": "ok"}]},
        ],
    }
    first = to_openai_request(payload, DIALECTS[name], RequestOptions("m", True)).body
    assert first == to_openai_request(payload, DIALECTS[name], RequestOptions("m", True)).body
