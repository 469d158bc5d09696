"""Signed data of earlier turns that an upstream could not read: it is left out from then on.

Encrypted reasoning and thought signatures are readable for the account and the model that they were made for. A
conversation that goes on with another key would be refused in each turn, and those of later turns would be dropped with
those of the first ones. So not all of them are dropped, but the data that was refused.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable

from proxyd.codecs.upstream_errors.error_envelopes import parse_error_body

__all__ = ["RefusedData", "refuses_signed_data"]

#: Most data that are kept: some 20 for each turn with tools, in 100 turns.
_MAX_KEPT = 2000

#: How OpenAI and others refuse reasoning of another key, organisation or model (openai/codex#8145,
#: Wei-Shaw/sub2api#2863), and Google thought signatures of another backend (google-gemini/gemini-cli#13467).
_UNREADABLE = re.compile(
    r"encrypted[ _]content\b.{0,200}?(?:could not be (?:verified|decrypted|parsed)|is (?:invalid|corrupt))"
    r"|(?:corrupt(?:ed)?|invalid|malformed|expired)\W{1,3}thought.?signature"
    r"|thought.?signature\b[^.]{0,30}(?:is not valid|is invalid|could not be|cannot be|expired|corrupt)",
    re.IGNORECASE | re.DOTALL,
)
_MAX_JUDGED_CHARS = 2000


def refuses_signed_data(body: bytes) -> bool:
    """Whether an upstream's error says that it cannot read the signed data of earlier turns.

    That is no property of the model: the data came from another account, or the vendor has lost its key.
    """
    error = parse_error_body(body)
    return (
        "invalid_encrypted_content" in error.codes
        or _UNREADABLE.search(error.message[:_MAX_JUDGED_CHARS]) is not None
    )


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
