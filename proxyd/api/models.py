"""The Models API: ``/v1/models``, by which Claude Code discovers models (docs/spec/messages-api.md#models)."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from proxyd.api.access_control import check_key, comes_from_api_client, without_token
from proxyd.api.json_responses import json_response
from proxyd.api.messages import find_route, new_record
from proxyd.api.request_keys import IS_CALL, VIRTUAL_KEY
from proxyd.config.route_description import describe, window_of
from proxyd.config.routes import ModelRoute
from proxyd.errors import ClientError, Refused
from proxyd.providers.base import ClientKeys
from proxyd.providers.direct_request import has_models
from proxyd.proxy.client_request import ClientRequest
from proxyd.proxy.relay import Relay

__all__ = ["ModelsHandlers"]

#: The API requires a creation time; ours is not known.
_CREATED_AT = "2025-01-01T00:00:00Z"
#: The API's own default and upper bound of ``limit``.
_DEFAULT_LIMIT = 20
_MAX_LIMIT = 1000
#: Statuses of upstreams that do not have this endpoint, or do not know the model there.
_HAS_NO_MODEL = frozenset({404, 405, 501})


class ModelsHandlers:
    """Handlers that list the models of the routes in force."""

    def __init__(self, relay: Relay) -> None:
        self._relay = relay

    async def models(self, request: web.Request) -> web.Response:
        """``GET /v1/models``, from memory, page by page."""
        check_key(request, self._relay)
        key = request.get(VIRTUAL_KEY)
        entries = [
            _model(name, route)
            for name, route in self._relay.table.listed()
            if key is None or key.may_use((route.model_id, self._relay.table.name_in(name)))
        ]
        query = request.query
        try:
            limit = int(query.get("limit", _DEFAULT_LIMIT))
        except ValueError:
            limit = 0
        if not 1 <= limit <= _MAX_LIMIT:
            raise ClientError(f"limit: expected a whole number from 1 to {_MAX_LIMIT}")
        ids = [entry["id"] for entry in entries]
        start, end = 0, len(entries)
        if "after_id" in query:
            start = ids.index(query["after_id"]) + 1 if query["after_id"] in ids else end
        if "before_id" in query:
            end = ids.index(query["before_id"]) if query["before_id"] in ids else start
            start = max(start, end - limit)
        page = entries[start : min(end, start + limit)]
        has_more = start > 0 if "before_id" in query else start + len(page) < end
        return json_response(
            {
                "data": page,
                "has_more": has_more,
                "first_id": page[0]["id"] if page else None,
                "last_id": page[-1]["id"] if page else None,
            }
        )

    async def model(self, request: web.Request) -> web.StreamResponse:
        """``GET /v1/models/{id}``: from a direct upstream, or from memory where that has none.

        Only an API client makes us call the upstream, since any web page can make a browser send a plain GET.
        """
        check_key(request, self._relay)
        name = request.match_info["model_id"]
        route = find_route(self._relay, name)
        key = request.get(VIRTUAL_KEY)
        if key is not None:
            self._relay.key_ring.check_model(key, (self._relay.table.name_in(name), route.model_id))
        keys = without_token(ClientKeys.from_headers(request.headers), self._relay.settings)
        is_forwarded = route.direct and has_models(route) and comes_from_api_client(request)
        if not is_forwarded or (keys.any is None and not route.has_own_key):
            return json_response(_model(name, route))
        request[IS_CALL] = True
        record = new_record(request, name)
        payload = {"model": name}
        try:
            return await self._relay.serve(
                ClientRequest(request, record, b"", payload, keys, wants_stream=False, is_message=False)
            )
        except Refused as exc:
            if exc.status not in _HAS_NO_MODEL:
                raise
            return json_response(_model(name, route))


def _model(name: str, route: ModelRoute) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "type": "model",
        "id": name,
        "display_name": name,
        "description": describe(route),
        "created_at": _CREATED_AT,
    }
    window = window_of(route)
    if window is not None:
        entry["max_input_tokens"] = window
    if route.max_tokens is not None:
        entry["max_tokens"] = route.max_tokens
    return entry
