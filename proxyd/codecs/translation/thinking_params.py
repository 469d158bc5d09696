"""Translate whether and how much to think (docs/spec/messages-to-chat.md#thinking)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from proxyd.codecs.translation.dialect import Dialect
from proxyd.codecs.translation.translation_notes import Notes

__all__ = ["LEVELS", "Thinking", "requested_thinking", "write_thinking"]

#: Efforts from least to most. ``none`` and, in models.yaml, ``minimal`` mean no thinking
#: (docs/spec/design.md#effort).
LEVELS = ("minimal", "low", "medium", "high", "xhigh", "max")

#: Budgets in tokens from which an effort follows, the same steps that other gateways document
#: (docs/spec/messages-to-chat.md#budgets).
_MEDIUM_FROM, _HIGH_FROM = 4096, 16384


@dataclass(slots=True)
class Thinking:
    """The requested thinking.

    Args:
        is_on: None where neither client nor configuration decide.
        effort: one of `LEVELS`, or None to leave it to the upstream.
        budget: in tokens, where the client gave one.
    """

    is_on: bool | None = None
    effort: str | None = None
    budget: int | None = None


def requested_thinking(
    payload: dict[str, Any], configured: str | None, dialect: Dialect, notes: Notes
) -> Thinking:
    """Determine the requested thinking: models.yaml, then ``thinking``, then ``output_config.effort``.

    Effort alone never switches thinking on: as with Anthropic, a request without ``thinking`` asks for none.

    Args:
        configured: ``reasoning_effort`` of models.yaml, in which routes of one upstream model may differ.
    """
    if configured is not None:
        if configured in ("none", "minimal"):
            return Thinking(is_on=False)
        return Thinking(is_on=True, effort=configured)
    thinking = payload.get("thinking")
    kind = thinking.get("type") if isinstance(thinking, dict) else None
    output_config = payload.get("output_config")
    effort = output_config.get("effort") if isinstance(output_config, dict) else None
    if effort not in LEVELS:
        effort = None
    if not dialect.client_effort:
        if kind or effort:
            notes.add(
                "thinking, output_config.effort", "dropped", "only models.yaml decides for this upstream"
            )
        return Thinking()
    if thinking is None:
        # Claude Code keeps the effort when the user switches thinking off, and in its side calls.
        has_switch = dialect.thinking_path is not None and dialect.thinking_off is not None
        is_off = effort is not None or (dialect.thinks_by_default and has_switch)
        return Thinking(is_on=False if is_off else None)
    if kind in ("disabled", "between_tools"):
        return Thinking(is_on=False)
    budget = thinking.get("budget_tokens") if isinstance(thinking, dict) and kind == "enabled" else None
    if type(budget) is not int or budget <= 0:
        budget = None
    if effort is None and budget is not None:
        effort = "low" if budget < _MEDIUM_FROM else "medium" if budget < _HIGH_FROM else "high"
    is_on = True if effort or kind in ("enabled", "adaptive") else None
    return Thinking(is_on=is_on, effort=effort, budget=budget)


def write_thinking(wanted: Thinking, dialect: Dialect, body: dict[str, Any], notes: Notes) -> bool:
    """Write the request for thinking into the upstream body.

    Returns:
        Whether the model will probably think.
    """
    if wanted.is_on is None:
        return dialect.thinks_by_default
    if not wanted.is_on:
        return _write_off(dialect, body, notes)
    is_requested = False
    if dialect.thinking_path is not None and dialect.thinking_on is not None:
        put(body, dialect.thinking_path, dialect.thinking_on)
        is_requested = True
    if wanted.effort is not None and dialect.effort_path is not None:
        level = _nearest(wanted.effort, dialect)
        if level is not None:
            put(body, dialect.effort_path, level)
            is_requested = True
    if wanted.budget is not None and dialect.budget_path is not None:
        low, high = dialect.budget_range
        put(body, dialect.budget_path, min(max(wanted.budget, low), high))
        is_requested = True
    if not is_requested and wanted.effort is not None:
        notes.add("thinking, output_config.effort", "dropped", "the upstream has no control for it")
    return is_requested or dialect.thinks_by_default


def _write_off(dialect: Dialect, body: dict[str, Any], notes: Notes) -> bool:
    if dialect.thinking_path is not None and dialect.thinking_off is not None:
        put(body, dialect.thinking_path, dialect.thinking_off)
        return False
    if dialect.effort_path is None or not dialect.efforts:
        notes.add("thinking", "not switched off", "the upstream has no such switch")
        return dialect.thinks_by_default
    if "none" in dialect.efforts:
        put(body, dialect.effort_path, dialect.efforts["none"])
        return False
    # A model whose efforts do not include "none" always thinks.
    put(body, dialect.effort_path, _nearest(LEVELS[0], dialect))
    notes.add("thinking", "lowered to the least effort", "the upstream cannot switch it off")
    return True


def _nearest(effort: str, dialect: Dialect) -> str | None:
    """Return the upstream's name of `effort`, of the next lower level that it has, or else of the next higher."""
    position = LEVELS.index(effort)
    for level in (*reversed(LEVELS[: position + 1]), *LEVELS[position + 1 :]):
        if level in dialect.efforts:
            return dialect.efforts[level]
    return None


def put(body: dict[str, Any], path: str, value: Any) -> None:
    """Set the field at a dotted path, creating the objects on the path."""
    *parents, name = path.split(".")
    for parent in parents:
        child = body.get(parent)
        if not isinstance(child, dict):
            child = body[parent] = {}
        body = child
    # The value may be an object of the dialect, which all requests share.
    body[name] = dict(value) if isinstance(value, Mapping) else value
