"""Error responses in the form in which each client shows their message.

Claude Code replaces the message of a 404 by a sentence of its own, begins that of a 401 with "Please run /login", and
repeats a plain 400 up to six times. An error of type ``policy_blocked`` it shows as it is, after one call
(docs/spec/claude-code.md#policy-blocked). SDKs raise an exception for each status, so they get the true one.
"""

from __future__ import annotations

from aiohttp import web

from proxyd import errors, jsonio
from proxyd.errors import is_permanent, response_headers

__all__ = ["error_response"]

#: Statuses whose message Claude Code hides, alters, or shows only after further calls.
_NOT_SHOWN = frozenset({400, 401, 404, 405, 421})


def error_response(exc: BaseException, request: web.Request, request_id: str) -> web.Response:
    """Return the response for `exc`, an Anthropic error object."""
    status, _ = errors.error_response(exc)
    body = errors.envelope(exc, request_id)
    is_claude_code = request.headers.get("user-agent", "").startswith("claude-cli/")
    if is_claude_code and status in _NOT_SHOWN and is_permanent(exc):
        status = 400
        body["error"]["type"] = "policy_blocked"
    return web.Response(
        status=status,
        body=jsonio.dumps(body),
        content_type="application/json",
        headers=response_headers(exc),
    )
