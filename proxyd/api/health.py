"""Liveness, readiness, and the page that a browser gets at the root."""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from typing import Any

from aiohttp import web

import proxyd
from proxyd.api.access_control import check_token, is_near
from proxyd.api.json_responses import json_response
from proxyd.proxy.relay import Relay

__all__ = ["HealthHandlers"]

_HOME = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>claude-proxy</title>
<meta name="viewport" content="width=device-width">
<body style="font: 16px/1.5 system-ui; max-width: 40rem; margin: 3rem auto; padding: 0 1rem">
<h1>claude-proxy {version}</h1>
<p>This is a proxy that lets Claude Code run on any model:</p>
<pre>claude-proxy code {model}</pre>
<p>Other clients:</p>
<pre>ANTHROPIC_BASE_URL={url} ANTHROPIC_AUTH_TOKEN={token}</pre>
<p>Models: {models}</p>
<p><a href="dashboard">The dashboard: what it is doing now, and what it did before</a></p>
"""
_HOME_HEADERS = {
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
}


class HealthHandlers:
    """Handlers that call no upstream.

    Args:
        about: returns what the daemon reports of itself to callers on this machine.
    """

    def __init__(self, relay: Relay, about: Callable[[], dict[str, Any]]) -> None:
        self._relay = relay
        self._about = about

    async def hello(self, request: web.Request) -> web.Response:
        """``GET /api/hello``, which Claude Code requests to see whether it is online."""
        return json_response({"status": "ok"})

    async def health(self, request: web.Request) -> web.Response:
        """``GET /healthz``: the process is alive."""
        return json_response({"status": "ok", "version": proxyd.__version__})

    async def ready(self, request: web.Request) -> web.Response:
        """``GET /readyz``: 200 while calls are accepted.

        With ``?verbose`` also what the daemon reports of itself, to callers on this machine that send the access token
        where one is set.
        """
        status, state = 200, "ready"
        if self._relay.is_draining:
            status, state = 503, "draining"
        elif not self._relay.table.routes:
            status, state = 503, "no models are configured"
        about: dict[str, Any] = {}
        if "verbose" in request.query and is_near(request):
            check_token(request, self._relay.settings)  # a proxy on this machine is near, its clients are not
            about = self._about()
        return json_response({"status": state, **about}, status=status)

    async def home(self, request: web.Request) -> web.Response:
        """``GET /``."""
        ids = self._relay.table.ids()
        page = _HOME.format(
            version=proxyd.__version__,
            url=escape(f"{request.scheme}://{request.host}"),
            token="any" if self._relay.settings.auth_token is None else "YOUR_ACCESS_TOKEN",
            model=escape(ids[0] if ids else "MODEL"),
            models=escape(", ".join(ids) or "none"),
        )
        return web.Response(text=page, content_type="text/html", headers=_HOME_HEADERS)
