"""Status endpoints: statistics, metrics, the dashboard and its feed, and the test of the connections.

Only ``POST /test-connection`` calls upstreams. None of them counts as a call.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from aiohttp import web

import proxyd
from proxyd import jsonio
from proxyd.api.access_control import check_key, is_near
from proxyd.api.call_details import CallDetails
from proxyd.api.peers import Peers
from proxyd.api.probe import ONE_WORD, probe
from proxyd.api.request_body import read_request_body
from proxyd.api.request_keys import REQUEST_ID, VIRTUAL_KEY
from proxyd.config.keys import DEMO_BASE
from proxyd.config.routes import ModelRoute
from proxyd.config.settings import TABLE
from proxyd.errors import ClientError, Forbidden, NotFound
from proxyd.logs.redact import redact
from proxyd.logs.setup import get_logger
from proxyd.prompt_cache.parser import parse_object
from proxyd.proxy.client_request import PREFIX
from proxyd.proxy.held_bodies import HeldBodies
from proxyd.proxy.relay import Relay
from proxyd.telemetry import ledger_queries as stats
from proxyd.telemetry.hub import TelemetryHub
from proxyd.telemetry.metrics import CONTENT_TYPE
from proxyd.telemetry.shared_ledger import SharedLedger

__all__ = ["STATS_PATHS", "add_status_routes"]

STATS_PATHS = ("/v1/stats", f"{PREFIX}/v1/stats")

log = get_logger("stats")

_PAGE_FOLDER = Path(__file__).parent / "dashboard"
#: The dashboard's files. It loads nothing from other origins, and nothing is inline.
_PAGE_TYPES = {
    "dashboard.css": "text/css",
    "dashboard.js": "text/javascript",
    "entries.js": "text/javascript",
}
_PAGE_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}
#: A probe needs few tokens; a model that thinks first takes a while.
_PROBE_BODY = '{"probe": true}'
#: A probe's body has two short members.
_MAX_PROBE_BYTES = 64 * 1024
_HOUR_S = 3600
_DAY_S = 86_400


def add_status_routes(
    app: web.Application,
    relay: Relay,
    observers: TelemetryHub,
    bodies: HeldBodies,
    about: Callable[[], dict[str, Any]],
    details: CallDetails,
    peers: Peers | None = None,
) -> None:
    """Register the endpoints, each with and without the prefix."""
    handlers = _StatusHandlers(relay, observers, bodies, about, details, peers)
    for prefix in ("", PREFIX):
        app.router.add_get(f"{prefix}/v1/stats", handlers.stats)
        app.router.add_get(f"{prefix}/v1/calls/{{request_id}}", handlers.call)
        app.router.add_get(f"{prefix}/metrics", handlers.metrics)
        app.router.add_get(f"{prefix}/events", handlers.events)
        app.router.add_get(f"{prefix}/dashboard", handlers.page)
        app.router.add_get(f"{prefix}/dashboard/{{name}}", handlers.page_file)
        app.router.add_get(f"{prefix}/test-connection", handlers.test_connection)
        app.router.add_post(f"{prefix}/test-connection", handlers.probe)


class _StatusHandlers:
    def __init__(
        self,
        relay: Relay,
        observers: TelemetryHub,
        bodies: HeldBodies,
        about: Callable[[], dict[str, Any]],
        details: CallDetails,
        peers: Peers | None,
    ) -> None:
        self._peers = peers
        self._about = about
        self._details = details
        self._relay = relay
        self._bodies = bodies
        self._observers = observers

    # -- numbers

    async def stats(self, request: web.Request) -> web.Response:
        """``GET /v1/stats``: totals since the start and from the ledger.

        ``?session=ID`` for one session; ``?key=self`` for the virtual key that is sent.
        """
        self._relay.finished.flush()
        if "key" in request.query:
            return await self._own_stats(request)
        live, ledger = self._observers.live, self._observers.ledger
        session = request.query.get("session")
        found: dict[str, Any] = {
            "version": proxyd.__version__,
            "started_at": live.started_at,
            "uptime_s": round(time.time() - live.started_at, 1),
            "since_start": live.totals(),
            "ledger": {
                "is_kept": ledger is not None,
                "days": self._relay.settings.ledger_days,
                "trouble": None if ledger is None else ledger.trouble,
                "calls_lost": 0 if ledger is None else ledger.dropped,
                "damaged": [],
                "is_shared": False,
            },
        }
        if ledger is not None:
            shared, forwarder = self._relay.settings.store, self._observers.forwarder
            if forwarder is not None:
                found["ledger"].update(
                    rows_waiting=forwarder.waiting, rows_lost=forwarder.lost, trouble=forwarder.trouble
                )
            try:
                if shared is not None and forwarder is not None:
                    try:
                        found.update(await asyncio.to_thread(_from_ledger, SharedLedger(shared), session))
                        found["ledger"]["is_shared"] = True
                        return _json(found)
                    except stats.LedgerUnreadable as exc:
                        found["ledger"]["trouble"] = f"{exc.message}; only the calls of this daemon are shown"
                found.update(await asyncio.to_thread(_from_file, ledger.path, session))
            except stats.LedgerUnreadable as exc:
                found["ledger"]["trouble"] = exc.message
                if exc.is_damaged:
                    ledger.suspect()
            damaged = await asyncio.to_thread(stats.damaged_files, ledger.path)
            found["ledger"]["damaged"] = [str(each) for each in damaged]
        return _json(found)

    async def _own_stats(self, request: web.Request) -> web.Response:
        """What the virtual key of the request has used, and of which limits."""
        if request.query["key"] != "self":
            raise ClientError("key: expected self, which stands for the virtual key that the request sends")
        check_key(request, self._relay)
        key = request.get(VIRTUAL_KEY)
        if key is None:
            raise ClientError(
                "key=self needs a virtual key in the request ('claude-proxy keys add' makes one)"
            )
        found: dict[str, Any] = {
            "key": key.name,
            "team": key.team,
            "models": list(key.models),
            "expires_at": key.expires_at,
            "holders": self._relay.key_ring.describe(key),
            "ledger": {"trouble": None, "is_shared": False},
        }
        ledger, shared = self._observers.ledger, self._relay.settings.store
        if ledger is None:
            return _json(found)
        try:
            if shared is not None:
                try:
                    found.update(await asyncio.to_thread(_of_key, SharedLedger(shared), key.name))
                    found["ledger"]["is_shared"] = True
                    return _json(found)
                except stats.LedgerUnreadable as exc:
                    log.warning("stats.not_shared", why=exc.message)
            found.update(await asyncio.to_thread(_of_key_in_file, ledger.path, key.name))
        except stats.LedgerUnreadable as exc:
            log.warning("stats.unreadable", why=exc.message)
            found["ledger"]["trouble"] = "the record of calls cannot be read at the moment"
        return _json(found)

    async def call(self, request: web.Request) -> web.Response:
        """``GET /v1/calls/{request_id}``: the details of a finished call, without bodies and secrets."""
        self._relay.finished.flush()
        found = await asyncio.to_thread(self._details.find, request.match_info["request_id"])
        if found is None:
            raise NotFound("calls have ids such as req_…: take one from the log, or from /v1/stats")
        return _json(found)

    async def metrics(self, request: web.Request) -> web.Response:
        """``GET /metrics``: for this machine, whatever address the daemon listens on, and for the access token."""
        # Where a token is set, who comes here has sent it.
        if self._relay.settings.auth_token is None and not is_near(request):
            raise Forbidden(
                "without an auth_token, /metrics can be read on this machine only, and not through a proxy"
            )
        self._relay.finished.flush()
        return web.Response(
            body=await self._observers.metrics.render(), headers={"content-type": CONTENT_TYPE}
        )

    # -- the feed

    async def events(self, request: web.Request) -> web.StreamResponse:
        """``GET /events``: see `proxyd.telemetry.live_feed`."""
        headers = {"content-type": "text/event-stream; charset=utf-8", "cache-control": "no-store"}
        response = web.StreamResponse(headers=headers)
        response.headers["request-id"] = request[REQUEST_ID]
        await response.prepare(request)
        self._relay.finished.flush()
        messages = self._observers.live.listen()
        if self._peers is not None:
            messages = self._peers.listen(messages, request)
        try:
            async for message in messages:
                # A client that does not read blocks the write; its queue fills meanwhile, and it is disconnected.
                await asyncio.wait_for(response.write(message), self._relay.settings.write_stall_s)
        except (ConnectionError, asyncio.TimeoutError):
            if request.transport is not None:
                request.transport.abort()
        finally:
            await messages.aclose()
        return response

    # -- the page

    async def page(self, request: web.Request) -> web.Response:
        """``GET /dashboard``."""
        return await _page_file("dashboard.html", "text/html")

    async def page_file(self, request: web.Request) -> web.Response:
        """``GET /dashboard/…``: the files that the dashboard loads."""
        name = request.match_info["name"]
        if name not in _PAGE_TYPES:
            raise NotFound(f"the dashboard has no file {name[:100]!r}")
        return await _page_file(name, _PAGE_TYPES[name])

    # -- what is configured

    async def test_connection(self, request: web.Request) -> web.Response:
        """``GET /test-connection``: routes and settings. It calls nothing, since any web page can send it."""
        if request.query.get("probe", "") not in ("", "0"):
            raise ClientError(
                f"a probe calls every upstream, so it takes a POST: send {_PROBE_BODY} to /test-connection, "
                "with content-type application/json"
            )
        return await self._connection(request, is_probed=False)

    async def probe(self, request: web.Request) -> web.Response:
        """``POST /test-connection``: the same, with one small call through each route."""
        data = await read_request_body(request, self._relay.settings, self._bodies)
        if len(data) > _MAX_PROBE_BYTES:
            raise ClientError(f"expected {_PROBE_BODY}, got {len(data)} bytes")
        body = parse_object(data)
        model = body.get("model")
        if body.keys() - {"probe", "model"} or body.get("probe") is not True:
            raise ClientError(
                f'expected {_PROBE_BODY}, with a "model" to test one only; to see the configuration, send a GET'
            )
        if model is not None and model not in {route.model_id for route in self._relay.table.routes}:
            raise ClientError("model: expected the model_id of an entry of models.yaml")
        return await self._connection(request, is_probed=True, model=model)

    async def _connection(
        self, request: web.Request, *, is_probed: bool, model: str | None = None
    ) -> web.Response:
        relay, about = self._relay, self._about()
        circuits = {circuit["origin"]: circuit for circuit in about.get("circuits", ())}
        keys, targets = relay.key_pools.describe(), relay.target_pools.describe()
        routes = [
            {
                **_route(route, circuits),
                "keys": keys.get(route.model_id, []),
                "targets": targets.get(route.model_id, []),
            }
            for route in relay.table.routes
            if model in (None, route.model_id)
        ]
        if is_probed:
            for entry in routes:
                entry["probe"] = await _probe(request, entry["model_id"], about["address"])
        settings = {
            name: {
                "value": redact(_as_json(getattr(relay.settings, name)), name),
                "from": relay.settings.origin_of(name),
            }
            for name in TABLE
        }
        is_fine = all(entry["probe"]["ok"] for entry in routes) if is_probed else None
        return _json(
            {
                "version": proxyd.__version__,
                "ok": is_fine,
                "routes": routes,
                "hooks": relay.hooks.describe(),
                "virtual_keys": relay.key_ring.describe(),
                "config": {
                    "path": about.get("config"),
                    "error": about.get("config_error"),
                    "hash": about.get("config_hash"),
                    "replicas": about.get("replicas"),
                    "can_be_changed_here": relay.settings.auth_token is not None,
                },
                "settings": settings,
            }
        )


def _of_key_in_file(path: Path, name: str) -> dict[str, Any]:
    return _of_key(stats.open_ledger(path), name)


def _of_key(database: stats.AnyLedger, name: str) -> dict[str, Any]:
    try:
        return stats.overview_of_key(database, name, time.time())
    finally:
        database.close()


def _from_file(path: Path, session: str | None) -> dict[str, Any]:
    return _from_ledger(stats.open_ledger(path), session)


def _from_ledger(database: stats.AnyLedger, session: str | None) -> dict[str, Any]:
    now = time.time()
    try:
        if session is not None:
            return {
                "session": session,
                "total": stats.sums(database, 0, session=session)[0],
                "by_model": stats.sums(database, 0, by="model", session=session),
                "calls": stats.calls_of_session(database, session),
            }
        midnight = stats.midnight(now)
        return {
            **stats.overview(database, now),
            "minutes": stats.series(database, now - _HOUR_S, "minute"),
            "hours": stats.series(database, now - _DAY_S, "hour"),
            "days": stats.series(database, midnight - 29 * _DAY_S, "day"),
            "sessions": stats.last_sessions(database, now - _DAY_S),
            "recent": stats.last_calls(database, now - _DAY_S),
        }
    finally:
        database.close()


def _route(route: ModelRoute, circuits: Any) -> dict[str, Any]:
    """Describe a route without its secrets."""
    origin = "/".join(route.api_base.split("/", 3)[:3])
    origin_of_key = "models.yaml" if route.key_origin == "literal" else route.key_origin
    credential = "from the request" if not route.has_own_key else f"from {origin_of_key}"
    if route.api_base == DEMO_BASE:
        credential = "none needed"
    elif route.missing_key is not None:
        credential = route.missing_key
    return {
        "model_id": route.model_id,
        "model_name": route.model_name,
        "mode": "direct" if route.direct else "translated",
        "upstream": origin,
        "credential": credential,
        "aliases": list(route.aliases),
        "fallback": list(route.fallback),
        "max_tokens": route.max_tokens,
        "max_input_tokens": route.max_input_tokens or route.known_window,
        "is_priced": route.pricing is not None,
        "has_key": route.missing_key is None or route.api_base == DEMO_BASE,
        "circuit": circuits.get(origin, {}).get("state", "closed"),
        "open_for_s": circuits.get(origin, {}).get("open_for_s", 0),
    }


async def _probe(request: web.Request, model: str, address: Sequence[Any]) -> dict[str, Any]:
    """Send one call to ourselves as a client would, with the credential in the request for the probe."""
    transport = request.transport
    host, port = ("127.0.0.1", 0) if transport is None else transport.get_extra_info("sockname")[:2]
    if request.secure:
        host, port = address  # the probe speaks no TLS
    wanted = ("x-api-key", "authorization", "x-claude-proxy-token")
    headers = {name: request.headers[name] for name in wanted if name in request.headers}
    result = await asyncio.to_thread(probe, host, port, model, ONE_WORD, headers)
    found: dict[str, Any] = {"ok": result.is_ok, "status": result.status}
    if result.status is not None:
        found["duration_ms"] = round(result.duration_s * 1000)
    if result.error is not None:
        found["error"] = result.error
    return found


def _as_json(value: Any) -> Any:
    """Convert the value of a setting to plain JSON types."""
    if isinstance(value, (str, int, float, bool)) or value is None:
        return value
    if isinstance(value, (list, tuple)):
        return [_as_json(item) for item in value]
    if isinstance(value, dict):
        return {str(key): _as_json(item) for key, item in value.items()}
    return repr(value)  # a Secret, whose repr is masked


async def _page_file(name: str, content_type: str) -> web.Response:
    text = await asyncio.to_thread((_PAGE_FOLDER / name).read_text, encoding="utf-8")
    return web.Response(text=text, content_type=content_type, headers=_PAGE_HEADERS)


def _json(value: Any) -> web.Response:
    return web.Response(
        body=jsonio.dumps(value), content_type="application/json", headers={"cache-control": "no-store"}
    )
