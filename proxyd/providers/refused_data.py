"""Signed data of earlier turns that an upstream could not read: it is left out from then on.

Encrypted reasoning is readable for the account and the model that it was made for. A conversation that goes on with
another key would be refused in each turn, and reasoning of later turns would be dropped with that of the first ones. So
not the reasoning as a whole is dropped, but the data that was refused.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

__all__ = ["RefusedData"]

#: Most data that are kept: some 20 for each turn with tools, in 100 turns.
_MAX_KEPT = 2000


class RefusedData:
    """What was refused, by digest and in order."""

    __slots__ = ("_digests",)

    def __init__(self) -> None:
        self._digests: dict[bytes, None] = {}

    def add(self, data: Iterable[str]) -> None:
        for each in data:
            self._digests[_digest(each)] = None
        while len(self._digests) > _MAX_KEPT:
            del self._digests[next(iter(self._digests))]

    def __contains__(self, data: str) -> bool:
        return bool(self._digests) and _digest(data) in self._digests


def _digest(data: str) -> bytes:
    return hashlib.sha256(data.encode("utf-8", "surrogatepass")).digest()[:16]
