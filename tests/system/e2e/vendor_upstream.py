"""A scripted upstream that refuses what a vendor refuses, by its simulator in tests/support/vendors."""

from __future__ import annotations

import json
from collections.abc import Sequence

from tests.support.vendors import VENDORS
from tests.system.e2e.openai_upstream import OpenAIUpstream
from tests.system.e2e.scripted import Received, Refusal, Script, Step

__all__ = ["VendorUpstream"]


class VendorUpstream(OpenAIUpstream):
    """See `OpenAIUpstream`. A request that the vendor refuses takes no turn of the script.

    Attributes:
        refused: the names of the rules that were broken, in order.
    """

    def __init__(self, vendor: str, script: Script) -> None:
        super().__init__(script)
        self._vendor = VENDORS[vendor]
        self.refused: list[str] = []

    def judge(self, received: Received) -> list[str]:
        return []  # the vendor judges, in its own words

    def _next(self, received: Received) -> Sequence[Step] | Refusal:
        headers = {name.lower(): value for name, value in received.headers.items()}
        found = self._vendor.judge(received.body, headers)
        if found is None:
            return super()._next(received)
        self.refused.append(found.rule)
        return Refusal(found.status, json.dumps(found.body).encode())
