"""What a daemon keeps in a store, and shares with the other daemons on it: keys, what was learned, replicas."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

from proxyd.config.settings import Settings
from proxyd.daemon.key_sync import KeySync
from proxyd.daemon.replicas import Replicas
from proxyd.daemon.shared_sync import Part, SharedSync
from proxyd.proxy.key_ring import KeyRing
from proxyd.proxy.learned_file import LearnedQuirkFile
from proxyd.proxy.near_limits import FILE as LIMITS_FILE
from proxyd.proxy.near_limits import NearLimitsFile
from proxyd.proxy.shared_learning import SharedLearning
from proxyd.store.interface import KeyStore
from proxyd.store.opening import open_key_store, open_shared_store
from proxyd.telemetry.token_calibration import Calibration

__all__ = ["SharedState"]


class SharedState:
    """The exchange with the stores that the settings name; none without ``auth: keys`` and ``store``.

    Args:
        settings: returns those in force.
        folder: holds the SQLite store and the file of limits that are near; None keeps nothing.
        learned, calibration: what has been learned of upstreams.

    Attributes:
        key_ring: the virtual keys in force.
        key_sync: exchanges them; None without ``auth: keys``.
        sync: exchanges everything else; None where there is no store.
        replicas: the daemons on the same database; None without one.
    """

    def __init__(
        self,
        settings: Callable[[], Settings],
        folder: Path | None,
        learned: LearnedQuirkFile,
        calibration: Calibration,
    ) -> None:
        self._settings = settings
        self._folder = folder
        self._learned = learned
        self._calibration = calibration
        self.key_ring = KeyRing(fail_closed=lambda: settings().fail_closed)
        self.key_sync: KeySync | None = None
        self.sync: SharedSync | None = None
        self.replicas: Replicas | None = None

    async def start_keys(self) -> None:
        """Read the virtual keys, and go on exchanging them. To be called before the first request is accepted."""
        settings, folder = self._settings(), self._folder
        if settings.auth == "keys" and folder is not None:
            self.key_sync = KeySync(
                self.key_ring, lambda news: open_key_store(settings.store, folder, on_change=news)
            )
            await self.key_sync.start()

    async def start(self, port: int, config_hash: Callable[[], str]) -> None:
        """Begin to exchange everything else.

        Args:
            port: on which this daemon listens; with the host's name it is the replica's name.
            config_hash: returns the hash of models.yaml as it is in force.
        """
        url = self._settings().store
        store: KeyStore | None = None
        if url is not None:
            store = database = open_shared_store(url)
            self.replicas = Replicas(database, f"{socket.gethostname()}:{port}", config_hash)
        elif self.key_sync is not None and self._folder is not None:
            store = open_key_store(None, self._folder)
        if store is None:
            return
        parts: list[Part] = []
        if self.key_sync is not None and self._folder is not None:
            # First, since it does without the store.
            parts.append(NearLimitsFile(self.key_ring, self._folder / LIMITS_FILE))
        if self.replicas is not None:
            parts.append(self.replicas)
        parts.append(SharedLearning(store, self._learned, self._calibration))
        self.sync = SharedSync(parts, store.close)
        await self.sync.start()

    @property
    def trouble(self) -> str | None:
        """Why the store cannot be used at the moment."""
        return self.key_ring.trouble or (None if self.sync is None else self.sync.trouble)

    def describe(self) -> dict[str, Any] | None:
        """Return what ``claude-proxy status`` shows of the store; None where there is none."""
        if self.key_sync is None and self.sync is None:
            return None
        url = self._settings().store
        return {"place": "sqlite" if url is None else str(url), "trouble": self.trouble}

    async def close(self) -> None:
        """Store what is left. The exchanges end together, since each waits for a store that does not answer."""
        await asyncio.gather(*(each.close() for each in (self.key_sync, self.sync) if each is not None))
