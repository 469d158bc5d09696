"""The HTTP surface: routes, and what every answer has in common (docs/spec/design.md#http).

Every answer carries ``request-id``; every error is the Anthropic envelope.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Awaitable, Callable
from html import escape
from typing import Any

from aiohttp import HttpVersion11, web
from multidict import CIMultiDict

import proxyd
from proxyd import errors, jsonio
from proxyd.api.access_control import REQUEST_ID as _REQUEST_ID
from proxyd.api.access_control import check_origin, check_token, comes_from_api_client, is_near, without_token
from proxyd.api.request_body import read_request_body
from proxyd.api.status import add_status_routes
from proxyd.codecs.cache.tools import share_tools
from proxyd.codecs.openai.token_estimate import estimate_input_tokens
from proxyd.config.routes import ModelRoute
from proxyd.errors import (
    BodyTimedOut,
    BodyTooLarge,
    ClientError,
    MethodNotAllowed,
    NotFound,
    ProxyError,
    UnknownExpectation,
)
from proxyd.logs.setup import get_logger
from proxyd.prompt_cache import prefix as prefixes
from proxyd.prompt_cache.parser import parse_object
from proxyd.providers.base import ClientKeys
from proxyd.providers.unparsed import is_plain, peek_request, takes_all
from proxyd.proxy.attempt_direct import VerbatimRefusal
from proxyd.proxy.client_request import HELD, PREFIX, ClientRequest
from proxyd.proxy.held_bodies import HeldBodies
from proxyd.proxy.relay import Relay
from proxyd.telemetry.call_record import CallRecord, new_id
from proxyd.telemetry.hub import TelemetryHub
from proxyd.telemetry.request_kind import CLASS_HEADER, kind_of, session_in

__all__ = ["build_app"]

log = get_logger("app")

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

#: The models' creation time is not known; the API wants one (docs/spec/messages-api.md#models).
_CREATED_AT = "2025-01-01T00:00:00Z"
#: What of a client's own request id goes into the log (docs/spec/operations.md#f2).
_SAFE_ID = re.compile(r"[A-Za-z0-9._:-]{1,64}\Z")
#: The API's own bounds of ``limit`` (docs/spec/messages-api.md#models).
_MAX_PAGE = 1000
_PAGE = 20

#: Set once a request has become a call, which has a line of its own in the log, whatever becomes of it.
_IS_CALL = web.RequestKey("is_call", bool)
#: Answered without the access token: health, and the files of the page, which asks for the token itself.
_OPEN_PATHS = ("/healthz", "/health", "/readyz", "/dashboard")

_MESSAGES = ("/v1/messages", f"{PREFIX}/v1/messages")
#: What an ``Expect`` may say.
_EXPECTATIONS = {"", "100-continue"}

_HOME = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>claude-proxy</title>
<meta name="viewport" content="width=device-width">
<body style="font: 16px/1.5 system-ui; max-width: 40rem; margin: 3rem auto; padding: 0 1rem">
<h1>claude-proxy {version}</h1>
<p>This is a proxy that lets Claude Code run on any model. Point it here:</p>
<pre>ANTHROPIC_BASE_URL={url} ANTHROPIC_AUTH_TOKEN=any claude --model {model}</pre>
<p>Models: {models}</p>
<p><a href="dashboard">What it does now, and what it has done</a></p>
"""


def build_app(
    relay: Relay,
    observers: TelemetryHub,
    around: Any,
    about: Callable[[], dict[str, Any]] = dict,
    bodies: HeldBodies | None = None,
) -> tuple[web.Application, Callable[[Any], Any]]:
    """The application around `relay`, and what its server's handler is to be put behind.

    Args:
        watchers: know what it did and does.
        around: a middleware that goes around everything.
        about: what the daemon says of itself to callers on this machine.
        bodies: counts the request bodies that are held.
    """
    bodies = bodies or HeldBodies()
    surface = _Surface(relay, about, bodies)
    app = web.Application(middlewares=[around, surface.envelope])
    app.on_response_prepare.append(_no_stream_to_head)
    for prefix in ("", PREFIX):
        app.router.add_post(f"{prefix}/v1/messages", surface.messages)
        app.router.add_post(f"{prefix}/v1/messages/count_tokens", surface.count_tokens)
        app.router.add_get(f"{prefix}/v1/models", surface.models)
        app.router.add_get(f"{prefix}/v1/models/{{model_id:.+}}", surface.model)
        app.router.add_get(f"{prefix}/api/hello", surface.hello)
        app.router.add_get(f"{prefix}/healthz", surface.health)
        app.router.add_get(f"{prefix}/health", surface.health)
        app.router.add_get(f"{prefix}/readyz", surface.ready)
        app.router.add_get(f"{prefix}/", surface.home)
    app.router.add_get(PREFIX, surface.home)
    add_status_routes(app, relay, observers, bodies)

    def enveloped(handler: Handler) -> Handler:
        return functools.partial(around, handler=functools.partial(surface.envelope, handler=handler))

    messages, refusal = enveloped(surface.messages), enveloped(_refused_expectation)
    return app, lambda application: _in_front_of(application, messages, refusal)


