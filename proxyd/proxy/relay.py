"""One call from beginning to end: attempts, the stream to the client, and what is remembered of it.

::

    attempt ──usable──▶ stream to the client ──▶ message_stop, or one error event
       ▲  │
       │  └─failed─▶ again, or the next fallback, or the error with its true status
       └─────────────┘     (only while the client has been promised nothing)

Backpressure: the next chunk is read when the last write has been taken (docs/spec/operations.md#c6), and what one
read brought is one write.
"""

from __future__ import annotations

import asyncio
import copy
from dataclasses import replace
from time import monotonic

from aiohttp import web

from proxyd import errors, jsonio
from proxyd.codecs.anthropic.events import ErrorEvent, encode_events
from proxyd.codecs.openai.completion import MessageCollector
from proxyd.codecs.openai.context_overflow import Overflow, overflow_message
from proxyd.codecs.openai.token_estimate import estimate_input_tokens, tools_tokens
from proxyd.codecs.openai.token_lower_bound import least_input_tokens
from proxyd.config.routes import ModelRoute, RouteTable
from proxyd.config.settings import Settings
from proxyd.errors import BadCredential, Overloaded, ProxyError, Refused, TooLong
from proxyd.hooks.loader import HookSet
from proxyd.hooks.runner import CallHooks
from proxyd.logs.setup import get_logger
from proxyd.providers import direct_request as direct
from proxyd.providers import openai_request as openai
from proxyd.providers import unparsed as unread
from proxyd.providers.base import CallTimeouts
from proxyd.providers.learned_quirks import MAX_FINDINGS_PER_CALL, LearnedQuirks, LearnedQuirkStore
from proxyd.proxy.active_call import ActiveCall
from proxyd.proxy.attempt_direct import DirectAttempt
from proxyd.proxy.attempt_translated import TranslatedAttempt
from proxyd.proxy.client_request import ClientRequest
from proxyd.proxy.client_response import ClientGone, ResponseWriter
from proxyd.proxy.retries import RetryBudget, delay_before_retry, may_fall_back
from proxyd.recording.recorder import is_kept
from proxyd.telemetry.batcher import Finished
from proxyd.telemetry.call_record import CallRecord, new_id
from proxyd.telemetry.call_trace import BEGUN, LEARNED, CallTrace
from proxyd.telemetry.token_calibration import Calibration
from proxyd.transport.client import UpstreamClient
from proxyd.transport.timers import Timers
from proxyd.urls import origin_of

__all__ = ["Relay"]

log = get_logger("relay")


