"""Upstream errors, one file each under tests/transcripts/errors; a new file is a new test."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxyd import jsonio
from proxyd.codecs.upstream_errors.error_envelopes import error_in
from proxyd.codecs.upstream_errors.errors import ErrorContext, refusal, refusal_from_chunk
from proxyd.errors import ProxyError, TooLong, error_response
from tests.support.error_cases import CASES, context_of, read_case

#: The SDK's ErrorType list and the one type of the documentation that it lacks (docs/spec/messages-api.md#errors).
TYPES = {
    "invalid_request_error",
    "authentication_error",
    "billing_error",
    "permission_error",
    "not_found_error",
    "rate_limit_error",
    "timeout_error",
    "api_error",
    "overloaded_error",
    "conflict_error",
    "request_too_large",
}

SECRETS = (
    "sk-proj-abcd1234efgh5678ijkl",
    "sk-or-v1-0123456789abcdef0123456789abcdef",
    "sk-abc1",
    "gsk_0123456789abcdefghijkl",
    "AIzaSyA0123456789-abcdefghij_klmnop",
    "0123456789abcdef0123456789abcdef.AbCdEfGh12345678",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.abc-DEF_123",
)


def as_dict(exc: ProxyError) -> dict[str, Any]:
    status, kind = error_response(exc)
    return {"status": status, "kind": kind, "message": exc.message, "headers": dict(exc.headers)}


def assert_legal(exc: ProxyError) -> None:
    status, kind = error_response(exc)
    assert 400 <= status <= 599
    assert kind in TYPES
    assert 1 <= len(exc.message) <= 2000
    assert exc.message.strip()
    for name, value in exc.headers.items():
        assert name in ("retry-after", "x-should-retry")
        assert value.isascii()
        assert value.isprintable()
        assert 0 < len(value) <= 40


@pytest.mark.parametrize("path", CASES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_case(path: Any) -> None:
    case = read_case(path)
    exc = refusal(case["status"], case["headers"], case["body"].encode(), context_of(case))
    assert_legal(exc)
    assert as_dict(exc) == case["expect"]


def test_there_are_cases_of_every_kind() -> None:
    seen = {read_case(path)["expect"]["kind"] for path in CASES}
    assert seen == TYPES


@pytest.mark.parametrize(
    ("error", "status", "kind", "message"),
    [
        ({"code": 502, "message": "Provider disconnected"}, 502, "api_error", "Provider disconnected"),
        ({"code": "429", "message": "slow"}, 429, "rate_limit_error", "slow"),
        ({"type": "overloaded_error", "message": "busy"}, 529, "overloaded_error", "busy"),
        ({"code": "rate_limit_exceeded", "message": "slow"}, 429, "rate_limit_error", "slow"),
        ({"status": "RESOURCE_EXHAUSTED", "message": "slow"}, 429, "rate_limit_error", "slow"),
        ({"message": "it is gone"}, 502, "api_error", "it is gone"),
        ({"message": ""}, 502, "api_error", "the upstream of big reported an error without saying why"),
        ({"code": 7}, 502, "api_error", "the upstream of big reported an error: 7"),
        ("model is overloaded", 529, "overloaded_error", "model is overloaded"),
        (
            "429",
            429,
            "rate_limit_error",
            "the upstream of big answered 429 Too Many Requests without saying why",
        ),
        (
            {"code": 400, "message": "no", "type": "content_filter"},
            400,
            "invalid_request_error",
            "Output blocked by content filtering policy: no",
        ),
        ("rate_limit_exceeded", 429, "rate_limit_error", "rate_limit_exceeded"),
        (
            503,
            529,
            "overloaded_error",
            "the upstream of big answered 503 Service Unavailable without saying why",
        ),
        (True, 502, "api_error", "the upstream of big reported an error without saying why"),
        ([{"message": "first"}, {"message": "second"}], 502, "api_error", "first; second"),
        (
            {
                "code": 400,
                "message": "maximum context length is 100 tokens. However, you requested 90 tokens",
            },
            400,
            "invalid_request_error",
            "prompt is too long: 101 tokens > 100 maximum",
        ),
    ],
)
def test_error_inside_a_chunk(error: Any, status: int, kind: str, message: str) -> None:
    exc = refusal_from_chunk(error, ErrorContext(route="big"))
    assert as_dict(exc) == {"status": status, "kind": kind, "message": message, "headers": {}}


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize(
    "text",
    [
        "Incorrect API key provided: {}.",
        "Authorization: Bearer {} is wrong",
        "no access with {}",
        "api_key={}",
    ],
)
def test_keys_are_masked(secret: str, text: str) -> None:
    body = jsonio.dumps({"error": {"message": text.format(secret)}})
    message = refusal(401, {}, body, ErrorContext()).message
    assert secret not in message
    assert secret[6:] not in message
    assert "***" in message


def test_ordinary_words_are_not_masked() -> None:
    text = "sk-learn and key-value stores, task-55501234567, model gpt-5.1-codex-max-2026-11-01 at tier key_a"
    assert refusal(400, {}, text.encode(), ErrorContext()).message == text


def test_key_across_the_size_limit_is_masked() -> None:
    text = "x" * 1990 + " sk-abcdefghijklmnopqrstuvwxyz0123456789"
    message = refusal(400, {}, text.encode(), ErrorContext()).message
    assert "sk-a" not in message
    assert len(message) <= 2000


def test_long_messages_are_truncated() -> None:
    message = refusal(400, {}, b"x" * 100_000, ErrorContext()).message
    assert len(message) == 2000
    assert message.endswith(" …")


@pytest.mark.parametrize(
    "body", [b"event: error\n\n", b"data:" * 100_000, b"[" * 100_000, b'{"error":' * 5_000]
)
def test_malformed_bodies(body: bytes) -> None:
    assert_legal(refusal(500, {}, body, ErrorContext()))


def test_nested_envelopes_end() -> None:
    error: Any = "deep"
    for _ in range(200):
        error = {"error": error}
    assert_legal(refusal_from_chunk(error, ErrorContext()))


#: Pieces that steer random bodies into the branches; noise alone would always be plain text.
PIECES = st.sampled_from(
    [
        "maximum context length is 10 tokens. However, you requested ",
        "99999999999999999999 tokens",
        "rate limit",
        "Please try again in 9999999h1m",
        "max_tokens must be less than or equal to 0",
        "insufficient balance",
        "sk-" + "a1" * 20,
        "\x00\r\n",
        "<title>",
        "data: {",
        "input_value=",
        "\ud800",
    ]
)
TEXTS = st.lists(PIECES | st.text(max_size=20), max_size=8).map("".join)
KEYS = [
    *("error", "message", "msg", "detail", "code", "type", "status", "base_resp", "status_code", "metadata"),
    *("raw", "details", "reason", "loc", "param", "object", "choices", "n_ctx", "status_msg"),
]
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXTS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(KEYS) | st.text(max_size=5),
            inner,
            max_size=5,
        )
    ),
    max_leaves=12,
)
COUNTS = st.none() | st.integers(-1, 2**40)
CONTEXTS = st.builds(ErrorContext, st.text(max_size=20), COUNTS, COUNTS, COUNTS)
HEADERS = st.dictionaries(
    st.sampled_from(["retry-after", "retry-after-ms", "x-should-retry", "x-request-id"]),
    st.text(max_size=30)
    | st.sampled_from(["-1", "nan", "1e9", "٣", "999999999999", "Mon, 99 Foo", "1\r\nx: y"]),
)


@given(
    st.integers(100, 999),
    HEADERS,
    st.binary(max_size=300) | TEXTS.map(lambda text: text.encode("utf-8", "replace")),
    CONTEXTS,
)
def test_any_bytes_give_a_legal_error(
    status: int, headers: dict[str, str], body: bytes, context: ErrorContext
) -> None:
    assert_legal(refusal(status, headers, body, context))


@given(st.integers(200, 599), VALUES, CONTEXTS)
def test_any_json_gives_a_legal_error(status: int, value: Any, context: ErrorContext) -> None:
    body = jsonio.dumps(value)
    exc = refusal(status, {}, body, context)
    assert_legal(exc)
    assert not re.search(r"sk-(?:a1){4}", exc.message)
    error_in(value)


@given(VALUES, CONTEXTS)
def test_any_error_value_gives_a_legal_error(value: Any, context: ErrorContext) -> None:
    assert_legal(refusal_from_chunk(value, context))


@pytest.mark.parametrize("status", [400, 413, 422, 500])
@pytest.mark.parametrize(
    "message", ["Bad Request", "Request Entity Too Large", "Internal Server Error", "参数错误"]
)
def test_vague_error_for_a_prompt_over_the_window_is_an_overflow(status: int, message: str) -> None:
    body = jsonio.dumps({"error": {"message": message}})
    over = ErrorContext(route="big", window=1000, estimated_input_tokens=1000)
    assert refusal(status, {}, body, over).message == "prompt is too long: 1001 tokens > 1000 maximum"
    for context in (
        ErrorContext(window=1000, estimated_input_tokens=890),
        ErrorContext(window=1000, estimated_input_tokens=1000, largest_accepted=1000),
        ErrorContext(estimated_input_tokens=10**6),
    ):
        assert not isinstance(refusal(status, {}, body, context), TooLong)


@pytest.mark.parametrize(
    "message", ["invalid tool schema", "Could not process image", "tool_call_id not found"]
)
def test_error_with_a_reason_is_no_overflow(message: str) -> None:
    body = jsonio.dumps({"error": {"message": message}})
    over = ErrorContext(window=1000, estimated_input_tokens=5000)
    assert not isinstance(refusal(400, {}, body, over), TooLong)


def test_overflow_carries_the_reported_window() -> None:
    body = jsonio.dumps(
        {"error": {"message": "maximum context length is 4096 tokens, however you requested 5000"}}
    )
    exc = refusal(400, {}, body, ErrorContext())
    assert isinstance(exc, TooLong)
    assert exc.window == 4096
    silent = refusal(400, {}, b"", ErrorContext(window=8192, estimated_input_tokens=8192))
    assert isinstance(silent, TooLong)
    assert silent.window is None, "our own number is nothing to learn from"