def _in_front_of(
    application: Callable[[Any], Any], messages: Handler, refusal: Handler
) -> Callable[[Any], Any]:
    """What the server calls for each request: `application`, but for two kinds.

    ``POST /v1/messages`` goes to its handler without the application's way there, on which one route of sixty is looked
    for. An ``Expect`` that the web library does not know it would answer by itself, ahead of all middlewares, in plain
    text.
    """

    async def refuse(request: web.Request) -> web.StreamResponse:
        response = await refusal(request)
        response.force_close()  # whether a body follows is not known
        return response

    def handle(request: web.Request) -> Any:
        headers = request.headers
        if "expect" in headers:
            if (
                request.version >= HttpVersion11  # before it there was none (RFC 9110, 10.1.1)
                and not {each.lower() for each in headers.getall("expect")} <= _EXPECTATIONS
            ):
                return refuse(request)
        elif request.method == "POST" and request.raw_path.partition("?")[0] in _MESSAGES:
            return messages(request)
        return application(request)

    return handle


class _HeadOnly(Exception):
    """The response to a HEAD request, in place of a stream that was about to begin."""

    def __init__(self, response: web.StreamResponse) -> None:
        super().__init__()
        framing = ("transfer-encoding", "content-length")
        headers = [(name, value) for name, value in response.headers.items() if name.lower() not in framing]
        self.response = web.Response(
            status=response.status, reason=response.reason, headers=CIMultiDict(headers)
        )


async def _no_stream_to_head(request: web.Request, response: web.StreamResponse) -> None:
    """End the handler of a HEAD request before it streams. A whole response loses its body in the web library; the
    bytes of a stream would be taken for the next response on the connection.
    """
    if request.method == "HEAD" and not isinstance(response, web.Response):
        raise _HeadOnly(response)


async def _refused_expectation(_: web.Request) -> web.StreamResponse:
    raise UnknownExpectation("the only expectation that can be met is 100-continue")


