"""The check of one response: which calls a classifier judges, the request to it, and the results for the client.

::

    calls ─▶ unreadable      no verdict: input_unparsed, or truncated
          ├▶ needs no check  skipped, the first time
          ├▶ remembered      the verdict that was given before
          ├▶ over a limit    no verdict: input_too_long
          └▶ the rest        one request to the classifier for all of them

A verdict ``not_flagged`` comes only from a classifier that said so, now or before in the same context.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from proxyd.server_tools.auto_mode.calls import ToolUse, needs_no_check
from proxyd.server_tools.auto_mode.conversation import Conversation
from proxyd.server_tools.auto_mode.memory import digest
from proxyd.server_tools.auto_mode.policy import POLICY, SCHEMA
from proxyd.server_tools.auto_mode.safeguards import (
    SKIPPED,
    Verdict,
    available,
    no_verdict,
    unavailable,
)
from proxyd.server_tools.auto_mode.transcript import quoted
from proxyd.server_tools.auto_mode.verdicts import read_verdicts

__all__ = ["Review"]

#: Limits in characters: of one call, of all calls of a response, of the settings.
MAX_CALL, MAX_CALLS, MAX_SETTINGS = 16_000, 48_000, 16_000
#: Output for the verdicts, and for the thinking of a model that cannot do without.
MAX_TOKENS = 4096


class Review:
    """The check of one response.

    Args:
        calls: those of the response.
        is_cut: the response ended at its token limit.
        classifier: the model that judges.
        rules: what the operator adds to the policy.
    """

    def __init__(
        self,
        conversation: Conversation,
        calls: Sequence[ToolUse],
        *,
        classifier: str,
        rules: str = "",
        is_cut: bool = False,
    ) -> None:
        self._conversation = conversation
        self._memory = conversation.memory
        self._classifier = classifier
        self._rules = rules
        self._settings = quoted(conversation.settings)
        self._verdicts: dict[str, Verdict] = {}
        self._keys: dict[str, bytes] = {}  # of the calls to be judged
        self._lines: list[str] = []
        self._is_over_limit = False
        unreadable = no_verdict("truncated" if is_cut else "input_unparsed")
        room = MAX_CALLS
        for call in calls:
            if call.input is None:
                self._verdicts[call.id] = unreadable
            elif needs_no_check(call, conversation.context) and self._memory.is_first(
                digest(call.name, call.input)
            ):
                self._verdicts[call.id] = SKIPPED
            else:
                room -= self._add(call, room)
        if self._lines and len(self._settings) > MAX_SETTINGS:
            self._lines, self._is_over_limit = [], True

    def _add(self, call: ToolUse, room: int) -> int:
        """Sort a call that needs a verdict; return the room that it takes in the request."""
        key = self._conversation.key_of(call, self._classifier, self._rules)
        remembered = self._memory.verdict(key)
        if remembered is not None:
            self._verdicts[call.id] = remembered
            return 0
        line = quoted({"id": call.id, "tool": call.name, "input": call.input})
        if len(line) > min(MAX_CALL, room):
            self._verdicts[call.id] = no_verdict("input_too_long")
            return 0
        self._verdicts[call.id] = no_verdict("error")  # until the classifier says something else
        self._keys[call.id] = key
        self._lines.append(line)
        return len(line)

    def request(self, *, takes_schema: bool) -> dict[str, Any] | None:
        """Return the Messages request to the classifier, or None where nothing is left to judge.

        Args:
            takes_schema: the classifier's entry can be asked for JSON of a schema.
        """
        if not self._lines:
            return None
        payload: dict[str, Any] = {
            "model": self._classifier,
            "max_tokens": MAX_TOKENS,
            "stream": False,
            "thinking": {"type": "disabled"},
            "system": [{"type": "text", "text": self._policy()}],
            "messages": [{"role": "user", "content": [{"type": "text", "text": self._material()}]}],
        }
        if takes_schema:
            payload["output_config"] = {"format": {"type": "json_schema", "schema": SCHEMA}}
        return payload

    def _policy(self) -> str:
        if not self._rules:
            return POLICY
        return f"{POLICY}\n# Rules of the operator of this proxy, which come before the ones above\n\n{self._rules}\n"

    def _material(self) -> str:
        parts = (
            ("user_words", self._conversation.words),
            ("settings", [self._settings]),
            ("transcript", self._conversation.steps),
            ("calls", self._lines),
        )
        sections = ["\n".join((f"<{name}>", *lines, f"</{name}>")) for name, lines in parts]
        return "\n".join(
            (*sections, f"Judge the {len(self._lines)} call(s) in <calls>. Answer with the JSON object only.")
        )

    def results(self, message: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
        """Return the results for the client.

        Args:
            message: the classifier's response; None where `request` was.
        """
        if self._is_over_limit:
            return unavailable("input_too_long")
        if message is not None:
            default = f"blocked by the classifier {self._classifier} without a reason"
            judged = read_verdicts(message, self._keys, default_reason=default)
            for name, verdict in judged.items():
                self._memory.keep(self._keys[name], verdict)
            self._verdicts.update(judged)
        return available(self._verdicts)

    def results_without(self, reason: str) -> list[dict[str, Any]]:
        """Return the results where the classifier gave no response.

        Args:
            reason: ``timeout`` and ``refused`` hold for the calls that it was to judge; others for the whole check,
                where nothing else has a verdict.
        """
        if reason in ("timeout", "refused"):
            self._verdicts.update(dict.fromkeys(self._keys, no_verdict(reason)))
            return available(self._verdicts)
        if len(self._keys) == len(self._verdicts):
            return unavailable(reason)
        self._verdicts.update(
            dict.fromkeys(self._keys, no_verdict("input_too_long" if reason == "input_too_long" else "error"))
        )
        return available(self._verdicts)
