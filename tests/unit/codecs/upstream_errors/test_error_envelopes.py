"""Errors in every envelope, and values that are no errors."""

from __future__ import annotations

from typing import Any

import pytest

from proxyd import jsonio
from proxyd.codecs.upstream_errors.error_envelopes import (
    ErrorDetails,
    error_in,
    parse_error,
    parse_error_body,
)
from tests.support.error_cases import CASES, read_case


@pytest.mark.parametrize("path", CASES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_error_is_found_whatever_the_status(path: Any) -> None:
    body = read_case(path)["body"]
    if body.startswith(("{", "[")):
        error = error_in(jsonio.loads(body))
        assert error is not None
        assert parse_error(error).message == parse_error_body(body.encode()).message


@pytest.mark.parametrize(
    "value",
    [
        {"choices": [{"message": {"content": "hi"}}], "error": None},
        {"choices": [{"delta": {}}], "error": {}},
        {"object": "chat.completion.chunk", "choices": [], "usage": {}},
        {"choices": [{}], "base_resp": {"status_code": 0, "status_msg": ""}},
        {"id": "c1", "object": "chat.completion"},
        {"usage": {}},
        {},
        [],
        [1],
        None,
        "text",
        7,
    ],
)
def test_values_that_are_no_errors(value: Any) -> None:
    assert error_in(value) is None


@pytest.mark.parametrize(
    ("value", "error"),
    [
        ({"error": "text"}, "text"),
        ([{"error": {"code": 400}}], {"code": 400}),
        ({"error": True, "message": "no"}, {"error": True, "message": "no"}),
        ({"object": "error", "message": "no"}, {"object": "error", "message": "no"}),
        ({"detail": "no"}, {"detail": "no"}),
        ({"success": False, "msg": "no"}, {"success": False, "msg": "no"}),
        ({"base_resp": {"status_code": 1}, "choices": []}, {"base_resp": {"status_code": 1}}),
    ],
)
def test_values_that_are_errors(value: Any, error: Any) -> None:
    assert error_in(value) == error


@pytest.mark.parametrize(
    ("error", "details"),
    [
        (
            {"message": "m", "code": "Bad_Request", "param": "p"},
            ErrorDetails("m", ("bad_request",), None, "p"),
        ),
        (
            {"base_resp": {"status_code": 1004, "status_msg": "key"}},
            ErrorDetails("key", ("minimax_1004",), 401),
        ),
        (
            {
                "code": 429,
                "message": "Provider returned error",
                "metadata": {"raw": '{"error":{"message":"try later","param":"x"}}', "provider_name": "P"},
            },
            ErrorDetails("P: try later", (), 429, "x"),
        ),
        (
            {"message": "too long", "n_prompt_tokens": 9, "n_ctx": 5},
            ErrorDetails("too long (n_prompt_tokens: 9, n_ctx: 5)"),
        ),
        (
            {"message": "Param Incorrect", "param": "the tool has no name"},
            ErrorDetails("Param Incorrect: the tool has no name", (), None, "the tool has no name"),
        ),
        (
            [{"loc": ["body", "tools", 0], "msg": "required"}, {"msg": "odd"}],
            ErrorDetails("body.tools.0: required; odd"),
        ),
        ("429", ErrorDetails("", (), 429)),
        (7, ErrorDetails("", ("7",))),
        (None, ErrorDetails()),
    ],
)
def test_details(error: Any, details: ErrorDetails) -> None:
    assert parse_error(error) == details


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"<html><title>502 Bad Gateway</title></html>", "502 Bad Gateway"),
        (b'event: error\ndata: {"error": {"message": "no"}}\n\n', "no"),
        (b"\xef\xbb\xbf plain text ", "plain text"),
        (b'{"error": ', '{"error":'),
        (b"", ""),
    ],
)
def test_bodies(body: bytes, message: str) -> None:
    assert parse_error_body(body).message == message


RETRY = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "34.5s"}


@pytest.mark.parametrize(
    ("error", "wait_s", "codes"),
    [
        ({"message": "m", "details": [RETRY]}, 34.5, ()),
        ({"error": {"message": "m", "details": [{"reason": "X"}, RETRY]}}, 34.5, ("x",)),
        ([{"error": {"message": "m", "details": [RETRY]}}], 34.5, ()),
        (
            {"message": "m", "details": [{"violations": [{"quotaId": "PerDay"}, {"quotaId": 5}, 7]}]},
            None,
            ("perday",),
        ),
        (
            {"message": "m", "details": [{"retryDelay": "soon"}, {"retryDelay": 5}, 7, {"violations": {}}]},
            None,
            (),
        ),
        ({"message": "m", "metadata": {"raw": {"message": "n", "details": [RETRY]}}}, 34.5, ()),
        ({"someException": {"message": "m", "details": [RETRY]}}, 34.5, ("someexception",)),
    ],
)
def test_details_of_google(error: Any, wait_s: float | None, codes: tuple[str, ...]) -> None:
    details = parse_error(error)
    assert (details.wait_s, details.codes) == (wait_s, codes)
