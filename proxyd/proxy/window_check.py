"""Refuse a prompt that is surely above the model's window before it is sent."""

from __future__ import annotations

from proxyd.codecs.translation.token_estimate import estimate_input_tokens, tools_tokens
from proxyd.codecs.translation.token_lower_bound import least_input_tokens
from proxyd.codecs.upstream_errors.context_overflow import Overflow, overflow_message
from proxyd.config.routes import ModelRoute
from proxyd.errors import Refused
from proxyd.proxy.active_call import ActiveCall
from proxyd.telemetry.token_calibration import Calibration

__all__ = ["check_window"]


async def check_window(route: ModelRoute, call: ActiveCall, calibration: Calibration) -> None:
    """Check that a prompt is not surely above the model's window.

    An estimate may be far too high, so the upstream is asked unless a lower bound is above the window.

    Raises:
        Refused: it is; the message is one upon which Claude Code compacts.
    """
    record, window = call.record, route.max_input_tokens
    if not call.request.is_message or window is None:
        return  # a translation counts by itself
    estimate = record.estimated_input_tokens
    if estimate is None:
        payload = call.request.payload
        estimate = await call.request.run(estimate_input_tokens, payload, call.request.inputs)
        record.estimated_input_tokens = estimate
        record.estimated_tool_tokens = await call.request.run(tools_tokens, payload.get("tools"))
    if estimate <= window:
        return
    least = await call.request.run_steps(least_input_tokens(call.request.payload, window))
    if least > window:
        corrected = calibration.corrected(route.model_name, estimate, record.estimated_tool_tokens)
        message = overflow_message(Overflow(), window=window, estimated_input_tokens=corrected)
        raise Refused(message, status=400, kind="invalid_request_error")
