"""Which configuration the daemons on one database run: each announces its own, and warns where another has one more."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from proxyd.logs.setup import get_logger
from proxyd.store.interface import ReplicaStore

__all__ = ["GONE_S", "PATIENCE_S", "Replicas"]

#: A replica that was not heard of for so long does not count.
GONE_S = 180.0
#: After an edit the replicas reload one after the other; a difference that lasts longer is warned of.
PATIENCE_S = 30.0

log = get_logger("config")


class Replicas:
    """The replicas of this daemon.

    Args:
        name: of this daemon, for people: host and port.
        config_hash: returns that of the configuration in force.
        now: seconds of a clock that never jumps.
    """

    def __init__(
        self,
        store: ReplicaStore,
        name: str,
        config_hash: Callable[[], str],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store, self._name, self._config_hash, self._now = store, name, config_hash, now
        self._others: dict[str, str] = {}
        self._differs_since: float | None = None
        self._warned_of: dict[str, str] = {}

    @property
    def differing(self) -> dict[str, str]:
        """The other replicas that run another configuration, with its hash."""
        mine = self._config_hash()
        return {name: other for name, other in self._others.items() if other != mine}

    def describe(self) -> dict[str, Any]:
        """Describe them for status and page."""
        return {"name": self._name, "others": len(self._others), "differing": self.differing}

    def begin(self) -> Callable[[], Callable[[], None]]:
        mine = self._config_hash()

        def announce() -> Callable[[], None]:
            found = self._store.announce(self._name, mine, GONE_S)
            return lambda: self._compare(found)

        return announce

    def fail(self) -> None:
        """Keep what is known: an outage says nothing of the others."""

    def leave(self) -> Callable[[], Callable[[], None]]:
        def withdraw() -> Callable[[], None]:
            self._store.withdraw(self._name)
            return lambda: None

        return withdraw

    def _compare(self, found: dict[str, str]) -> None:
        self._others = {name: other for name, other in found.items() if name != self._name}
        differing, now = self.differing, self._now()
        if not differing:
            if self._warned_of:
                log.info("config.same_on_all_replicas", config_hash=self._config_hash())
            self._differs_since, self._warned_of = None, {}
            return
        if self._differs_since is None:
            self._differs_since = now
        if now - self._differs_since >= PATIENCE_S and differing != self._warned_of:
            self._warned_of = differing
            log.warning(
                "config.differs",
                what="other daemons on this database run another models.yaml",
                config_hash=self._config_hash(),
                others=[f"{name}: {other}" for name, other in sorted(differing.items())],
            )
