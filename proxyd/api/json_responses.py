"""JSON responses, errors included, in the form in which each client shows their message.

Claude Code replaces the message of a 404 by a sentence of its own, begins that of a 401, and in a terminal that of a
403, with "Please run /login", and repeats a plain 400 up to six times. An error of type ``policy_blocked`` it shows as
it is, after one call (docs/spec/claude-code.md#policy-blocked). SDKs raise an exception for each status, so they get
the true one.
"""

from __future__ import annotations

from typing import Any

from aiohttp import web

from proxyd import errors, jsonio
from proxyd.errors import ClientError, MethodNotAllowed, NotFound, ProxyError, is_permanent, response_headers
from proxyd.headers import is_from_claude_code

__all__ = ["error_from_aiohttp", "error_response", "json_response"]

#: Statuses whose message Claude Code hides, alters, or shows only after further calls.
_NOT_SHOWN = frozenset({400, 401, 403, 404, 405, 421})


def json_response(value: Any, status: int = 200) -> web.Response:
    """Return `value` as a JSON response."""
    return web.Response(status=status, body=jsonio.dumps(value), content_type="application/json")


def error_response(exc: BaseException, request: web.Request, request_id: str) -> web.Response:
    """Return the response for `exc`, an Anthropic error object."""
    status, _ = errors.error_response(exc)
    body = errors.envelope(exc, request_id)
    if is_from_claude_code(request.headers) and status in _NOT_SHOWN and is_permanent(exc):
        status = 400
        body["error"]["type"] = "policy_blocked"
    response = json_response(body, status)
    response.headers.update(response_headers(exc))
    return response


def error_from_aiohttp(exc: web.HTTPException, request: web.Request) -> ProxyError:
    """Translate an exception of aiohttp's router into one of ours, with a message that says what to do."""
    path = request.path[:200]
    if exc.status == 404:
        return NotFound(
            f"there is nothing at {path}; this is claude-proxy: POST /v1/messages, GET /v1/models"
        )
    if exc.status == 405:
        allowed = exc.headers.get("Allow", "another method")
        return MethodNotAllowed(f"{request.method} {path} is not possible; use {allowed}")
    if exc.status < 500:
        return ClientError(exc.reason)
    return ProxyError(exc.reason)
