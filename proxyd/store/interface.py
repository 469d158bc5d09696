"""What a store of virtual keys can do: `proxyd.store.sqlite` needs no server, `proxyd.store.postgres` is shared.

A store is used by one thread at a time, and never while a stream waits for it: the daemon works on a copy in memory
(`proxyd.proxy.key_ring`) and exchanges it with the store twice a second.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from proxyd.errors import ProxyError
from proxyd.store.virtual_keys import Directory, Spent, Team, VirtualKey

__all__ = [
    "KeyStore",
    "LearnedRow",
    "LearningStore",
    "Merge",
    "ReplicaStore",
    "StoreFailed",
    "UsageStore",
    "Window",
]

#: Owner, period, and the Unix time at which the period began.
Window = tuple[str, str, int]


@dataclass(frozen=True, slots=True)
class LearnedRow:
    """One thing that daemons have learned of an upstream.

    Attributes:
        kind, name: which thing it is.
        value: JSON, which the store does not read.
    """

    kind: str
    name: str
    value: str


#: Returns the value to store from what a daemon has learned and the value that is stored; None for no change.
Merge = Callable[[LearnedRow, "str | None"], "str | None"]


class StoreFailed(ProxyError):
    """The store cannot be read or written; the message says why and what to do."""


class UsageStore(Protocol):
    """What the daemon exchanges with a store. Every method may raise `StoreFailed`."""

    def directory(self) -> Directory:
        """Return all keys and teams, the revoked ones included."""

    def add_usage(self, spent: Mapping[Window, Spent]) -> None:
        """Add to what was used, all of it or nothing.

        After a failure, the next call has the same amounts again, added to what has come since: a store that does not
        know whether it has added them finds out then.
        """

    def usage(self, since: Iterable[tuple[str, int]]) -> dict[Window, Spent]:
        """Return what all owners have used in these periods, each with its beginning."""


class LearningStore(Protocol):
    """Keeps what daemons have learned. Every method may raise `StoreFailed`."""

    def merge_learned(self, news: Sequence[LearnedRow], merge: Merge) -> None:
        """Store what daemons have learned, all of it or nothing; what is stored does not change meanwhile.

        After a failure the same may have been stored nevertheless.
        """

    def learned(self, after: int) -> tuple[int, list[LearnedRow]]:
        """Return what was stored since a position, 0 for the beginning, and the position now."""


class KeyStore(UsageStore, LearningStore, Protocol):
    """Keeps keys, teams, what they have used, and what daemons have learned. Every method may raise `StoreFailed`."""

    def put_key(self, key: VirtualKey) -> None:
        """Add `key`, or replace the one of its name."""

    def put_team(self, team: Team) -> None:
        """Add `team`, or replace the one of its name."""

    def remove_team(self, name: str) -> None:
        """Remove a team, which no key belongs to."""

    def all_usage(self) -> dict[Window, Spent]:
        """Return all that is kept of what was used, for a copy."""

    def close(self) -> None:
        """Release the resources."""


class ReplicaStore(Protocol):
    """Knows the daemons that share it. Every method may raise `StoreFailed`."""

    def announce(self, name: str, config_hash: str, gone_s: float) -> dict[str, str]:
        """Note which configuration a daemon runs; return those of all that were announced in the last `gone_s`."""

    def withdraw(self, name: str) -> None:
        """Forget a daemon, which ends."""
