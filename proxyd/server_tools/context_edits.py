"""The edits of ``context_management`` that Anthropic's servers make to a conversation before the model reads it:
old results of tools and old thinking are cleared (docs/spec/messages-api.md#context-edits).

A request tells nothing of the calls before it, but the conversation does: each turn of the user was the end of a call.
So the edits are decided turn by turn from the beginning. What a call has cleared stays cleared in all later ones, and
something is cleared only when the edited prompt has again grown beyond the trigger, and then enough of it. Between two
such moments the prompt begins with the one of the call before, and the upstream's prompt cache keeps working.

Nothing that the user has said is cleared: results of tools that ask the user, and failed ones, which hold what the
user answered when refusing an action, stay. A cleared result keeps its place and its id.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from proxyd.codecs.cache.tool_inputs import ToolInputs
from proxyd.codecs.translation.token_estimate import (
    TOKENS_PER_MESSAGE,
    block_tokens,
    content_tokens,
    text_tokens,
    tools_tokens,
)
from proxyd.codecs.translation.translation_notes import Note

__all__ = ["CLEARED", "Edited", "apply_edits"]

CLEAR_TOOL_USES, CLEAR_THINKING = "clear_tool_uses_20250919", "clear_thinking_20251015"
#: What stands in place of a cleared result.
CLEARED = "[This result was cleared to keep the conversation short. Call the tool again if it is needed.]"
#: Defaults of the API: input tokens, and tool uses that are kept.
_TRIGGER, _KEEP = 100_000, 3
#: Least part of the trigger that is cleared at once: each clearing costs the upstream's cache of all that follows it.
_LEAST_SHARE = 20
#: Tools whose results are the user's words.
_ASKING = frozenset({"AskUserQuestion", "ExitPlanMode"})
_THINKING = frozenset({"thinking", "redacted_thinking"})
#: Input of a cleared call. One object for all, since serialised inputs are cached by identity (`ToolInputs`).
_NO_INPUT: dict[str, Any] = {}


class Edited(NamedTuple):
    """A request after its edits.

    Attributes:
        payload: the request; the same object if nothing was edited.
        applied: the ``applied_edits`` of the response.
        notes: what was cleared, for the trace.
    """

    payload: dict[str, Any]
    applied: list[dict[str, Any]]
    notes: tuple[Note, ...]


@dataclass(frozen=True, slots=True)
class _ToolEdit:
    """A clear_tool_uses edit.

    Attributes:
        tokens: input tokens above which something is cleared; None if `uses` decides.
        uses: number of tool uses above which something is cleared.
        least: least tokens that are cleared at once.
        inputs: tools whose inputs are cleared, too; None for all.
    """

    tokens: int | None
    uses: int
    keep: int
    least: int
    excluded: frozenset[str]
    inputs: frozenset[str] | None


@dataclass(slots=True)
class _Use:
    """A tool use with its result: where both are, and what clearing them saves."""

    call: tuple[int, int]
    result: tuple[int, int]
    is_clearable: bool
    clears_input: bool
    saved: int


@dataclass(slots=True)
class _Turn:
    """A turn of the assistant, up to the user's next words: where its thinking is, and how large it is."""

    thinking: list[tuple[int, int]] = field(default_factory=list)
    tokens: int = 0


def apply_edits(payload: dict[str, Any], inputs: ToolInputs) -> Edited:
    """Make the edits that a request asks for and that are known here; the others stay in its ``context_management``.

    Args:
        inputs: keeps serialised tool inputs for the translation.
    """
    config = payload.get("context_management")
    edits = config.get("edits") if isinstance(config, dict) else None
    messages = payload.get("messages")
    if not isinstance(edits, list) or not isinstance(messages, list):
        return Edited(payload, [], ())
    known = {
        edit["type"]: edit
        for edit in reversed(edits)
        if isinstance(edit, dict) and edit.get("type") in (CLEAR_TOOL_USES, CLEAR_THINKING)
    }
    if not known:
        return Edited(payload, [], ())
    rest = [edit for edit in edits if not (isinstance(edit, dict) and edit.get("type") in known)]
    changed = {name: value for name, value in payload.items() if name != "context_management"}
    if rest:
        changed["context_management"] = {"edits": rest}
    tools = _tool_edit(known[CLEAR_TOOL_USES]) if CLEAR_TOOL_USES in known else None
    turns = _kept_turns(known[CLEAR_THINKING]) if CLEAR_THINKING in known else None
    if tools is None and turns is None:
        return Edited(changed, [], ())
    clearing = _Clearing(payload, tools, turns, inputs)
    clearing.walk(messages)
    changed["messages"] = clearing.edited(messages)
    return Edited(changed, *clearing.report())


