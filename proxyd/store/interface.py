"""What a store of virtual keys can do: `proxyd.store.sqlite` needs no server, `proxyd.store.postgres` is shared.

A store is used by one thread at a time, and never while a stream waits for it: the daemon works on a copy in memory
(`proxyd.proxy.key_ring`) and exchanges it with the store twice a second.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

from proxyd.errors import ProxyError
from proxyd.store.virtual_keys import Directory, Spent, Team, VirtualKey

__all__ = ["KeyStore", "ReplicaStore", "StoreFailed", "UsageStore", "Window"]

#: Owner, period, and the Unix time at which the period began.
Window = tuple[str, str, int]


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


class KeyStore(UsageStore, Protocol):
    """Keeps keys, teams and what they have used. Every method may raise `StoreFailed`."""

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
