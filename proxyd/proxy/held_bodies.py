"""Limit on the bytes of request bodies that are held at once: being received, parsed, or waiting for an upstream.

A body costs a small multiple of its size in memory until its stream has begun, so a limit on the number of calls does
not limit memory. Bytes count when they arrive, not when a head announces them: a client that announces much and sends
nothing does not keep others out.
"""

from __future__ import annotations

from proxyd.errors import Overloaded

__all__ = ["HeldBodies", "HeldBody"]


class HeldBodies:
    """Counts the bodies of one daemon.

    Attributes:
        held_bytes: bytes that are held now.
    """

    __slots__ = ("_peak_bytes", "held_bytes")

    def __init__(self) -> None:
        self.held_bytes = 0
        self._peak_bytes = 0

    def take_peak(self) -> int:
        """Return the most bytes that were held at once since the last call of this method."""
        peak, self._peak_bytes = max(self._peak_bytes, self.held_bytes), self.held_bytes
        return peak

    def release(self, size: int) -> None:
        """Subtract `size` bytes."""
        self._peak_bytes = max(self._peak_bytes, self.held_bytes)
        self.held_bytes -= size


class HeldBody:
    """The share of one body; to be released when the body is."""

    __slots__ = ("_all", "_size")

    def __init__(self, bodies: HeldBodies) -> None:
        self._all = bodies
        self._size = 0

    def grow(self, size: int, limit: int) -> None:
        """Add `size` bytes that have arrived. A body that is the only one is held whatever its size.

        Raises:
            Overloaded: all bodies together would be larger than `limit`.
        """
        if self._all.held_bytes + size > limit and self._all.held_bytes > self._size:
            raise Overloaded(
                f"claude-proxy holds {self._all.held_bytes / (1 << 20):.1f} MiB of requests that wait for their "
                "upstreams, its limit (max_parsing_bytes)",
                headers={"retry-after": "1"},
            )
        self._size += size
        self._all.held_bytes += size

    def release(self) -> None:
        """Give the whole share back. May be called twice."""
        size, self._size = self._size, 0
        if size:
            self._all.release(size)