class _Surface:
    """The handlers."""

    def __init__(self, relay: Relay, about: Callable[[], dict[str, Any]], bodies: HeldBodies) -> None:
        self._relay = relay
        self._about = about
        self._bodies = bodies

    # -- around every request

    @property
    def envelope(self) -> Any:
        @web.middleware
        async def envelope(request: web.Request, handler: Handler) -> web.StreamResponse:
            request_id = request[_REQUEST_ID] = new_id("req_", 22)
            try:
                settings = self._relay.settings
                check_origin(request, settings)
                if settings.auth_token is not None and not request.path.removeprefix(PREFIX).startswith(
                    _OPEN_PATHS
                ):
                    check_token(request, settings)
                response = await handler(request)
            except Exception as exc:
                response = self._answer_to(exc, request, request_id)
                errors.clear_tracebacks(exc)
            finally:
                if (held := request.get(HELD)) is not None:
                    held.release()
            if response.status >= 400 and not request.get(_IS_CALL, False):
                log.info(
                    "request.refused",
                    request_id=request_id,
                    method=request.method,
                    path=request.path[:200],
                    status=response.status,
                )
            if not response.prepared:
                response.headers.setdefault("request-id", request_id)
                if self._relay.is_draining:
                    response.headers["connection"] = "close"
                    response.force_close()
            return response

        return envelope

    def _answer_to(self, exc: Exception, request: web.Request, request_id: str) -> web.Response:
        """What the client is told of `exc`."""
        if isinstance(exc, _HeadOnly):
            return exc.response
        if isinstance(exc, VerbatimRefusal):
            return web.Response(status=exc.status, body=exc.body, headers=CIMultiDict(exc.raw_headers))
        if isinstance(exc, ProxyError):
            response = self._error(exc, request_id)
            if isinstance(exc, (BodyTimedOut, BodyTooLarge)):
                response.force_close()  # what is left of the body is no next request
            return response
        if isinstance(exc, web.HTTPException):
            response = self._error(_our_own(exc, request), request_id)
            if "Allow" in exc.headers:
                response.headers["Allow"] = exc.headers["Allow"]
            return response
        log.error("request.crashed", request_id=request_id, path=request.path, exc_info=exc)
        return self._error(exc, request_id)

    @staticmethod
    def _error(exc: BaseException, request_id: str) -> web.Response:
        status, _ = errors.error_response(exc)
        headers = dict(exc.headers) if isinstance(exc, ProxyError) else {}
        return web.Response(
            status=status,
            body=jsonio.dumps(errors.envelope(exc, request_id)),
            content_type="application/json",
            headers=headers,
        )

    # -- the Messages API

    async def messages(self, request: web.Request) -> web.StreamResponse:
        """``POST /v1/messages``."""
        call, route = await self._parse_request(request)
        if not route.direct and not _has_messages(call.payload):
            raise ClientError("messages: a list with at least one message is required")
        request[_IS_CALL] = True
        return await self._relay.serve(call)

    async def count_tokens(self, request: web.Request) -> web.StreamResponse:
        """``POST /v1/messages/count_tokens``: asked of a direct upstream, estimated for a translated one."""
        call, route = await self._parse_request(request)
        call.record.kind = "count"
        if route.direct:
            request[_IS_CALL] = True
            call.is_message = False
            return await self._relay.serve(call)
        estimate = estimate_input_tokens(call.payload)
        return _json({"input_tokens": self._relay.calibration.corrected(route.model_name, estimate)})

    async def _parse_request(self, request: web.Request) -> tuple[ClientRequest, ModelRoute]:
        """Read the request; find its route."""
        relay = self._relay
        body = await read_request_body(request, relay.settings, self._bodies)
        keys = without_token(ClientKeys.from_headers(request.headers), relay.settings)
        seen = peek_request(body)
        route = None if seen is None else relay.table.resolve(seen.model)
        if seen is not None and route is not None and takes_all(route) and is_plain(body, seen):
            record = self._record(request, seen.model)
            if record.session_id is not None:  # else it may stand in the body
                record.kind = _kind_of({}, request, record)
                record.is_stream, record.bytes_in = seen.wants_stream, len(body)
                call = ClientRequest(
                    request, record, body, None, keys, wants_stream=seen.wants_stream, seen=seen
                )
                return call, route
        payload = parse_object(body)
        model = payload.get("model")
        if not isinstance(model, str) or not model:
            raise ClientError("model: a model id is required")
        route = self._route(model)
        if not route.direct:
            share_tools(payload, body)
            prefixes.learn(payload, body)
        wants_stream = payload.get("stream") is True
        record = self._record(request, model)
        record.kind = _kind_of(payload, request, record)
        record.session_id = record.session_id or _short(session_in(payload))
        record.is_stream, record.bytes_in = wants_stream, len(body)
        return ClientRequest(request, record, body, payload, keys, wants_stream=wants_stream), route

    def _record(self, request: web.Request, model: str) -> CallRecord:
        client_id = request.headers.get("x-request-id", "")
        return CallRecord(
            request_id=request[_REQUEST_ID],
            model=model,
            session_id=_short(request.headers.get("x-claude-code-session-id")),
            agent_id=_short(request.headers.get("x-claude-code-agent-id")),
            client_request_id=client_id if _SAFE_ID.match(client_id) else None,
        )

    def _route(self, model: str) -> ModelRoute:
        route = self._relay.table.resolve(model)
        if route is None:
            known = ", ".join(self._relay.table.ids()) or "none"
            raise NotFound(f"model: {model[:200]!r} is not in models.yaml; known models: {known}")
        return route

    # -- discovery

    async def models(self, request: web.Request) -> web.Response:
        """``GET /v1/models``, from memory."""
        entries = [_model(name, route) for name, route in self._relay.table.listed()]
        query = request.query
        try:
            limit = int(query.get("limit", _PAGE))
        except ValueError:
            limit = 0
        if not 1 <= limit <= _MAX_PAGE:
            raise ClientError(f"limit: expected a whole number from 1 to {_MAX_PAGE}")
        ids = [entry["id"] for entry in entries]
        start, end = 0, len(entries)
        if "after_id" in query:
            start = ids.index(query["after_id"]) + 1 if query["after_id"] in ids else end
        if "before_id" in query:
            end = ids.index(query["before_id"]) if query["before_id"] in ids else start
            start = max(start, end - limit)
        page = entries[start : min(end, start + limit)]
        has_more = start > 0 if "before_id" in query else start + len(page) < end
        return _json(
            {
                "data": page,
                "has_more": has_more,
                "first_id": page[0]["id"] if page else None,
                "last_id": page[-1]["id"] if page else None,
            }
        )

    async def model(self, request: web.Request) -> web.StreamResponse:
        """``GET /v1/models/{id}``: from memory, or asked of a direct upstream, for a client of the API only. Any web
        page can make a browser send a plain GET.
        """
        name = request.match_info["model_id"]
        route = self._route(name)
        keys = without_token(ClientKeys.from_headers(request.headers), self._relay.settings)
        is_asked = route.direct and comes_from_api_client(request)
        if not is_asked or (keys.any is None and route.api_key is None):
            return _json(_model(name, route))
        request[_IS_CALL] = True
        record = self._record(request, name)
        payload = {"model": name}
        return await self._relay.serve(
            ClientRequest(request, record, b"", payload, keys, wants_stream=False, is_message=False)
        )

    # -- health

    async def hello(self, request: web.Request) -> web.Response:
        return _json({"status": "ok"})

    async def health(self, request: web.Request) -> web.Response:
        return _json({"status": "ok", "version": proxyd.__version__})

    async def ready(self, request: web.Request) -> web.Response:
        """``GET /readyz``; with ``?verbose``, what the daemon says of itself, for callers on this machine who have the
        token where one is set.
        """
        status, said = 200, "ready"
        if self._relay.is_draining:
            status, said = 503, "draining"
        elif not self._relay.table.routes:
            status, said = 503, "no models are configured"
        about: dict[str, Any] = {}
        if "verbose" in request.query and is_near(request):
            check_token(request, self._relay.settings)  # a proxy on this machine is near, its clients are not
            about = self._about()
        return _json({"status": said, **about}, status=status)

    async def home(self, request: web.Request) -> web.Response:
        ids = self._relay.table.ids()
        page = _HOME.format(
            version=proxyd.__version__,
            url=escape(f"http://{request.host}"),
            model=escape(ids[0] if ids else "MODEL"),
            models=escape(", ".join(ids) or "none"),
        )
        headers = {
            "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; "
            "form-action 'none'; frame-ancestors 'none'",
            "x-content-type-options": "nosniff",
        }
        return web.Response(text=page, content_type="text/html", headers=headers)


def _kind_of(payload: dict[str, Any], request: web.Request, record: CallRecord) -> str:
    request_class = request.headers.get(CLASS_HEADER)
    return kind_of(payload, is_subagent=record.agent_id is not None, request_class=request_class)


def _has_messages(payload: dict[str, Any]) -> bool:
    # Apart, since a name for the list in the handler would keep it alive as long as the stream: 120 KB each.
    messages = payload.get("messages")
    return isinstance(messages, list) and bool(messages)


def _our_own(exc: web.HTTPException, request: web.Request) -> Exception:
    """An exception of the web library as one of ours."""
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


def _model(name: str, route: ModelRoute) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "type": "model",
        "id": name,
        "display_name": name,
        "created_at": _CREATED_AT,
    }
    if route.max_input_tokens is not None:
        entry["max_input_tokens"] = route.max_input_tokens
    if route.max_tokens is not None:
        entry["max_tokens"] = route.max_tokens
    return entry


def _json(value: Any, status: int = 200) -> web.Response:
    return web.Response(status=status, body=jsonio.dumps(value), content_type="application/json")


def _short(value: str | None) -> str | None:
    return value if value and _SAFE_ID.match(value) else None
