"""JSON responses, errors included, which have the Anthropic envelope."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from proxyd import errors, jsonio
from proxyd.errors import ClientError, MethodNotAllowed, NotFound, ProxyError

__all__ = ["error_from_aiohttp", "error_response", "json_response"]


def json_response(value: Any, status: int = 200) -> web.Response:
    """Return `value` as a JSON response."""
    return web.Response(status=status, body=jsonio.dumps(value), content_type="application/json")


def error_response(exc: BaseException, request_id: str) -> web.Response:
    """Return the error envelope of `exc`, with the status and headers that belong to it."""
    status, _ = errors.error_response(exc)
    response = json_response(errors.envelope(exc, request_id), status)
    if isinstance(exc, ProxyError):
        response.headers.update(exc.headers)
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
