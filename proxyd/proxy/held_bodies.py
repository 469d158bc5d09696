"""How many bytes of request bodies are held at once: while they arrive, are parsed, and wait for an upstream.

A body costs a small multiple of its size in memory until its stream has begun, so a bound on the number of calls is
none on memory. A body takes its share as it arrives, not by what its head announces: whoever announces much and sends
nothing keeps nobody out.
"""

from __future__ import annotations

from proxyd.errors import Overloaded

__all__ = ["HeldBodies", "HeldBody"]


class HeldBodies:
    """The bodies of one daemon.

    Attributes:
        held_bytes: the sizes of all that are held now.
    """

    __slots__ = ("_most_bytes", "held_bytes")

    def __init__(self) -> None:
        self.held_bytes = 0
        self._most_bytes = 0

    def take_most(self) -> int:
        """The most bytes that were held at once since the last call of this."""
        most, self._most_bytes = max(self._most_bytes, self.held_bytes), self.held_bytes
        return most

    def release(self, size: int) -> None:
        """`size` bytes are not held any more."""
        self._most_bytes = max(self._most_bytes, self.held_bytes)
        self.held_bytes -= size


class HeldBody:
    """One of them; `release` it when it is not needed any more."""

    __slots__ = ("_all", "_size")

    def __init__(self, bodies: HeldBodies) -> None:
        self._all = bodies
        self._size = 0

    def grow(self, size: int, limit: int) -> None:
        """Another `size` bytes of it have come. A body that is alone is held whatever its size.

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
        """It has been freed, or is about to be."""
        size, self._size = self._size, 0
        if size:
            self._all.release(size)