class _Clearing:
    """Decides what is cleared, turn by turn.

    Args:
        kept_turns: turns whose thinking is kept; None for all.
    """

    def __init__(
        self, payload: dict[str, Any], tools: _ToolEdit | None, kept_turns: int | None, inputs: ToolInputs
    ) -> None:
        self._tools = tools
        self._kept_turns = kept_turns
        self._inputs = inputs
        self._tokens = content_tokens(payload.get("system"), inputs) + tools_tokens(payload.get("tools"))
        #: Calls without a result: id -> place, name and tokens of the input.
        self._calls: dict[str, tuple[tuple[int, int], str, int]] = {}
        self._uses: list[_Use] = []  # not cleared
        self._turns: list[_Turn] = []  # with thinking that is not cleared
        self._turn = _Turn()
        self._cleared_uses: list[_Use] = []
        self._cleared_turns: list[_Turn] = []

    def walk(self, messages: list[Any]) -> None:
        for number, message in enumerate(messages):
            self._tokens += TOKENS_PER_MESSAGE
            if not isinstance(message, dict):
                continue
            content, is_assistant = message.get("content"), message.get("role") == "assistant"
            if isinstance(content, list):
                for position, block in enumerate(content):
                    if isinstance(block, dict):
                        self._add((number, position), block, is_assistant=is_assistant)
            else:
                self._tokens += content_tokens(content, self._inputs)
            if is_assistant:
                continue
            if message.get("role") == "user" and not _has_result(content):
                self._turn = _Turn()
            following = messages[number + 1] if number + 1 < len(messages) else None
            if following is None or (isinstance(following, dict) and following.get("role") == "assistant"):
                self._clear()

    def _add(self, place: tuple[int, int], block: dict[str, Any], *, is_assistant: bool) -> None:
        kind, tokens = block.get("type"), block_tokens(block, self._inputs)
        self._tokens += tokens
        if is_assistant and kind in _THINKING:
            if not self._turn.thinking:
                self._turns.append(self._turn)
            self._turn.thinking.append(place)
            self._turn.tokens += tokens
        elif is_assistant and kind == "tool_use":
            self._calls[str(block.get("id"))] = (place, str(block.get("name")), tokens)
        elif not is_assistant and kind == "tool_result":
            call = self._calls.pop(str(block.get("tool_use_id")), None)
            if call is not None and self._tools is not None:
                self._uses.append(self._use(self._tools, call, place, block, tokens))

    def _use(
        self,
        edit: _ToolEdit,
        call: tuple[tuple[int, int], str, int],
        place: tuple[int, int],
        block: dict[str, Any],
        tokens: int,
    ) -> _Use:
        call_place, name, call_tokens = call
        saved = tokens - TOKENS_PER_MESSAGE - text_tokens(CLEARED)
        clears_input = edit.inputs is None or name in edit.inputs
        if clears_input:
            saved += call_tokens - TOKENS_PER_MESSAGE - text_tokens(name) - 1
        is_users = name in _ASKING or block.get("is_error") is True
        is_clearable = saved > 0 and not is_users and name not in edit.excluded
        return _Use(call_place, place, is_clearable, clears_input, saved)

    def _clear(self) -> None:
        """Clear what is to be cleared at the end of a turn of the user, where a call was made."""
        if self._kept_turns is not None and len(self._turns) > self._kept_turns:
            old = self._turns[: -self._kept_turns]
            self._turns = self._turns[-self._kept_turns :]
            self._tokens -= sum(turn.tokens for turn in old)
            self._cleared_turns += old
        edit = self._tools
        if edit is None:
            return
        is_beyond = self._tokens > edit.tokens if edit.tokens is not None else len(self._uses) > edit.uses
        if not is_beyond:
            return
        old_uses = self._uses[: len(self._uses) - edit.keep] if edit.keep < len(self._uses) else []
        clearable = [use for use in old_uses if use.is_clearable]
        saved = sum(use.saved for use in clearable)
        if not clearable or saved < edit.least:
            return
        self._uses = [use for use in old_uses if not use.is_clearable] + self._uses[len(old_uses) :]
        self._tokens -= saved
        self._cleared_uses += clearable

    def edited(self, messages: list[Any]) -> list[Any]:
        """Return the messages without what was cleared."""
        changes: dict[int, dict[int, dict[str, Any] | None]] = {}
        for use in self._cleared_uses:
            number, position = use.result
            block = messages[number]["content"][position]
            changes.setdefault(number, {})[position] = {**block, "content": CLEARED}
            if use.clears_input:
                number, position = use.call
                block = messages[number]["content"][position]
                changes.setdefault(number, {})[position] = {**block, "input": _NO_INPUT}
        for turn in self._cleared_turns:
            for number, position in turn.thinking:
                changes.setdefault(number, {})[position] = None
        edited = list(messages)
        for number, new in changes.items():
            content = enumerate(messages[number]["content"])
            blocks = [new.get(position, block) for position, block in content]
            edited[number] = {**messages[number], "content": [block for block in blocks if block is not None]}
        return edited

    def report(self) -> tuple[list[dict[str, Any]], tuple[Note, ...]]:
        """Return the edits for the response, and what was cleared for the trace."""
        applied: list[dict[str, Any]] = []
        notes: list[Note] = []
        why = "the request's context_management asks for it; about {} tokens"
        if self._cleared_turns:
            count, tokens = len(self._cleared_turns), sum(turn.tokens for turn in self._cleared_turns)
            applied.append(
                {
                    "type": CLEAR_THINKING,
                    "cleared_thinking_turns": count,
                    "cleared_input_tokens": tokens,
                }
            )
            notes.append(Note("messages", f"thinking of {count} turns cleared", why.format(tokens)))
        if self._cleared_uses:
            count, tokens = len(self._cleared_uses), sum(use.saved for use in self._cleared_uses)
            applied.append(
                {"type": CLEAR_TOOL_USES, "cleared_tool_uses": count, "cleared_input_tokens": tokens}
            )
            notes.append(Note("messages", f"results of {count} tool uses cleared", why.format(tokens)))
        return applied, tuple(notes)


