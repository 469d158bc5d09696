"""One call from beginning to end: the fallback chain, the retries at each of its routes, and the record of it.

::

    attempt ──usable──▶ stream to the client ──▶ message_stop, or one error event
       ▲  │
       │  └─failed─▶ retry, or the next fallback, or the error with its true status
       └─────────────┘     (only while the client has been promised nothing)

Backpressure: the next chunk is read when the last write has been taken (docs/spec/operations.md#c6), and what one
read brought is one write.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from time import monotonic
from typing import Any

from aiohttp import web

from proxyd import errors, jsonio
from proxyd.config.routes import ModelRoute, RouteTable
from proxyd.config.settings import Settings
from proxyd.errors import BadCredential, ProxyError, TimedOut
from proxyd.hooks.loader import HookSet
from proxyd.logs.setup import get_logger
from proxyd.prompt_cache.cache import PromptCache
from proxyd.providers.key_owner import MisplacedKey, misplaced_key
from proxyd.providers.unparsed import forwards_unchanged
from proxyd.proxy.active_call import ActiveCall
from proxyd.proxy.admission import CallRegistry
from proxyd.proxy.auto_mode import AutoModeChecks
from proxyd.proxy.client_request import ClientRequest
from proxyd.proxy.client_response import ClientGone, ResponseWriter
from proxyd.proxy.driver import CallResources, FinisherFor
from proxyd.proxy.driver_direct import DirectDriver
from proxyd.proxy.driver_translated import TranslatedDriver
from proxyd.proxy.image_descriptions import ImageDescriptions
from proxyd.proxy.inner_call import BodyWriter, InnerRequest
from proxyd.proxy.key_pools import KeyPools
from proxyd.proxy.key_ring import KeyRing, estimate_of
from proxyd.proxy.keyed_attempt import run_with_keys
from proxyd.proxy.large_requests import LargeRequests, is_large
from proxyd.proxy.learned_file import LearnedQuirkFile
from proxyd.proxy.on_behalf import InnerCall
from proxyd.proxy.retries import RetryBudget, delay_before_retry, is_at_limit, may_fall_back
from proxyd.proxy.target_pools import TargetPools
from proxyd.proxy.token_counts import TokenCounts
from proxyd.proxy.web_search import WebSearches
from proxyd.proxy.window_check import check_window
from proxyd.recording.recorder import is_kept
from proxyd.telemetry.batcher import CallBatcher
from proxyd.telemetry.cache_breaks import CacheBreaks
from proxyd.telemetry.call_record import CallRecord, new_id
from proxyd.telemetry.call_trace import CallTrace
from proxyd.telemetry.finished_call import FinishedCall
from proxyd.telemetry.token_calibration import Calibration
from proxyd.transport.client import UpstreamClient
from proxyd.transport.google_tokens import GoogleTokens
from proxyd.transport.timers import Timers
from proxyd.urls import origin_of

__all__ = ["Relay"]

log = get_logger("relay")

#: What is in force, the client's body and its headers -> the trace of a call.
NewTrace = Callable[[object, bytes, Mapping[str, str]], CallTrace]


def _new_trace(in_force: object, body: bytes, headers: Mapping[str, str]) -> CallTrace:
    return CallTrace(in_force, len(body))


class Relay:
    """Carries calls between clients and upstreams.

    Args:
        table: the routes in force; read at the beginning of each call, so that a reload affects new calls only.
        demo_base: base URL of the embedded upstream, or None.
        hooks: those in force, read as `table` is.
        finisher_for: returns what works out additions to the end of a call's message, see `driver.Finisher`; those of
            auto mode if left out.
        prompt_cache: the daemon's.
        key_ring: the virtual keys.

    Attributes:
        finished: notifies its observers of finished calls.
        large_requests: does the work of large requests.
        key_pools: the keys of entries that have several.
        target_pools: the targets of entries that have some.
        is_traced: calls that begin are traced, since records may be kept of them, or spans sent.
        new_trace: makes the trace of a call.
    """

    def __init__(
        self,
        settings: Settings,
        table: RouteTable,
        upstreams: UpstreamClient,
        *,
        demo_base: str | None = None,
        hooks: HookSet | None = None,
        calibration: Calibration | None = None,
        learned: LearnedQuirkFile | None = None,
        finisher_for: FinisherFor | None = None,
        prompt_cache: PromptCache | None = None,
        key_ring: KeyRing | None = None,
    ) -> None:
        self.table = table
        self.finished = CallBatcher()
        self._cache_breaks = CacheBreaks()
        #: Misplaced keys that were warned of.
        self._misplaced_keys: set[MisplacedKey] = set()
        self.is_traced = False
        self.new_trace: NewTrace = _new_trace
        self.key_ring = key_ring or KeyRing()
        self.prompt_cache = prompt_cache or PromptCache()
        self.large_requests = LargeRequests()
        self.calibration = calibration or Calibration()
        checks = AutoModeChecks(self.make_inner_call, lambda: (self.settings, self.table))
        images = ImageDescriptions(self.make_inner_call, lambda: (self.settings, self.table))
        self._resources = CallResources(
            settings,
            hooks or HookSet(),
            upstreams,
            self.calibration,
            learned or LearnedQuirkFile(),
            demo_base=demo_base,
            finisher_for=finisher_for or checks.finisher_for,
        )
        self._translated = TranslatedDriver(self._resources, images)
        self._direct = DirectDriver(self._resources)
        self._token_counts = TokenCounts(self._resources)
        self._google_tokens = GoogleTokens()
        self._searches = WebSearches(self.make_inner_call, lambda: self.settings)
        self._budget = RetryBudget()
        self._calls = CallRegistry()
        self.key_pools, self.target_pools = KeyPools(table), TargetPools(table)

    @property
    def settings(self) -> Settings:
        return self._resources.settings

    @property
    def hooks(self) -> HookSet:
        return self._resources.hooks

    @property
    def active_calls(self) -> int:
        return len(self._calls)

    @property
    def records(self) -> list[CallRecord]:
        """The records of the calls in flight, the oldest first."""
        return self._calls.records

    @property
    def is_draining(self) -> bool:
        """Open calls are finished, and no new ones accepted."""
        return self._calls.is_draining

    @is_draining.setter
    def is_draining(self, is_draining: bool) -> None:
        self._calls.is_draining = is_draining

    async def until_idle(self) -> None:
        """Return when no call is in flight."""
        await self._calls.until_idle()

    def end_all(self, failure: ProxyError) -> None:
        """End every call in flight with `failure`."""
        self._calls.end_all(failure)

    def cut_all(self) -> None:
        """Abort the connections of the calls that have not ended by themselves."""
        self._calls.abort_all()

    def swap(self, settings: Settings, table: RouteTable, hooks: HookSet | None = None) -> None:
        """Put another configuration in force, for calls that begin from now on."""
        before = self.hooks
        self.prompt_cache.switch(is_on=settings.prompt_cache)
        self.table = table
        self.key_pools.replace(table)
        self.target_pools.replace(table)
        self._resources.replace_configuration(settings, hooks or HookSet())
        self._token_counts.forget()
        before.retire()

    def prepare(self, model: str | None) -> None:
        """Have a connection opened for a call that is being received.

        Args:
            model: the one that it is probably for; None if nothing is known, for the upstream that was called last.
        """
        route = None if model is None else self.table.resolve(model)
        if route is None or not route.is_demo:
            self._resources.upstreams.prepare(None if route is None else self._resources.base_of(route))

    async def serve(self, request: ClientRequest) -> web.StreamResponse:
        """Carry one call, with retries and fallbacks.

        Raises:
            ProxyError: the call failed and the client has been sent nothing.
        """
        timers = Timers(asyncio.get_running_loop())
        settings = self.settings
        assert isinstance(request.web_request, web.Request), "a client's request has a connection"
        writer = ResponseWriter(
            request.web_request,
            timers,
            request.record,
            ping_s=settings.ping_s,
            write_stall_s=settings.write_stall_s,
            is_last=lambda: self.is_draining,
        )
        return await self._carry(self._new_call(request, writer, timers))

    async def count_tokens(
        self, route: ModelRoute, request: ClientRequest, payload: dict[str, Any]
    ) -> int | None:
        """Return the number of input tokens of `payload` as the upstream of a translated route counts them.

        Returns None where it does not, or could not: an estimate is the answer then.
        """
        keys = self.key_pools.keys_for(route, request.record.session_id, counts=False)
        try:
            with_key = await self._with_token(route) if keys is None else keys.take()
            return await self._token_counts.count(with_key, request, payload)
        except ProxyError:  # no key is left, or none is there
            return None

    async def make_inner_call(self, inner: InnerCall) -> dict[str, Any]:
        """Make a call of the proxy's own, with retries and fallbacks, and return the whole message.

        Raises:
            ProxyError: it failed; `TimedOut` if it took too long.
        """
        # In a task of its own, which can be ended without the one that waits for it.
        return await asyncio.create_task(self._make_inner_call(inner))

    async def _make_inner_call(self, inner: InnerCall) -> dict[str, Any]:
        parent, body = inner.parent, jsonio.dumps(inner.payload)
        record = CallRecord(
            request_id=new_id("req_", 22),
            model=inner.payload["model"],
            kind=inner.kind,
            session_id=parent.session_id,
            agent_id=parent.agent_id,
            agent_type=parent.agent_type,
            prompt_id=parent.prompt_id,
            client_request_id=parent.request_id,
            virtual_key=parent.virtual_key,
            client_address=parent.client_address,
            is_stream=inner.writer is not None,
            bytes_in=len(body),
        )
        context = {} if parent.trace is None else parent.trace.context_headers
        head = InnerRequest({"content-type": "application/json", **inner.headers, **context})
        request = ClientRequest(
            head,
            record,
            body,
            inner.payload,
            inner.keys,
            wants_stream=inner.writer is not None,
            large=self.large_requests if is_large(body) else None,
        )
        timers, writer = Timers(asyncio.get_running_loop()), inner.writer or BodyWriter()
        call = self._new_call(request, writer, timers)
        call.stops_early, call.search = inner.stops_early, inner.search

        def expire() -> None:
            call.failure = TimedOut(f"no response within {inner.timeout_s:g} s")
            call.task.cancel()

        if inner.timeout_s:
            timers.set(expire, inner.timeout_s)
        await self._carry(call, is_inner=True)
        return writer.message()

    async def _carry(self, call: ActiveCall, *, is_inner: bool = False) -> web.StreamResponse:
        request, record = call.request, call.record
        try:
            if is_inner:
                self._calls.register(call)
            else:
                self._calls.admit(call, self.settings)
                self._admit_by_key(request)
            return await self._try_chain(call)
        except ProxyError as exc:
            call.record_failure(exc, "refused")
            raise
        except ClientGone:
            record.outcome = "client_gone"
            return call.writer.response
        except asyncio.CancelledError:
            if call.failure is None:
                record.outcome = "client_gone"
                raise
            call.record_failure(call.failure, "refused")
            raise call.failure from None
        except Exception as exc:
            failure = call.as_failure(exc)
            call.record_failure(failure, "refused")
            raise failure from None
        finally:
            call.end_retry()
            call.timers.close()
            self._calls.remove(call)
            if not record.status and call.writer.is_committed:
                record.status = call.writer.status  # the client left before the end of the response
            self._finish(request)

    def _admit_by_key(self, request: ClientRequest) -> None:
        """Count a call for a message with its estimate.

        Raises:
            LimitReached: a limit of its virtual key is reached.
        """
        record = request.record
        if record.virtual_key is None or not request.is_message:
            return
        route = request.route or self.table.resolve(request.model)
        record.pricing = None if route is None else route.pricing
        self.key_ring.admit(record.virtual_key, record, estimate_of(record))

    def _new_call(
        self, request: ClientRequest, writer: ResponseWriter | BodyWriter, timers: Timers
    ) -> ActiveCall:
        record, settings = request.record, self.settings
        task = asyncio.current_task()
        assert task is not None, "a handler always runs in a task"
        if self.is_traced:
            in_force = settings, self.table, self.hooks
            record.trace = trace = self.new_trace(in_force, request.body, request.web_request.headers)
            if settings.record_bodies:
                trace.keep_bodies(request.body)
        aborts = settings.on_midstream_error == "abort"
        call = ActiveCall(request, writer, timers, task, self._budget, aborts=aborts)
        if settings.log_bodies:
            call.log_bodies()
        return call

    def _finish(self, request: ClientRequest) -> None:
        """Learn from a call that is over, and notify the observers of it."""
        record = request.record
        record.ended = monotonic()
        trace = record.trace
        if trace is not None:
            web_request = request.web_request
            trace.head = web_request.method, web_request.raw_path, web_request.headers
            trace.keys = request.keys
            if not is_kept(record, self.settings.record):
                trace.forget_chunks()  # frees their memory now, while it is in the processor's caches
                record.trace, record.outline = None, trace
        if record.virtual_key is not None and request.is_message:
            self.key_ring.book(record.virtual_key, record)
        if record.estimated_input_tokens is not None:
            self.calibration.observe(record)  # not by the batch: the conversation's next call may come first
        if record.usage.cache_read_tokens or record.usage.cache_write_tokens:
            self._resources.caching_routes.add(record.route)
        self.finished.add(FinishedCall.of(record, self._cache_breaks.find(record)))

    async def _try_chain(self, call: ActiveCall) -> web.StreamResponse:
        """Try the route, or its targets, and then the fallbacks, one after the other."""
        record = call.record
        asked = self.table.resolve(call.request.model)
        assert asked is not None, "the app has resolved the model"
        route = call.request.route or asked
        targets = self.target_pools.targets_for(
            route, record.session_id, counts=call.request.is_message, load_of=self._calls.at_route
        )
        first = [route.model_id] if targets is None else targets.names
        chain = [route if name == route.model_id else self.table.by_id(name) for name in first]
        chain += [each for each in self.table.fallbacks(route) if each.model_id not in first]
        failure: ProxyError | None = None
        skipped: BadCredential | None = None
        for candidate in chain:
            if not (call.request.is_message or candidate.direct):
                continue
            if failure is not None:
                log.warning(
                    "call.fallback",
                    request_id=record.request_id,
                    route=record.route,
                    to=candidate.model_id,
                    address=record.address,
                    why=call.log_message(failure),
                )
                record.fallback_from = record.fallback_from or record.route
            # The client's key is for the upstream it has chosen (docs/spec/design.md#client-key); a rule or a chain may
            # lead to others.
            call.is_first_choice = origin_of(candidate.api_base) == origin_of(asked.api_base)
            try:
                has_next_target = targets is not None and candidate.model_id in first[:-1]
                response = await self._try_route(candidate, call, has_next_target=has_next_target)
            except ProxyError as exc:
                moves_on = targets is not None and targets.moves_on(candidate, exc)
                if isinstance(exc, BadCredential):
                    if failure is None and not moves_on:
                        raise
                    log.warning(
                        "call.fallback_skipped",
                        request_id=record.request_id,
                        route=candidate.model_id,
                        why=exc.message,
                    )
                    errors.clear_tracebacks(exc)
                    skipped = exc
                    continue
                if not (moves_on or may_fall_back(exc)):
                    raise
                errors.clear_tracebacks(exc)
                failure = exc
            else:
                if targets is not None:
                    targets.has_served(candidate, record)
                return response
        last = failure or skipped
        assert last is not None, "at least one route was tried"
        raise last

    async def _try_route(
        self, route: ModelRoute, call: ActiveCall, *, has_next_target: bool = False
    ) -> web.StreamResponse:
        """Try one route, with retries.

        Args:
            has_next_target: another target serves the same model, so a limit of this one is not waited for.
        """
        record = call.record
        record.route, record.upstream_model = route.model_id, route.model_name
        record.mode = "direct" if route.direct else "translated"
        record.pricing, record.served_with = route.pricing, None
        await call.request.yield_to_loop()
        if call.request.seen is None or not forwards_unchanged(route):
            await call.request.parse()
        found = await self._searches.respond(route, call)
        if found is not None:
            return found
        await check_window(route, call, self.calibration)
        self._warn_of_misplaced_key(route, call)
        self._calls.check_route_limit(route, self.settings)
        driver = self._direct if route.direct else self._translated
        keys = self.key_pools.keys_for(route, record.session_id, counts=call.request.is_message)
        retry = 0
        while True:
            try:
                return await run_with_keys(driver, await self._with_token(route), keys, call)
            except ProxyError as exc:
                errors.name_address(exc, record.address)
                call.end_retry()
                delay_s = delay_before_retry(exc, retry, is_direct=route.direct)
                has_room = retry < self.settings.max_retries and self._budget.has_room(len(self._calls))
                if delay_s is None or not has_room or (has_next_target and is_at_limit(exc)):
                    raise
                log.warning(
                    "upstream.retry",
                    request_id=record.request_id,
                    route=route.model_id,
                    retry=retry + 1,
                    delay_s=round(delay_s, 2),
                    address=record.address,
                    why=call.log_message(exc),
                )
                errors.clear_tracebacks(exc)
            retry += 1
            record.retries += 1
            call.begin_retry()
            await asyncio.sleep(delay_s)

    async def _with_token(self, route: ModelRoute) -> ModelRoute:
        """Return `route` with the access token that is to be obtained for its calls, if one is.

        Raises:
            BadCredential, Unreachable: there is none.
        """
        return route.with_token(await self._google_tokens.token()) if route.obtains_token else route

    def _warn_of_misplaced_key(self, route: ModelRoute, call: ActiveCall) -> None:
        """Warn once when a key goes to a host of another vendor than the one that issued it."""
        found = misplaced_key(route, call.keys)
        if found is not None and found not in self._misplaced_keys:
            self._misplaced_keys.add(found)
            log.warning(
                "key.misplaced",
                route=route.model_id,
                issued_by=found.vendor,
                form=found.form,
                sent_to=found.host,
            )
