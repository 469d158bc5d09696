"""Auto mode's safety check of responses: asks the classifier of the entry and adds its verdicts to the message.

See `proxyd.server_tools.auto_mode` for what is asked, and docs/spec/hints-and-modes.md#auto-mode.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from proxyd.config.auto_mode import AutoMode
from proxyd.config.routes import ModelRoute, RouteTable
from proxyd.config.settings import Settings
from proxyd.errors import ProxyError, TimedOut, TooLong, error_response
from proxyd.logs.setup import get_logger
from proxyd.providers.registry import profile_for
from proxyd.proxy.active_call import ActiveCall, Finisher
from proxyd.proxy.inner_call import VerdictWatch
from proxyd.proxy.on_behalf import InnerCall, credentials_for
from proxyd.server_tools.auto_mode.calls import calls_in
from proxyd.server_tools.auto_mode.conversation import Conversation
from proxyd.server_tools.auto_mode.memory import Memory
from proxyd.server_tools.auto_mode.review import Review
from proxyd.server_tools.auto_mode.safeguards import (
    RESULTS,
    UNSUPPORTED,
    classifier_context,
    summary_of,
    unavailable,
)

__all__ = ["AutoModeChecks"]

log = get_logger("auto_mode")


class AutoModeChecks:
    """Gives each call that asks for the check a finisher.

    Args:
        make_call: makes a call and returns the whole message.
        in_force: returns settings and routes.
    """

    def __init__(
        self,
        make_call: Callable[[InnerCall], Awaitable[dict[str, Any]]],
        in_force: Callable[[], tuple[Settings, RouteTable]],
    ) -> None:
        self._make_call = make_call
        self._in_force = in_force
        self._memory = Memory()

    def finisher_for(self, route: ModelRoute, call: ActiveCall) -> Finisher | None:
        """Return what adds the results to the end of the message, or None where the request asks for none.

        A direct route without a classifier of its own passes its upstream's response on, as one to Anthropic does.
        """
        settings, table = self._in_force()
        mode = AutoMode.of(
            settings.auto_mode,
            settings.auto_mode_rules,
            route.auto_mode,
            route.auto_mode_rules,
            is_direct=route.direct,
        )
        if not call.request.is_message or (route.direct and (not mode.classifier or _is_anthropic(route))):
            return None
        context = classifier_context(call.request.payload)
        if context is None:
            return None
        judge = table.resolve(mode.classifier) if mode.classifier else None
        record = call.record
        if judge is None:

            async def unsupported(message: dict[str, Any]) -> dict[str, Any]:
                record.safeguards = summary_of(UNSUPPORTED)
                return {RESULTS: UNSUPPORTED}

            return unsupported
        conversation = Conversation(
            context,
            call.request.payload.get("messages"),
            self._memory.of(record.session_id),
            is_subagent=record.agent_id is not None or record.kind == "subagent",
        )
        keys, headers = credentials_for(judge, table.resolve(call.request.model) or route, call.request)

        async def check(message: dict[str, Any]) -> dict[str, Any]:
            if RESULTS in message:  # the upstream has checked
                return {}
            review = Review(
                conversation,
                calls_in(message.get("content")),
                classifier=mode.classifier,
                rules=mode.rules,
                is_cut=message.get("stop_reason") == "max_tokens",
            )
            try:
                payload = review.request(takes_schema=not judge.direct)
                answer = None
                if payload is not None:
                    inner = InnerCall(
                        payload, "auto_mode", record, keys, headers, mode.timeout_s, VerdictWatch()
                    )
                    answer = await self._make_call(inner)
                results = review.results(answer)
            except ProxyError as exc:
                reason = _reason_of(exc)
                results = review.results_without(reason)
                log.warning(
                    "auto_mode.no_verdict",
                    request_id=record.request_id,
                    route=record.route,
                    classifier=mode.classifier,
                    reason=reason,
                )
            except Exception:
                log.exception("auto_mode.crashed", request_id=record.request_id, classifier=mode.classifier)
                results = unavailable("error")
            record.safeguards = summary_of(results) or None
            return {RESULTS: results}

        return check


def _is_anthropic(route: ModelRoute) -> bool:
    return profile_for(route.api_base, None).name == "anthropic"


def _reason_of(exc: ProxyError) -> str:
    """Return why there is no verdict, in the words of the results."""
    status, kind = error_response(exc)
    if isinstance(exc, TooLong) or status == 413:
        return "input_too_long"
    if isinstance(exc, TimedOut):
        return "timeout"
    return "rate_limited" if status in (429, 529) or kind == "rate_limit_error" else "error"