def _tool_edit(edit: Mapping[str, Any]) -> _ToolEdit:
    trigger = edit.get("trigger")
    by_uses = isinstance(trigger, dict) and trigger.get("type") == "tool_uses"
    limit = _value_of(trigger, _TRIGGER)
    least = _value_of(edit.get("clear_at_least"), 0)
    names = edit.get("exclude_tools")
    inputs = edit.get("clear_tool_inputs")
    return _ToolEdit(
        tokens=None if by_uses else limit,
        uses=limit,
        keep=_value_of(edit.get("keep"), _KEEP),
        least=least if by_uses else max(least, limit // _LEAST_SHARE),
        excluded=frozenset(map(str, names)) if isinstance(names, list) else frozenset(),
        inputs=None if inputs is True else frozenset(map(str, inputs if isinstance(inputs, list) else ())),
    )


def _kept_turns(edit: Mapping[str, Any]) -> int | None:
    """Return the number of turns whose thinking is kept; None for all, which is the default of new models."""
    keep = edit.get("keep")
    if not isinstance(keep, dict) or keep.get("type") != "thinking_turns":
        return None
    return max(1, _value_of(keep, 1))


def _value_of(setting: Any, default: int) -> int:
    value = setting.get("value") if isinstance(setting, dict) else None
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else default


def _has_result(content: Any) -> bool:
    return isinstance(content, list) and any(
        isinstance(block, dict) and block.get("type") == "tool_result" for block in content
    )
