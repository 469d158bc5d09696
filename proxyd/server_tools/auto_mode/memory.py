"""What is remembered of sessions in auto mode: verdicts, calls that were not checked, the user's words.

A verdict is remembered for the same call in the same context: the same settings, the same words of the user, and the
same other calls so far that may have changed something. So a test may be repeated without another check, but not after
a file was edited.

A call of a tool that only reads is not checked the first time, since Claude Code does not ask about it. When it comes
again, Claude Code may have asked after all, and it is checked.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from typing import Any

from proxyd import jsonio
from proxyd.server_tools.auto_mode.safeguards import Verdict

__all__ = ["Memory", "SessionMemory", "digest"]

MAX_SESSIONS = 256
MAX_ENTRIES = 512


class SessionMemory:
    """What is remembered of one session.

    Attributes:
        words: the user's words in the main conversation, quoted, for the calls of its subagents.
    """

    __slots__ = ("_unchecked", "_verdicts", "words")

    def __init__(self) -> None:
        self.words: tuple[str, ...] = ()
        self._verdicts: OrderedDict[bytes, Verdict] = OrderedDict()
        self._unchecked: OrderedDict[bytes, None] = OrderedDict()

    def verdict(self, key: bytes) -> Verdict | None:
        """Return the verdict on a call in a context."""
        return self._verdicts.get(key)

    def keep(self, key: bytes, verdict: Verdict) -> None:
        """Remember a verdict, if the classifier gave one."""
        if verdict.get("type") == "evaluated":
            self._verdicts[key] = verdict
            if len(self._verdicts) > MAX_ENTRIES:
                self._verdicts.popitem(last=False)

    def is_first(self, call: bytes) -> bool:
        """Whether a call that needs no check comes for the first time; it is remembered."""
        is_new = call not in self._unchecked
        self._unchecked[call] = None
        if len(self._unchecked) > MAX_ENTRIES:
            self._unchecked.popitem(last=False)
        return is_new


class Memory:
    """The sessions; those that were used last are kept."""

    def __init__(self) -> None:
        self._sessions: OrderedDict[str, SessionMemory] = OrderedDict()

    def of(self, session_id: str | None) -> SessionMemory:
        """Return the memory of a session; an empty one where the session is not known by an id."""
        if session_id is None:
            return SessionMemory()
        memory = self._sessions.setdefault(session_id, SessionMemory())
        self._sessions.move_to_end(session_id)
        if len(self._sessions) > MAX_SESSIONS:
            self._sessions.popitem(last=False)
        return memory


def digest(*parts: Any) -> bytes:
    """Return bytes that differ for different JSON values."""
    return hashlib.sha256(jsonio.content_key(parts)).digest()
