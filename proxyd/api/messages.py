"""The Messages API: ``/v1/messages`` and ``/v1/messages/count_tokens``."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from time import monotonic
from typing import Any

from aiohttp import web

from proxyd import errors
from proxyd.api.access_control import check_key, without_token
from proxyd.api.json_responses import json_response
from proxyd.api.request_body import read_request_body
from proxyd.api.request_keys import CLIENT_ADDRESS, IS_CALL, MODEL, REQUEST_ID, VIRTUAL_KEY
from proxyd.codecs.translation.token_estimate import estimate_input_tokens, tools_tokens
from proxyd.config.routes import ModelRoute
from proxyd.errors import ClientError, NotFound
from proxyd.logs.setup import get_logger
from proxyd.prompt_cache.parser import parse_large_object, parse_request
from proxyd.providers.base import ClientKeys
from proxyd.providers.route_choice import can_choose_unparsed, choose_route, facts_of, rules_for
from proxyd.providers.unparsed import (
    PeekedRequest,
    forwards_unchanged,
    is_plain,
    model_near_start,
    peek_request,
)
from proxyd.proxy.client_request import ClientRequest
from proxyd.proxy.held_bodies import HeldBodies
from proxyd.proxy.large_requests import LargeRequests, is_large
from proxyd.proxy.relay import Relay
from proxyd.server_tools.context_edits import apply_edits
from proxyd.server_tools.threads import check_thread
from proxyd.telemetry.call_record import CallRecord
from proxyd.telemetry.finished_call import FinishedCall
from proxyd.telemetry.request_kind import (
    AGENT_TYPE_HEADER,
    CLASS_HEADER,
    PROMPT_ID_HEADER,
    classes_of,
    kind_of,
    session_in,
)

__all__ = ["MessagesHandlers", "find_route", "new_record"]

log = get_logger("api")

#: Ids of the client that may appear in the log (docs/spec/operations.md#f2).
_SAFE_ID = re.compile(r"[A-Za-z0-9._:-]{1,64}\Z")


class MessagesHandlers:
    """Handlers that read a message and pass it to the relay.

    Args:
        bodies: counts the request bodies that are in memory.
        on_refused: is called with the record of a request for an unknown model, which becomes no call.
    """

    def __init__(self, relay: Relay, bodies: HeldBodies, on_refused: Callable[[FinishedCall], None]) -> None:
        self._relay = relay
        self._bodies = bodies
        self._on_refused = on_refused

    async def messages(self, request: web.Request) -> web.StreamResponse:
        """``POST /v1/messages``."""
        call, route = await self._parse_request(request)
        if call.seen is None:
            check_thread(call.payload, route)
        if not route.direct and not _has_messages(call.payload):
            raise ClientError("messages: a list with at least one message is required")
        request[IS_CALL] = True
        return await self._relay.serve(call)

    async def count_tokens(self, request: web.Request) -> web.StreamResponse:
        """``POST /v1/messages/count_tokens``: forwarded to a direct upstream; for a translated one counted by the
        upstream, or else estimated.

        With ``context_management`` it is the count after the edits, beside the one before.
        """
        call, route = await self._parse_request(request)
        call.record.kind = "count"
        if route.direct:
            request[IS_CALL] = True
            call.is_message = False
            return await self._relay.serve(call)
        tools = await call.run(tools_tokens, call.payload.get("tools"))

        async def count(payload: dict[str, Any]) -> int:
            if _has_messages(payload):
                counted = await self._relay.count_tokens(route, call, payload)
                if counted is not None:
                    return counted
            estimate = await call.run(estimate_input_tokens, payload, call.inputs)
            return self._relay.calibration.corrected(route.model_name, estimate, tools)

        response: dict[str, Any] = {"input_tokens": await count(call.payload)}
        if not self._relay.settings.context_edits:
            return json_response(response)
        edited = await call.run(apply_edits, call.payload, call.inputs)
        if not edited.applied:
            return json_response(response)
        original = {"original_input_tokens": response["input_tokens"]}
        return json_response({"input_tokens": await count(edited.payload), "context_management": original})

    async def _parse_request(self, request: web.Request) -> tuple[ClientRequest, ModelRoute]:
        """Read the body and find the route of its model. A large body that is forwarded unchanged is not parsed."""
        relay = self._relay
        check_key(request, relay)
        body = await read_request_body(request, relay.settings, self._bodies, self._prepare)
        keys = without_token(ClientKeys.from_headers(request.headers), relay.settings)
        large = relay.large_requests if is_large(body) else None
        seen = None if large is None else peek_request(body)
        route = None if seen is None else relay.table.resolve(seen.model)
        if seen is not None and route is not None:
            call = await self._unparsed(request, body, seen, route, keys, large)
            if call is not None:
                return call, call.route or route
        cache = relay.prompt_cache
        if large is None:
            payload, outline = parse_request(body, cache)
        else:
            payload, outline = await large.run(parse_large_object, body), body
        model = payload.get("model")
        if not isinstance(model, str) or not model:
            raise ClientError("model: a model id is required")
        request[MODEL] = model
        route = self._find_route(request, payload, len(body))
        record = _record_of(request, payload, len(body))
        call = ClientRequest(request, record, body, payload, keys, wants_stream=record.is_stream, large=large)
        call.outline = outline
        self._check_model(call, route)
        if request.path.endswith("/messages"):
            await self._apply_rules(call, route, payload)
        route = call.route or route
        if large is None:
            cache.keep(payload, body)
        return call, route

    async def _unparsed(
        self,
        request: web.Request,
        body: bytes,
        seen: PeekedRequest,
        route: ModelRoute,
        keys: ClientKeys,
        large: LargeRequests | None,
    ) -> ClientRequest | None:
        """Return a request that is forwarded without being parsed, or None where it has to be."""
        table = self._relay.table
        rules = rules_for(table, route)
        could_be = (route, *(table.by_id(rule.use) for rule in rules))
        if not any(map(forwards_unchanged, could_be)) or not can_choose_unparsed(table, rules):
            return None
        if not (is_plain(body, seen) if large is None else await large.run(is_plain, body, seen)):
            return None
        record = new_record(request, seen.model)
        if record.session_id is None:  # it may be in the body
            return None
        record.kind = _kind_of({}, request, record)
        record.is_stream, record.bytes_in = seen.wants_stream, len(body)
        call = ClientRequest(
            request, record, body, None, keys, wants_stream=seen.wants_stream, seen=seen, large=large
        )
        self._check_model(call, route)
        await self._apply_rules(call, route, {})
        return call if forwards_unchanged(call.route or route) else None

    def _check_model(self, call: ClientRequest, route: ModelRoute) -> None:
        """Check that the client's virtual key may use the model, by its id or by the name that was requested.

        Raises:
            Forbidden: it may not.
        """
        key = call.record.virtual_key
        if key is not None:
            requested = self._relay.table.name_in(call.model)
            self._relay.key_ring.check_model(key, (requested, route.model_id))

    async def _apply_rules(self, call: ClientRequest, route: ModelRoute, payload: dict[str, Any]) -> None:
        """Put the entry that a rule chooses into `call`."""
        table, record = self._relay.table, call.record
        if not rules_for(table, route):
            return

        def count_tokens() -> int:
            estimate = estimate_input_tokens(payload, call.inputs)
            return self._relay.calibration.corrected(
                route.model_name, estimate, tools_tokens(payload.get("tools"))
            )

        facts = facts_of(payload, classes_of(record.kind), record.agent_type or "", count_tokens)
        choice = await call.run(choose_route, table, route, facts)
        if choice.rule is not None:
            call.route, record.rule = choice.route, choice.rule.name
        for rule, why in choice.passed_over:
            log.info("route.rule_passed_over", request_id=record.request_id, rule=rule.name, why=why)

    def _prepare(self, beginning: bytes) -> None:
        """Have the connection to the likely upstream opened while the rest of a body arrives."""
        self._relay.prepare(model_near_start(beginning))

    def _find_route(self, request: web.Request, payload: dict[str, Any], size: int) -> ModelRoute:
        try:
            return find_route(self._relay, payload["model"])
        except NotFound as exc:
            record = _record_of(request, payload, size)
            record.status, record.outcome = errors.error_response(exc)[0], "refused"
            record.error_type, record.error = errors.error_response(exc)[1], exc.message
            record.ended = monotonic()
            self._on_refused(FinishedCall.of(record))
            raise


def _record_of(request: web.Request, payload: dict[str, Any], size: int) -> CallRecord:
    record = new_record(request, payload["model"], payload)
    record.kind = _kind_of(payload, request, record)
    record.is_stream, record.bytes_in = payload.get("stream") is True, size
    return record


def _kind_of(payload: dict[str, Any], request: web.Request, record: CallRecord) -> str:
    request_class = request.headers.get(CLASS_HEADER)
    return kind_of(payload, is_subagent=record.agent_id is not None, request_class=request_class)


def find_route(relay: Relay, model: str) -> ModelRoute:
    """Return the route of `model`.

    Raises:
        NotFound: models.yaml has no such model.
    """
    route = relay.table.resolve(model)
    if route is None:
        known = ", ".join(relay.table.ids()) or "none"
        raise NotFound(f"model: {model[:200]!r} is not in models.yaml; known models: {known}")
    return route


def new_record(request: web.Request, model: str, payload: Mapping[str, Any] | None = None) -> CallRecord:
    """Start the record of a call with the ids in its headers, and the session that its `payload` names otherwise."""
    client_id = request.headers.get("x-request-id", "")
    session_id = _safe_id(request.headers.get("x-claude-code-session-id"))
    if session_id is None and payload is not None:
        session_id = _safe_id(session_in(payload))
    return CallRecord(
        request_id=request[REQUEST_ID],
        model=model,
        session_id=session_id,
        agent_id=_safe_id(request.headers.get("x-claude-code-agent-id")),
        agent_type=_safe_id(request.headers.get(AGENT_TYPE_HEADER)),
        prompt_id=_safe_id(request.headers.get(PROMPT_ID_HEADER)),
        virtual_key=request.get(VIRTUAL_KEY),
        client_address=request.get(CLIENT_ADDRESS),
        client_request_id=client_id if _SAFE_ID.match(client_id) else None,
    )


def _has_messages(payload: dict[str, Any]) -> bool:
    # A function, since a local of the handler would keep the list (120 KB) alive as long as the stream.
    messages = payload.get("messages")
    return isinstance(messages, list) and bool(messages)


def _safe_id(value: str | None) -> str | None:
    return value if value and _SAFE_ID.match(value) else None