class Relay:
    """Carries calls between clients and upstreams.

    Args:
        table: the routes in force; asked at the beginning of each call, so that a reload touches new calls only.
        demo_base: where the embedded upstream listens, or None.
        hooks: those in force, asked as `table` is.

    `finished` tells its observers of the calls that are over.
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
    ) -> None:
        self.settings = settings
        self.table = table
        self.hooks = hooks or HookSet()
        self.is_draining = False
        self._upstreams = upstreams
        self._demo_base = demo_base
        self.finished = Finished()
        self.is_traced = False  # calls that begin are: records may be kept of them
        self.calibration = calibration or Calibration()
        self._budget = RetryBudget()
        self._learned = LearnedQuirkStore()
        #: Routes whose upstream has reported tokens read from a cache or put there.
        self._caching: set[str] = set()
        self._calls: dict[str, ActiveCall] = {}
        self._timeouts_of: dict[str, CallTimeouts] = {}  # by model_id, for the configuration in force
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def active_calls(self) -> int:
        return len(self._calls)

    @property
    def records(self) -> list[CallRecord]:
        """The calls in flight, as far as they have come; the oldest first."""
        return [call.record for call in self._calls.values()]

    async def until_idle(self) -> None:
        """Return when no call is in flight."""
        await self._idle.wait()

    def swap(self, settings: Settings, table: RouteTable, hooks: HookSet | None = None) -> None:
        """Put another configuration in force, for calls that begin from now on."""
        before = self.hooks
        self.settings, self.table, self.hooks = settings, table, hooks or HookSet()
        self._timeouts_of = {}
        before.retire()

    def end_all(self, failure: ProxyError) -> None:
        """End every call in flight with `failure`."""
        for call in self._calls.values():
            call.failure = failure
            call.task.cancel()

    def cut_all(self) -> None:
        """Cut the connections of the calls that have not ended by themselves: their clients do not read."""
        for call in self._calls.values():
            call.downlink.abort()

    # -- one call

    async def serve(self, request: ClientRequest) -> web.StreamResponse:
        """Carry one call, with retries and fallbacks.

        Raises:
            ProxyError: the call failed and the client has been sent nothing.
        """
        record, settings = request.record, self.settings
        loop = asyncio.get_running_loop()
        task = asyncio.current_task(loop)
        assert task is not None, "a handler always runs in a task"
        deadlines = Timers(loop)
        downlink = ResponseWriter(
            request.web_request,
            deadlines,
            record,
            ping_s=settings.ping_s,
            write_stall_s=settings.write_stall_s,
            is_last=lambda: self.is_draining,
        )
        if self.is_traced:
            holds = settings, self.table, self.hooks
            record.trace = trace = CallTrace([(BEGUN, holds, len(request.body))])
            if settings.record_bodies:
                trace.keep_bodies(request.body)
        call = ActiveCall(request, downlink, deadlines, task, aborts=settings.on_midstream_error == "abort")
        if settings.log_bodies:
            call.log_bodies()
        try:
            self._admit()
            self._calls[record.request_id] = call
            self._idle.clear()
            return await self._serve(call)
        except ProxyError as exc:
            call.record_failure(exc, "refused")
            raise
        except ClientGone:
            record.outcome = "client_gone"
            return downlink.response
        except asyncio.CancelledError:
            if call.failure is None:
                record.outcome = "client_gone"
                raise
            call.record_failure(call.failure, "refused")
            raise call.failure from None
        except Exception as exc:
            failure = call.crash_of(exc)
            call.record_failure(failure, "refused")
            raise failure from None
        finally:
            self._end_retry(call)
            deadlines.close()
            await downlink.close()
            self._calls.pop(record.request_id, None)
            if not self._calls:
                self._idle.set()
            if not record.status and downlink.is_committed:
                record.status = downlink.status  # the client left before the end of it
            self._is_over(request)

    def _is_over(self, request: ClientRequest) -> None:
        """A call is over: learn from it, and have everybody told who remembers calls."""
        record = request.record
        record.ended = monotonic()
        record.add_up()
        trace = record.trace
        if trace is not None:
            if is_kept(record, self.settings.record):
                web_request = request.web_request
                trace.head = web_request.method, web_request.raw_path, web_request.headers
                trace.keys = request.keys
            else:  # what it holds is of use to the next call: memory that is still in the caches
                record.trace = None
        if record.estimated_input_tokens is not None:
            record.settle_now()
            self.calibration.observe(record)  # at once: the next call may be its conversation's
        # A direct call's usage is not read yet: `_direct` has looked for itself.
        if record.usage.cache_read_tokens or record.usage.cache_write_tokens:
            self._caching.add(record.route)
        self.finished.add(record, request.keys)

    def _admit(self) -> None:
        if self.is_draining:
            raise Overloaded("claude-proxy is shutting down", headers={"retry-after": "1"})
        if len(self._calls) >= self.settings.max_streams:
            raise Overloaded(
                f"claude-proxy has {len(self._calls)} calls in flight, its limit (max_streams)",
                headers={"retry-after": "1"},
            )

    def _admit_to(self, route: ModelRoute) -> None:
        limit = self.settings.max_streams_per_route
        # The call that asks is one of those that count.
        if limit and sum(call.record.route == route.model_id for call in self._calls.values()) > limit:
            raise Overloaded(
                f"model {route.model_id!r} has {limit} calls in flight, its limit (max_streams_per_route)",
                headers={"retry-after": "1"},
            )

    async def _serve(self, call: ActiveCall) -> web.StreamResponse:
        record = call.record
        route = self.table.resolve(call.request.model)
        assert route is not None, "the app has resolved the model"
        failure: ProxyError | None = None
        for candidate in (route, *self.table.fallbacks(route)):
            if not (call.request.is_message or candidate.direct):
                continue
            if failure is not None:
                log.warning(
                    "call.fallback",
                    request_id=record.request_id,
                    route=record.route,
                    to=candidate.model_id,
                    why=call.remembered(failure),
                )
                record.fallback_from = route.model_id
            # The client's key is for the upstream it has chosen (docs/spec/design.md#client-key); a chain may lead to
            # others.
            call.is_first_choice = origin_of(candidate.api_base) == origin_of(route.api_base)
            try:
                return await self._serve_by(candidate, call)
            except BadCredential as exc:
                if failure is None:
                    raise
                log.warning(
                    "call.fallback_without_key",
                    request_id=record.request_id,
                    route=candidate.model_id,
                    why=exc.message,
                )
            except ProxyError as exc:
                if not may_fall_back(exc):
                    raise
                errors.clear_tracebacks(exc)
                failure = exc
        assert failure is not None, "at least one route was tried"
        raise failure

    async def _serve_by(self, route: ModelRoute, call: ActiveCall) -> web.StreamResponse:
        record = call.record
        record.route, record.upstream_model = route.model_id, route.model_name
        record.mode = "direct" if route.direct else "translated"
        record.pricing = route.pricing
        await call.request.yield_to_loop()
        await self._check_window(route, call)
        attempt = self._direct if route.direct else self._translated
        self._admit_to(route)
        retry = 0
        while True:
            try:
                return await attempt(route, call)
            except ProxyError as exc:
                self._end_retry(call)
                delay_s = delay_before_retry(exc, retry, is_direct=route.direct)
                has_room = retry < self.settings.max_retries and self._budget.has_room(len(self._calls))
                if delay_s is None or not has_room:
                    raise
                log.warning(
                    "upstream.retry",
                    request_id=record.request_id,
                    route=route.model_id,
                    retry=retry + 1,
                    delay_s=round(delay_s, 2),
                    why=call.remembered(exc),
                )
                errors.clear_tracebacks(exc)
            retry += 1
            record.retries += 1
            call.is_retrying = True
            self._budget.take()
            await asyncio.sleep(delay_s)

    def _end_retry(self, call: ActiveCall) -> None:
        """The upstream has answered, one way or the other, or the call is over."""
        if call.is_retrying:
            call.is_retrying = False
            self._budget.give_back()

    async def _check_window(self, route: ModelRoute, call: ActiveCall) -> None:
        """Refuse a prompt that surely exceeds the window, with the message that makes Claude Code compact.

        An estimate may be far too high, so the upstream is asked unless a lower bound is above the window.

        Raises:
            Refused: it is too long.
        """
        record, window = call.record, route.max_input_tokens
        if not call.request.is_message or window is None:
            return  # a translation counts by itself
        estimate = record.estimated_input_tokens
        if estimate is None:
            estimate = estimate_input_tokens(call.request.payload, call.request.inputs)
            record.estimated_input_tokens = estimate
            record.estimated_tool_tokens = tools_tokens(call.request.payload.get("tools"))
        if estimate <= window:
            return
        least = await call.request.step_by_step(least_input_tokens(call.request.payload, window))
        if least > window:
            corrected = self.calibration.corrected(route.model_name, estimate, record.estimated_tool_tokens)
            message = overflow_message(Overflow(), window=window, estimated_input_tokens=corrected)
            raise Refused(message, status=400, kind="invalid_request_error")

    # -- translated

    async def _translated(self, route: ModelRoute, call: ActiveCall) -> web.StreamResponse:
        """Carry a call, and mend a request that the upstream refuses for a parameter it does not take."""
        lessons = self._learned.of(route)
        findings = 0
        while True:
            hooks = self.hooks.for_call(route, call.record.request_id, "translated")
            await call.request.yield_to_loop()
            prepared = await self._translate(lessons.applied_to(route), call)
            context = prepared.context
            self._learned.inform(context, route)
            await call.request.yield_to_loop()
            if call.record.trace is not None:
                call.record.trace.append((LEARNED, lessons))
            if call.request.payload.get("max_tokens") == 0:
                return await self._unasked(prepared, call)
            if hooks is not None and hooks.changes_requests:
                # Hooks may change what they are given in any depth, and tools are shared with other requests.
                body = dict(prepared.sent)
                if "tools" in body:
                    body["tools"] = copy.deepcopy(body["tools"])
                prepared = prepared.with_body(await hooks.on_request(body))
            prepared = prepared.written()
            await call.request.yield_to_loop()
            wants_stream = call.request.wants_stream
            attempt = TranslatedAttempt(
                prepared,
                self._upstreams,
                self.settings,
                call.deadlines,
                call.record,
                hooks if wants_stream else None,
                joins_deltas=wants_stream,
            )
            del prepared  # the exchange lets go of the body once it is accepted
            try:
                if wants_stream:
                    response = await self._streamed(attempt, call)
                else:
                    response = await self._collected(attempt, call, hooks)
            except TooLong as exc:
                self._keep_window(route, exc)
                raise
            except ProxyError as exc:
                if attempt.refused is None or findings == MAX_FINDINGS_PER_CALL:
                    raise
                more = lessons.after(*attempt.refused, attempt.sent, route)
                if more is None:
                    raise
                log.info(
                    "request.mended",
                    request_id=call.record.request_id,
                    route=route.model_id,
                    why=call.remembered(exc),
                    by=more.lines[-1],
                )
                self._keep(route, lessons)  # the upstream has gone on to the next thing that it does not take
                lessons = more
                findings += 1
                call.record.retries += 1
            else:
                if findings and attempt.refused is None:
                    self._keep(route, lessons)
                if call.record.outcome == "ok":
                    self._learned.keep_accepted(route, context.estimated_input_tokens)
                self._keep_window(route, attempt.answer.failure)
                return response
            finally:
                attempt.close()

    def _keep(self, route: ModelRoute, lessons: LearnedQuirks) -> None:
        self._log_learned(route, self._learned.keep(route, lessons))

    def _keep_window(self, route: ModelRoute, failure: BaseException | None) -> None:
        if isinstance(failure, TooLong) and failure.window is not None:
            self._log_learned(route, self._learned.keep_window(route, failure.window))

    @staticmethod
    def _log_learned(route: ModelRoute, lines: tuple[str, ...]) -> None:
        for line in lines:
            log.warning("route.learned", route=route.model_id, models_yaml=line)

    async def _unasked(self, prepared: openai.TranslatedCall, call: ActiveCall) -> web.StreamResponse:
        """``max_tokens: 0`` fills a prompt cache of Anthropic's; elsewhere a call would only cost.

        See docs/spec/messages-to-chat.md#max-tokens-zero.
        """
        record, events = call.record, prepared.nothing_said()
        record.stop_reason = "max_tokens"
        if not call.request.wants_stream:
            collector = MessageCollector()
            collector.add_all(events)
            return await call.answer(collector.message())
        record.outcome = "ok"
        record.on_first_byte()
        call.set_stream_head()
        return await call.finish(encode_events(events))

    async def _translate(self, route: ModelRoute, call: ActiveCall) -> openai.TranslatedCall:
        record = call.record
        tools = tools_tokens(call.request.payload.get("tools"))
        steps = openai.prepare(
            route,
            self._base_of(route),
            call.request.payload,
            call.keys,
            timeouts=self._timeouts(route),
            new_id=new_id,
            warn=lambda oddity: log.debug(oddity, request_id=record.request_id, route=route.model_id),
            max_body_bytes=self.settings.max_upstream_body_bytes,
            max_frame_bytes=self.settings.max_frame_bytes,
            session_id=record.session_id,
            corrected=lambda estimate: self.calibration.corrected(route.model_name, estimate, tools),
            inputs=call.request.inputs,
        )
        prepared = await call.request.step_by_step(steps)
        record.estimated_input_tokens, record.estimated_tool_tokens = prepared.input_tokens, tools
        for note in prepared.notes:
            log.debug(
                "request.altered", request_id=record.request_id, field=note.path, what=note.what, why=note.why
            )
        return prepared

    async def _streamed(self, attempt: TranslatedAttempt, call: ActiveCall) -> web.StreamResponse:
        record, downlink, answer = call.record, call.downlink, attempt.answer
        call.set_stream_head()
        elapsed_s = monotonic() - record.begun
        downlink.commit_after(
            max(0.001, self.settings.commit_s - elapsed_s), lambda: encode_events(attempt.start())
        )
        try:
            events = await attempt.open()
            await call.request.yield_to_loop()
            self._end_retry(call)
            call.request.let_go(is_cached=record.route in self._caching)
            while answer.failure is None:
                if events:
                    record.on_first_byte()
                if attempt.has_ended:
                    record.outcome = "ok"
                    attempt.close(is_complete=True)
                    return await call.finish(encode_events(events))
                if events:
                    # not both, for a client that does not read (docs/spec/operations.md#c6)
                    data, events = encode_events(events), []
                    await downlink.write(data)
                    del data
                events = await attempt.read(downlink)
            return await call.end(answer.failure, events)
        except ClientGone:
            raise
        except Exception as exc:
            if not downlink.is_committed:
                raise
            failure = call.crash_of(exc)
            return await call.end(failure, attempt.fail(failure))
        except asyncio.CancelledError:
            if call.failure is None or not downlink.is_committed:
                raise
            return await call.end(call.failure, attempt.fail(call.failure))
        finally:
            downlink.stay_uncommitted()

    async def _collected(
        self, attempt: TranslatedAttempt, call: ActiveCall, hooks: CallHooks | None
    ) -> web.StreamResponse:
        answer, collector = attempt.answer, MessageCollector()
        events = await attempt.open()
        while True:
            collector.add_all(events)
            if answer.has_ended:
                break
            events = await attempt.read()
        if answer.failure is not None:
            raise answer.failure
        attempt.close(is_complete=True)
        message = collector.message()
        if hooks is not None and hooks.changes_bodies:
            message = await hooks.on_response(message)
        return await call.answer(message)

    # -- direct

    async def _direct(self, route: ModelRoute, call: ActiveCall) -> web.StreamResponse:
        request, record, downlink = call.request, call.record, call.downlink
        body, payload = request.body, None
        if request.seen is not None and unread.takes_all(route):
            body = unread.with_model(body, request.seen, route.model_name)
        else:
            payload = request.payload
        path, query = request.target
        upstream_request = direct.prepare(
            route,
            path=path,
            query=query,
            headers=request.web_request.headers,
            body=body,
            payload=payload,
            keys=call.keys,
            timeouts=self._timeouts(route),
            method=request.web_request.method,
            is_first=call.is_first_choice,
            forwarded=self.settings.forward_headers,
        )
        hooks = self.hooks.for_call(route, record.request_id, "direct")
        if hooks is not None and hooks.changes_requests and upstream_request.body:
            sent = jsonio.loads(upstream_request.body, is_ours=True)
            changed = await hooks.on_request(sent)
            if changed is not sent:  # else the client's own bytes go on
                upstream_request = replace(upstream_request, body=jsonio.dumps(changed))
        del body, payload  # what this name holds would live as long as the stream
        attempt = DirectAttempt(
            upstream_request,
            self._upstreams,
            self.settings,
            call.deadlines,
            record,
            hooks,
            call.keys.all,
        )
        del upstream_request
        try:
            data = await attempt.open()
            await call.request.yield_to_loop()
            self._end_retry(call)
            call.request.let_go(is_cached=attempt.reports_cache or record.route in self._caching)
            theirs = {name.lower() for name, _ in attempt.headers}
            ours = [each for each in call.own_headers if each[0] not in theirs]
            downlink.set_head(
                attempt.status,
                [*ours, *attempt.headers],
                is_stream=attempt.is_stream,
            )
            while attempt.failure is None:
                record.on_first_byte()
                if attempt.has_ended:
                    record.outcome = "ok"
                    attempt.close(is_complete=True)
                    return await call.finish(data)
                if attempt.has_last_event:
                    downlink.stay_silent()
                if data or not downlink.is_committed:
                    await downlink.write(data)
                data = await attempt.read(downlink)
            return await call.end(attempt.failure, [ErrorEvent(errors.envelope(attempt.failure))])
        except ClientGone:
            raise
        except Exception as exc:
            if not downlink.is_committed:
                raise
            return await self._end_direct(call, attempt, call.crash_of(exc))
        except asyncio.CancelledError:
            if call.failure is None or not downlink.is_committed:
                raise
            return await self._end_direct(call, attempt, call.failure)
        finally:
            if attempt.reports_cache:
                self._caching.add(record.route)
            attempt.close()

    @staticmethod
    async def _end_direct(
        call: ActiveCall, attempt: DirectAttempt, failure: ProxyError
    ) -> web.StreamResponse:
        if attempt.has_last_event:  # what is missing is only the end of the body
            call.record.outcome = "ok"
            return await call.finish()
        if attempt.is_stream:
            return await call.end(failure, [ErrorEvent(errors.envelope(failure))])
        return call.cut(failure)  # the body of an answer that is no stream broke

    # -- small parts

    def _base_of(self, route: ModelRoute) -> str:
        if not route.is_demo:
            return route.api_base
        if self._demo_base is None:
            raise Overloaded("the embedded demo upstream is not running")
        return self._demo_base

    def _timeouts(self, route: ModelRoute) -> CallTimeouts:
        timeouts = self._timeouts_of.get(route.model_id)
        if timeouts is None:

            def of(name: str) -> float:
                own = getattr(route.timeouts, name)
                return float(getattr(self.settings, name) if own is None else own)

            timeouts = CallTimeouts(of("connect_s"), of("first_byte_s"), of("idle_s"), of("total_s"))
            self._timeouts_of[route.model_id] = timeouts
        return timeouts
