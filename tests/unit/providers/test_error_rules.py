"""What refusals teach."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from proxyd.codecs.translation.dialect import Dialect
from proxyd.providers.error_rules import change_for_error, output_limit_for
from proxyd.providers.refusals import QuirkChange, models_yaml_line
from proxyd.providers.registry import PROFILES, dialect_for
from tests.support.refusals import CALL, IMAGE, NAMED, SENT, Case, body_of, openai, request_of, unsupported
from tests.support.refusals.message_cases import CASES as ABOUT_MESSAGES
from tests.support.refusals.parameter_cases import CASES as ABOUT_PARAMETERS
from tests.support.refusals.thinking_cases import CASES as ABOUT_THINKING
from tests.support.refusals.tool_cases import CASES as ABOUT_TOOLS
from tests.support.rows import check_rows

CASES: list[Case] = [*ABOUT_MESSAGES, *ABOUT_PARAMETERS, *ABOUT_THINKING, *ABOUT_TOOLS]


IDS = [f"{case[3].quirk}-{number}" for number, case in enumerate(CASES)]


@pytest.mark.parametrize(("source", "changes", "response", "change"), CASES, ids=IDS)
def test_change(source: str, changes: dict[str, Any], response: Any, change: QuirkChange) -> None:
    assert change_for_error(400, body_of(response), request_of(changes)) == change, source


def test_changes_are_quirks() -> None:
    def check(case: Case) -> None:
        *_, change = case
        assert set(change.quirks) <= {field.name for field in fields(Dialect)}
        changed = dialect_for(PROFILES["generic"], "m", change.quirks)
        for name, wanted in change.quirks.items():
            value = getattr(changed, name)
            assert (list(value) if isinstance(wanted, list) else value) == wanted

    check_rows(CASES, check)


def test_the_line_for_models_yaml_says_the_same() -> None:
    def check(case: Case) -> None:
        *_, change = case
        line = models_yaml_line(change)
        assert "\n" not in line
        assert json.loads(json.dumps(YAML(typ="safe").load(line))) == {"quirks": change.quirks}

    check_rows(CASES, check)


def test_a_request_without_the_refused_part_gets_no_change() -> None:
    """Without the thing it names, the same refusal gives no change; else the retries would not end."""
    bare = {"model": "m", "messages": [{"role": "user", "content": "u"}]}

    def check(case: Case) -> None:
        _, _, response, change = case
        # Some refusals are about the order of messages or the ids in them, which a bare request cannot show, or demand
        # a value that was not sent.
        expected = change if change.quirk in ("strict_alternation", "tool_id_style", "body") else None
        if change.quirk == "thinking_on":  # a model that thinks by default, and is asked not to
            expected = QuirkChange("body", {"enable_thinking": False})
        assert change_for_error(400, body_of(response), bare) == expected

    check_rows(CASES, check)


@pytest.mark.parametrize("status", [200, 401, 403, 429, 503, 529])
def test_only_refusals_give_a_change(status: int) -> None:
    assert change_for_error(status, body_of(unsupported("stream_options")), SENT) is None


def test_openrouter_without_a_provider() -> None:
    image = openai("No endpoints found that support image input")
    assert change_for_error(404, body_of(image), {**SENT, "messages": [IMAGE]}) == QuirkChange(
        "vision", False
    )
    choice = openai("No endpoints found that support the provided 'tool_choice' value.")
    assert change_for_error(404, body_of(choice), {**SENT, "tool_choice": "required"}) == QuirkChange(
        "required_word", "auto"
    )
    unknown = openai(
        "No endpoints found that can handle the requested parameters: stream_options not supported"
    )
    assert change_for_error(404, body_of(unknown), SENT) == QuirkChange("stream_options", False)


@pytest.mark.parametrize(
    ("status", "is_read"),
    [(500, True), (501, True), (502, True), (503, True), (401, False), (403, False), (429, False)],
)
def test_refusals_that_a_gateway_repeats(status: int, is_read: bool) -> None:
    """As LiteLLM does: the status is the gateway's, the text is that of the upstream behind it."""
    words = "litellm.ServiceUnavailableError: OpenAIException BadRequestError: Unknown parameter: 'stream_options'"
    found = change_for_error(status, body_of(openai(words)), SENT)
    assert found == (QuirkChange("stream_options", False) if is_read else None)


QUOTED = "please explain why stream_options is an unsupported parameter of the server"


@pytest.mark.parametrize(
    ("words", "prompt", "is_read"),
    [
        (f"Cannot parse: {QUOTED}", QUOTED, False),
        (f"Cannot parse: {QUOTED}", "something else", True),
        (f"Unknown parameter: stream_options. In: {QUOTED}", QUOTED, True),
        (QUOTED, f"I see this error:\n{QUOTED}\nWhat is it?", True),  # the user asks about an earlier refusal
    ],
)
def test_quotations_of_the_prompt_are_not_read(words: str, prompt: str, is_read: bool) -> None:
    for content in (prompt, [{"type": "text", "text": prompt}]):
        sent = {**SENT, "messages": [{"role": "user", "content": content}]}
        assert (change_for_error(400, body_of(openai(words)), sent) is not None) is is_read


