"""Rules that turn a refusal of an upstream into a quirk of the route.

Vendors and models differ in parameters, and new models appear faster than profiles. When an upstream refuses a
request and names one thing in it that it does not take, `change_for_error` returns the field of `Dialect` that
leaves it out. The caller translates the request again and retries; the quirk is kept only if that succeeds.

Each rule reads the refusal and the body that was sent: a parameter that was not sent cannot be the cause. `_RULES` are
tried in order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from proxyd.codecs.upstream_errors.context_overflow import find_output_limit, find_overflow
from proxyd.providers import message_rules, parameter_rules, thinking_rules, tool_rules
from proxyd.providers.refusals import QuirkChange, Refusal, read_refusal

__all__ = ["change_for_error", "output_limit_for"]

#: Rules about capabilities precede rules about parameters: texts about images also name `messages`.
_RULES: tuple[Callable[[Refusal], QuirkChange | None], ...] = (
    message_rules.parts,
    message_rules.roles,
    message_rules.single_calls,
    thinking_rules.value_to_send,
    thinking_rules.reasoning_history,
    thinking_rules.signed_data,
    tool_rules.tool_ids,
    tool_rules.tool_names,
    tool_rules.descriptions,
    tool_rules.declared_tools,
    message_rules.tool_message_names,
    tool_rules.tool_count,
    tool_rules.tool_choice,
    parameter_rules.response_format,
    tool_rules.schemas,
    message_rules.empty_content,
    thinking_rules.budget,
    parameter_rules.output_limit_name,
    parameter_rules.switch,
    thinking_rules.effort,
    thinking_rules.thinking,
    parameter_rules.sampling,
    parameter_rules.stop,
    parameter_rules.stream,
    message_rules.cache_control,
)


def change_for_error(
    status: int, body: bytes, sent: Mapping[str, Any], known: Mapping[str, Any] | None = None
) -> QuirkChange | None:
    """Return the quirk that avoids a refusal.

    Args:
        status: the upstream's.
        body: the upstream's response.
        sent: the body of the request as it was sent.
        known: quirks that were learned before and were in force for it.

    Returns:
        None when the cause is not recognized, or the prompt is too long.
    """
    refusal = read_refusal(status, body, sent, known or {})
    if refusal is None or find_overflow(refusal.text) or find_output_limit(refusal.text):
        return None
    return next((change for rule in _RULES if (change := rule(refusal)) is not None), None)


def output_limit_for(status: int, body: bytes, sent: Mapping[str, Any]) -> int | None:
    """Return the model's output limit from the refusal of a request that exceeded it.

    It belongs to the entry's ``max_tokens`` in models.yaml and is no quirk: the limit is the model's, not the
    dialect's.
    """
    refusal = read_refusal(status, body, sent, {})
    if refusal is None or refusal.status not in (400, 422) or find_overflow(refusal.text):
        return None
    found = find_output_limit(refusal.text)
    asked = sent.get("max_tokens", sent.get("max_completion_tokens"))
    if found is None or not isinstance(asked, int) or asked <= found.limit:
        return None
    return found.limit
