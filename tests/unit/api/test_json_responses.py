"""The responses to errors."""

from __future__ import annotations

import json

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from proxyd.api.json_responses import error_from_aiohttp, error_response
from proxyd.errors import Overloaded


def test_an_error_keeps_its_status_headers_and_id() -> None:
    response = error_response(
        Overloaded("later", headers={"retry-after": "1"}), make_mocked_request("GET", "/x"), "req_1"
    )
    assert (response.status, response.headers["retry-after"]) == (529, "1")
    body = json.loads(response.body)  # type: ignore[arg-type]
    assert body["error"]["type"] == "overloaded_error"
    assert body["request_id"] == "req_1"


@pytest.mark.parametrize(
    ("exc", "status", "text"),
    [
        (web.HTTPNotFound(), 404, "there is nothing at /x; this is claude-proxy"),
        (web.HTTPMethodNotAllowed("GET", ["POST"]), 405, "GET /x is not possible; use POST"),
        (web.HTTPBadRequest(reason="bad path"), 400, "bad path"),
    ],
)
def test_errors_of_the_router_say_what_to_do(exc: web.HTTPException, status: int, text: str) -> None:
    request = make_mocked_request("GET", "/x")
    translated = error_from_aiohttp(exc, request)
    assert error_response(translated, request, "req_1").status == status
    assert text in translated.message
