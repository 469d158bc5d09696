"""Carry attempts at upstreams of translated routes (see `proxyd.proxy.driver`)."""

from __future__ import annotations

import copy
from time import time

from aiohttp import web

from proxyd import errors
from proxyd.codecs.translation.token_estimate import tools_tokens
from proxyd.codecs.upstream_errors.output_minimum import is_too_few_tokens
from proxyd.config.routes import ModelRoute
from proxyd.errors import ProxyError, Refused, TooLong
from proxyd.logs.setup import get_logger
from proxyd.providers import translated_request as translated
from proxyd.providers.learned_quirks import CallKind, LearnedQuirks
from proxyd.providers.refused_data import refuses_signed_data
from proxyd.providers.registry import format_for
from proxyd.providers.upstream_search import UpstreamSearch, searching_route
from proxyd.proxy.active_call import ActiveCall
from proxyd.proxy.attempt_translated import TranslatedAttempt
from proxyd.proxy.driver import CallResources, Driver
from proxyd.proxy.image_descriptions import ImageDescriptions
from proxyd.proxy.local_response import at_once, respond_locally
from proxyd.proxy.pdf_pages import PdfPages
from proxyd.proxy.run_attempt import run_attempt
from proxyd.server_tools.context_edits import Edited, apply_edits
from proxyd.telemetry.call_record import new_id

__all__ = ["TranslatedDriver"]

log = get_logger("relay")


