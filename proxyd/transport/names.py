"""Addresses of host names, kept for a minute and looked up again ahead of their end while they are in use."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import socket
from dataclasses import dataclass
from itertools import chain, zip_longest

from proxyd.transport.faults import NameNotResolved
from proxyd.transport.lookups import Lookups

__all__ = ["Address", "Names"]

#: How long addresses are kept, when they are looked up again while calls are made, and how long after the last call.
_KEPT_S, _AHEAD_S, ACTIVE_S = 60.0, 45.0, 600.0


@dataclass(frozen=True, slots=True)
class Address:
    """One address to connect to.

    Attributes:
        sockaddr: the argument of ``connect``.
    """

    family: int
    sockaddr: tuple[str, int] | tuple[str, int, int, int]


@dataclass(slots=True)
class _Entry:
    addresses: tuple[Address, ...]
    until: float
    used_at: float


class Names:
    """Looks up names, each only once at a time.

    Args:
        lookups: the threads in which that is done.
        is_kept_fresh: look up names again ahead of their end.
    """

    def __init__(self, lookups: Lookups, *, is_kept_fresh: bool = True) -> None:
        self._lookups = lookups
        self._is_kept_fresh = is_kept_fresh
        self._known: dict[tuple[str, int], _Entry] = {}
        self._running: dict[tuple[str, int], asyncio.Task[tuple[Address, ...]]] = {}
        self._timers: dict[tuple[str, int], asyncio.TimerHandle] = {}

    async def addresses_of(self, host: str, port: int) -> tuple[Address, ...]:
        """Return the addresses of `host`, in the order in which to try them.

        Raises:
            NameNotResolved: it has none, or nobody says which.
            OSError: no descriptor or thread was free to ask.
        """
        literal = _literal(host, port)
        if literal is not None:
            return (literal,)
        key, now = (host, port), asyncio.get_running_loop().time()
        entry = self._known.get(key)
        if entry is not None and now < entry.until:
            entry.used_at = now
            return entry.addresses
        return await asyncio.shield(self._look_up(key))

    def forget(self, host: str, port: int) -> None:
        """Forget the addresses of `host`, none of which could be connected to."""
        self._known.pop((host, port), None)

    async def close(self) -> None:
        """Stop. A running look-up can't be stopped, and does not keep the process from ending."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        tasks = list(self._running.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _look_up(self, key: tuple[str, int]) -> asyncio.Task[tuple[Address, ...]]:
        task = self._running.get(key)
        if task is None:
            task = self._running[key] = asyncio.ensure_future(self._keep(key))
            task.add_done_callback(
                lambda task: task.cancelled() or task.exception()
            )  # everybody may have left
        return task

    async def _keep(self, key: tuple[str, int]) -> tuple[Address, ...]:
        loop = asyncio.get_running_loop()
        try:
            addresses = await self._lookups.run(lambda: _find_addresses(*key))
        finally:
            del self._running[key]
        now = loop.time()
        known = self._known.get(key)
        self._known[key] = _Entry(addresses, now + _KEPT_S, now if known is None else known.used_at)
        if self._is_kept_fresh:
            if key in self._timers:
                self._timers[key].cancel()
            self._timers[key] = loop.call_later(_AHEAD_S, self._refresh, key)
        return addresses

    def _refresh(self, key: tuple[str, int]) -> None:
        """Look up a name again whose addresses will be too old soon, if calls are made."""
        del self._timers[key]
        entry = self._known.get(key)
        if entry is None or asyncio.get_running_loop().time() - entry.used_at > ACTIVE_S:
            self._known.pop(key, None)
        else:
            self._look_up(key)


def _literal(host: str, port: int) -> Address | None:
    """Return the address that `host` spells, or None for a name."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    if address.version == 4:
        return Address(socket.AF_INET, (host, port))
    return None if "%" in host else Address(socket.AF_INET6, (host, port, 0, 0))


def _find_addresses(host: str, port: int) -> tuple[Address, ...]:
    """Look up `host`. Blocks.

    Raises:
        NameNotResolved: it has no address.
        OSError: no descriptor was free to ask for one.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
    except (socket.gaierror, UnicodeError) as exc:
        # Raises if descriptors ran out, which the resolver does not report.
        os.close(os.open(os.devnull, os.O_RDONLY))
        cause = (
            exc if isinstance(exc, OSError) else socket.gaierror(socket.EAI_NONAME, "it is not a host name")
        )
        raise NameNotResolved(cause) from exc
    addresses = [
        Address(family, address)
        for family, _, _, _, address in found
        if family in (socket.AF_INET, socket.AF_INET6) and isinstance(address[0], str)
    ]
    if not addresses:
        raise NameNotResolved(socket.gaierror(socket.EAI_NONAME, "it has no address"))
    return tuple(_alternating(addresses))


def _alternating(addresses: list[Address]) -> list[Address]:
    """Return the addresses with the families taking turns, the preferred one first (RFC 8305, 4)."""
    first = [each for each in addresses if each.family == addresses[0].family]
    others = [each for each in addresses if each.family != addresses[0].family]
    pairs = chain.from_iterable(zip_longest(first, others))
    return [each for each in pairs if each is not None]
