"""The web application: routes, and what all responses have in common (docs/spec/design.md#http).

Every response carries ``request-id``; every error has the Anthropic envelope.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from aiohttp import HttpVersion11, web
from multidict import CIMultiDict

from proxyd import errors
from proxyd.api.access_control import check_origin, check_token
from proxyd.api.call_details import CallDetails
from proxyd.api.client_address import client_address
from proxyd.api.entries import add_entry_routes
from proxyd.api.health import HealthHandlers
from proxyd.api.json_responses import error_from_aiohttp, error_response
from proxyd.api.messages import MessagesHandlers
from proxyd.api.models import ModelsHandlers
from proxyd.api.peers import Peers
from proxyd.api.request_keys import CLIENT_ADDRESS, IS_CALL, IS_PEER, MODEL, REQUEST_ID
from proxyd.api.status import STATS_PATHS, add_status_routes
from proxyd.config.models import Checks
from proxyd.errors import BodyTimedOut, BodyTooLarge, ProxyError, UnknownExpectation
from proxyd.logs.redact import redact
from proxyd.logs.setup import get_logger
from proxyd.proxy.aiohttp_server import failure_of_body
from proxyd.proxy.attempt_direct import VerbatimRefusal
from proxyd.proxy.client_request import HELD, PREFIX
from proxyd.proxy.held_bodies import HeldBodies
from proxyd.proxy.relay import Relay
from proxyd.telemetry.call_record import MAX_MODEL_CHARS, new_id
from proxyd.telemetry.finished_call import FinishedCall
from proxyd.telemetry.hub import TelemetryHub
from proxyd.telemetry.ledger_schema import row_of

__all__ = ["build_app"]

log = get_logger("app")

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

#: Served without the access token: health, and the files of the dashboard, which itself requires the token.
_OPEN_PATHS = ("/healthz", "/health", "/readyz", "/dashboard")

#: Error messages list the known models, which may be many.
_MAX_REASON_CHARS = 300
#: Before the paths of the API. Clients add "/v1" to a base URL that ends in it already, as OpenAI's base URLs do.
_PREFIXES = ("", PREFIX, "/v1", f"{PREFIX}/v1")
#: Where clients send virtual keys.
_KEY_PATHS = tuple(f"{prefix}/v1/{name}" for prefix in _PREFIXES for name in ("messages", "models"))
_MESSAGES = tuple(f"{prefix}/v1/messages" for prefix in _PREFIXES)

#: Values of ``Expect`` that we can meet.
_EXPECTATIONS = {"", "100-continue"}


def build_app(
    relay: Relay,
    observers: TelemetryHub,
    around: Any,
    about: Callable[[], dict[str, Any]],
    bodies: HeldBodies,
    details: CallDetails,
    models_file: Path,
    checks: Checks,
    peers: Peers | None = None,
) -> tuple[web.Application, Callable[[Any], Any]]:
    """Build the application that serves `relay`.

    Args:
        observers: the telemetry that the status endpoints show.
        around: the outermost middleware.
        about: returns what the daemon reports of itself to callers on this machine.
        bodies: counts the request bodies that are in memory.
        details: finds the details of finished calls.
        models_file: where entries are added and removed.
        checks: what it is validated against.
        peers: the other workers of this daemon.

    Returns:
        The application, and a function that wraps the request handler of its server with the shortcuts of
        `_in_front_of`.
    """
    envelope = _envelope(relay, peers)
    messages, models, health = (
        MessagesHandlers(relay, bodies, _show_refused(observers)),
        ModelsHandlers(relay),
        HealthHandlers(relay, about),
    )
    app = web.Application(middlewares=[around, envelope, *(() if peers is None else (peers.middleware,))])
    app.on_response_prepare.append(_no_stream_to_head)
    for prefix in _PREFIXES:
        app.router.add_post(f"{prefix}/v1/messages", messages.messages)
        app.router.add_post(f"{prefix}/v1/messages/count_tokens", messages.count_tokens)
        app.router.add_get(f"{prefix}/v1/models", models.models)
        app.router.add_get(f"{prefix}/v1/models/{{model_id:.+}}", models.model)
    for prefix in ("", PREFIX):
        app.router.add_get(f"{prefix}/api/hello", health.hello)
        app.router.add_get(f"{prefix}/healthz", health.health)
        app.router.add_get(f"{prefix}/health", health.health)
        app.router.add_get(f"{prefix}/readyz", health.ready)
        app.router.add_get(f"{prefix}/", health.home)
    app.router.add_get(PREFIX, health.home)
    add_status_routes(app, relay, observers, bodies, about, details, peers)
    add_entry_routes(app, relay, bodies, models_file, checks)

    def with_middlewares(handler: Handler) -> Handler:
        return functools.partial(around, handler=functools.partial(envelope, handler=handler))

    on_messages, on_expectation = with_middlewares(messages.messages), with_middlewares(_refuse_expectation)
    return app, lambda application: _in_front_of(application, on_messages, on_expectation)


def _show_refused(observers: TelemetryHub) -> Callable[[FinishedCall], None]:
    """Return a function that shows a refused request in the feed. No figure counts it, since it is not a call."""
    return lambda record: observers.live.show(record, row_of(record))


def _in_front_of(
    application: Callable[[Any], Any], messages: Handler, refusal: Handler
) -> Callable[[Any], Any]:
    """Return the server's request handler: `application`, with shortcuts for two kinds of requests.

    ``POST /v1/messages`` skips the router, which would try one route of sixty after the other. An unknown ``Expect``
    is refused here, because aiohttp would respond to it in plain text, before all middlewares.
    """

    async def refuse(request: web.Request) -> web.StreamResponse:
        response = await refusal(request)
        response.force_close()  # it is not known whether a body follows
        return response

    def handle(request: web.Request) -> Any:
        headers = request.headers
        if "expect" in headers:
            if (
                request.version >= HttpVersion11  # HTTP/1.0 has no Expect (RFC 9110, 10.1.1)
                and not {each.lower() for each in headers.getall("expect")} <= _EXPECTATIONS
            ):
                return refuse(request)
        elif request.method == "POST" and request.raw_path.partition("?")[0] in _MESSAGES:
            return messages(request)
        return application(request)

    return handle


class _HeadOnly(Exception):
    """Carries the response to a HEAD request in place of a stream that was about to begin."""

    def __init__(self, response: web.StreamResponse) -> None:
        super().__init__()
        framing = ("transfer-encoding", "content-length")
        headers = [(name, value) for name, value in response.headers.items() if name.lower() not in framing]
        self.response = web.Response(
            status=response.status, reason=response.reason, headers=CIMultiDict(headers)
        )


async def _no_stream_to_head(request: web.Request, response: web.StreamResponse) -> None:
    """End the handler of a HEAD request before it streams.

    aiohttp removes the body of a whole response, but not that of a stream, whose bytes would be taken for the next
    response on the connection.
    """
    if request.method == "HEAD" and not isinstance(response, web.Response):
        raise _HeadOnly(response)


async def _refuse_expectation(_: web.Request) -> web.StreamResponse:
    raise UnknownExpectation("the only expectation that can be met is 100-continue")


def _envelope(relay: Relay, peers: Peers | None) -> Any:
    """Return the middleware that gives each request its id, checks access, and turns exceptions into responses."""

    @web.middleware
    async def envelope(request: web.Request, handler: Handler) -> web.StreamResponse:
        request_id = request[REQUEST_ID] = new_id("req_", 22)
        reason = None
        if peers is not None and peers.is_peer(request):
            request[IS_PEER] = True
        address = client_address(request, relay.settings.trusted_proxies)
        if address is not None and not address.is_loopback:
            request[CLIENT_ADDRESS] = str(address)
        try:
            _check_access(request, relay)
            response = await handler(request)
        except Exception as exc:
            reason = exc.message if isinstance(exc, ProxyError) else type(exc).__name__
            response = _response_to(exc, request, request_id)
            errors.clear_tracebacks(exc)
        finally:
            if (held := request.get(HELD)) is not None:
                held.release()
            # The traceback of a write that met a lost connection holds the call, and the request holds the exception.
            errors.clear_tracebacks(failure_of_body(request))
        if response.status >= 400 and not request.get(IS_CALL, False):
            log.info(
                "request.refused",
                request_id=request_id,
                method=request.method,
                path=request.path[:200],
                status=response.status,
                **({"client_address": request[CLIENT_ADDRESS]} if CLIENT_ADDRESS in request else {}),
                **({"model": request[MODEL][:MAX_MODEL_CHARS]} if MODEL in request else {}),
                **({"reason": redact(reason)[:_MAX_REASON_CHARS]} if reason is not None else {}),
            )
        if not response.prepared:
            response.headers.setdefault("request-id", request_id)
            if relay.is_draining:
                response.headers["connection"] = "close"
                response.force_close()
        return response

    return envelope


def _check_access(request: web.Request, relay: Relay) -> None:
    settings = relay.settings
    check_origin(request, settings)
    is_own_usage = request.path in STATS_PATHS and request.query.get("key") == "self"
    if settings.auth == "keys" and (is_own_usage or request.path.startswith(_KEY_PATHS)):
        return  # the handlers ask for a virtual key
    if settings.auth_token is not None and not request.path.removeprefix(PREFIX).startswith(_OPEN_PATHS):
        check_token(request, settings)


def _response_to(exc: Exception, request: web.Request, request_id: str) -> web.Response:
    """Return what the client gets when a handler raises `exc`."""
    if isinstance(exc, _HeadOnly):
        return exc.response
    if isinstance(exc, VerbatimRefusal):
        return web.Response(status=exc.status, body=exc.body, headers=CIMultiDict(exc.raw_headers))
    if isinstance(exc, ProxyError):
        response = error_response(exc, request, request_id)
        if isinstance(exc, (BodyTimedOut, BodyTooLarge)):
            response.force_close()  # the rest of the body must not be taken for the next request
        return response
    if isinstance(exc, web.HTTPException):
        response = error_response(error_from_aiohttp(exc, request), request, request_id)
        if "Allow" in exc.headers:
            response.headers["Allow"] = exc.headers["Allow"]
        return response
    log.error("request.crashed", request_id=request_id, path=request.path, exc_info=exc)
    return error_response(exc, request, request_id)