class TranslatedDriver(Driver):
    """Translates requests and responses, and remembers which parameters an upstream refuses."""

    def __init__(self, resources: CallResources, images: ImageDescriptions) -> None:
        super().__init__(resources)
        self._images = images
        self._pdfs = PdfPages(images)
        self._learned = resources.learned.store

    async def run(self, route: ModelRoute, call: ActiveCall) -> web.StreamResponse:
        """Make one attempt, and further ones without the parameters that the upstream refuses.

        Raises:
            ProxyError: the attempt failed and the client has been sent nothing.
        """
        kind = CallKind.of(call.request.payload)
        quirks = self._learned.of(route, kind, time())
        while True:
            hooks = self._resources.hooks.for_call(route, call.record.request_id, "translated")
            await call.request.yield_to_loop()
            prepared = await self._translate(quirks.applied_to(route), call)
            known, context = prepared.response, prepared.context
            self._learned.sizes.inform(context, route, time())
            await call.request.yield_to_loop()
            if call.record.trace is not None:
                call.record.trace.on_learned(quirks)
            if call.request.payload.get("max_tokens") == 0:
                # It fills a prompt cache at Anthropic, and only costs money elsewhere.
                return await respond_locally(
                    call, at_once(translated.empty_response(prepared.response, new_id))
                )
            if hooks is not None and hooks.changes_requests:
                # Hooks may change what they are given in any depth, and tools are shared with other requests.
                body = dict(prepared.sent)
                if "tools" in body:
                    body["tools"] = await call.request.run(copy.deepcopy, body["tools"])
                prepared = prepared.with_body(await hooks.on_request(body))
            prepared = await call.request.run(prepared.written, in_pieces=call.request.is_large)
            await call.request.yield_to_loop()
            attempt = TranslatedAttempt(
                prepared,
                self._resources.upstreams,
                self._settings,
                call,
                hooks,
                self._resources.finisher_for(route, call),
            )
            del prepared  # the attempt releases the body once it is accepted
            try:
                response = await run_attempt(attempt, call, self._resources)
            except TooLong as exc:
                self._remember_window(route, exc)
                raise
            except ProxyError as exc:
                if attempt.refused is None:
                    raise
                if is_too_few_tokens(*attempt.refused, call.request.payload.get("max_tokens")):
                    errors.clear_tracebacks(exc)
                    return await respond_locally(call, at_once(translated.empty_response(known, new_id)))
                refused = self._unreadable_data(attempt, route)
                if refused:
                    self._learned.refused_data.add(refused)
                    log.info(
                        "request.retried_without_reasoning",
                        request_id=call.record.request_id,
                        route=route.model_id,
                        why=call.log_message(exc),
                    )
                    call.record.retries += 1
                    continue
                more = quirks.after(*attempt.refused, attempt.sent, route)
                if more is None:
                    self._remember(route, kind, quirks, attempt.refused[1])
                    raise
                log.info(
                    "request.retried_without_param",
                    request_id=call.record.request_id,
                    route=route.model_id,
                    why=call.log_message(exc),
                    by=more.lines[-1],
                )
                quirks = more
                call.record.retries += 1
            else:
                if attempt.refused is None:
                    self._remember(route, kind, quirks)
                if call.record.outcome == "ok":
                    self._remember_accepted(route, context.estimated_input_tokens)
                self._remember_window(route, attempt.decoder.failure)
                return response

    def _unreadable_data(self, attempt: TranslatedAttempt, route: ModelRoute) -> list[str]:
        """Return the signed data of earlier turns in a request, if the upstream refused it because of them."""
        if attempt.refused is None or not refuses_signed_data(attempt.refused[1]):
            return []
        known = self._learned.refused_data
        return [data for data in format_for(route)[0].signed_data(attempt.sent) if data not in known]

    async def _translate(self, route: ModelRoute, call: ActiveCall) -> translated.TranslatedCall:
        record, settings = call.record, self._settings
        calibration = self._resources.calibration
        if call.search is not None:
            route = _searching(route, call.search)
        edited = Edited(call.request.payload, [], ())
        if settings.context_edits:
            edited = await call.request.run(apply_edits, call.request.payload, call.request.inputs)
        payload, pdf_notes = await self._pdfs.shown_to(route, call, edited.payload)
        payload, notes = await self._images.shown_to(route, call, payload)
        tools = await call.request.run(tools_tokens, call.request.payload.get("tools"))
        steps = translated.prepare(
            route,
            self._resources.base_of(route),
            payload,
            call.keys,
            timeouts=self._resources.timeouts_of(route),
            new_id=new_id,
            warn=lambda oddity: log.debug(oddity, request_id=record.request_id, route=route.model_id),
            max_body_bytes=settings.max_upstream_body_bytes,
            max_frame_bytes=settings.max_frame_bytes,
            session_id=record.session_id,
            corrected=lambda estimate: calibration.corrected(route.model_name, estimate, tools),
            inputs=call.request.inputs,
            is_refused=self._learned.refused_data.__contains__,
            applied_edits=edited.applied,
            citations=None if call.search is None else call.search.citations,
            retries_empty=record.retries == 0 and settings.max_retries > 0,
        )
        prepared = await call.request.run_steps(steps)
        record.estimated_input_tokens, record.estimated_tool_tokens = prepared.input_tokens, tools
        record.alterations = (*edited.notes, *pdf_notes, *notes, *prepared.notes)
        for note in record.alterations:
            log.debug(
                "request.altered", request_id=record.request_id, field=note.path, what=note.what, why=note.why
            )
        return prepared

    def _remember(
        self, route: ModelRoute, kind: CallKind, quirks: LearnedQuirks, refusal: bytes | None = None
    ) -> None:
        """Keep the quirks that helped; `refusal` is the last one of a call that failed."""
        if quirks.steps:
            self._log_learned(route, self._learned.keep(route, kind, quirks.to_keep(refusal), time()))
            self._resources.learned.save()

    def _remember_window(self, route: ModelRoute, failure: BaseException | None) -> None:
        if isinstance(failure, TooLong) and failure.window is not None:
            self._log_learned(route, self._learned.sizes.keep_window(route, failure.window, time()))
            self._resources.learned.save()

    def _remember_accepted(self, route: ModelRoute, estimate: int | None) -> None:
        if self._learned.sizes.keep_accepted(route, estimate, time()):
            self._resources.learned.save()

    @staticmethod
    def _log_learned(route: ModelRoute, lines: tuple[str, ...]) -> None:
        for line in lines:
            log.warning("route.learned", route=route.model_id, models_yaml=line)


def _searching(route: ModelRoute, search: UpstreamSearch) -> ModelRoute:
    """Return a route whose requests ask its upstream to search the web.

    Raises:
        Refused: it is not known how.
    """
    searching = searching_route(route, search)
    if searching is None:
        message = f"model {route.model_id!r} is served by an upstream that is not known to search the web"
        raise Refused(message, status=400, kind="invalid_request_error")
    return searching