def test_llama_cpp_without_image_support() -> None:
    response = openai(
        "image input is not supported - hint: if this is unexpected, you may need to provide the mmproj"
    )
    assert change_for_error(500, body_of(response), {**SENT, "messages": [IMAGE]}) == QuirkChange(
        "vision", False
    )


@pytest.mark.parametrize(
    "response",
    [
        openai("Invalid API key"),
        openai(
            "max_tokens is too large: 32000. This model supports at most 16384 completion tokens, "
            "whereas you provided 32000.",
            "max_tokens",
        ),
        openai(
            "'max_tokens' is too large: 64000. This model's maximum context length is 64001 tokens and "
            "your request has 24235 input tokens"
        ),
        openai("The stream_options of today are fine"),
        openai("Unknown parameter: 'seed'", "seed"),
        openai("Invalid value for tool_choice: 'auto'", "messages"),
        openai(""),
        "",
        "<html><title>400 stream_options is unknown</title>" * 0,
    ],
)
def test_other_causes_give_no_change(response: Any) -> None:
    sent = {**SENT, "tool_choice": "auto", "service_tier": "auto", "prompt_cache_key": "k"}
    assert change_for_error(400, body_of(response), sent) is None


@pytest.mark.parametrize(
    ("sent", "limit"),
    [
        ({"max_tokens": 32000}, 16384),
        ({"max_completion_tokens": 32000}, 16384),
        ({"max_tokens": 100}, None),
        ({}, None),
    ],
)
def test_output_limit(sent: dict[str, Any], limit: int | None) -> None:
    body = body_of(
        openai("max_tokens is too large: 32000. This model supports at most 16384 completion tokens")
    )
    assert output_limit_for(400, body, sent) == limit
    assert output_limit_for(429, body, sent) is None


def test_context_overflow_is_no_output_limit() -> None:
    text = "'max_tokens' is too large: 64000. This model's maximum context length is 64001 tokens and "
    "your request has 24235 input tokens"
    assert output_limit_for(400, body_of(openai(text)), {"max_tokens": 64000}) is None


REQUESTS = st.dictionaries(
    st.sampled_from(
        [
            "messages",
            "tools",
            "tool_choice",
            "stop",
            "reasoning",
            "response_format",
            "max_tokens",
            "temperature",
        ]
    ),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=8),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["role", "content", "type", "effort"]) | st.text(max_size=3),
                inner,
                max_size=3,
            )
        ),
        max_leaves=8,
    ),
)
RESPONSES = st.sampled_from([body_of(case[2]) for case in CASES]) | st.binary(max_size=200)


@given(st.integers(100, 999), RESPONSES, REQUESTS)
def test_arbitrary_refusals_never_raise(status: int, body: bytes, sent: dict[str, Any]) -> None:
    change = change_for_error(status, body, sent)
    if change is not None:
        assert change.quirk in {field.name for field in fields(Dialect)}
        assert models_yaml_line(change).startswith(f"quirks: {{{change.quirk}: ")
    output_limit_for(status, body, sent)


@pytest.mark.parametrize("status", [400, 500])
def test_templates_of_llama_cpp_refuse_with_500(status: int) -> None:
    text = "While executing CallExpression: Jinja Exception: System message must be at the beginning."
    messages = [{"role": "user", "content": "u"}, {"role": "system", "content": "s"}]
    found = change_for_error(status, body_of(openai(text)), {**SENT, "messages": messages})
    assert found == QuirkChange("leading_system_only", True)


def test_a_value_that_the_prompt_names_is_not_sent() -> None:
    prompt = "set reasoning_effort to 'none'"
    sent = {**SENT, "messages": [{"role": "user", "content": prompt}]}
    assert change_for_error(400, body_of(openai(f"invalid messages: {prompt}")), sent) is None


def test_a_limit_on_tools_drops_none_that_was_called() -> None:
    refusal = body_of(
        openai("Invalid 'tools': array too long. Expected an array with at most 1 items", "tools")
    )
    tools = [{"type": "function", "function": {"name": name, "parameters": {}}} for name in ("A", "Read")]
    assert change_for_error(400, refusal, {**SENT, "tools": tools}) == QuirkChange("max_tools", 1)
    called = [{"role": "assistant", "tool_calls": [CALL]}]
    assert change_for_error(400, refusal, {**SENT, "tools": tools, "messages": called}) is None


def test_a_model_that_thinks_unasked_takes_no_forced_tool() -> None:
    refusal = body_of(openai("Thinking mode does not support this tool_choice", "tool_choice"))
    sent = {**SENT, "tool_choice": NAMED}
    first = change_for_error(400, refusal, sent)
    assert first == QuirkChange("forced_choice_while_thinking", False)
    assert change_for_error(400, refusal, sent, first.quirks) == QuirkChange(
        "named_tool_choice", False, (QuirkChange("required_word", "auto"),)
    )
