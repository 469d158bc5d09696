"""Map tool call ids between client and upstream (docs/spec/messages-to-chat.md#tool-ids).

Both directions are pure functions of the id, so that the ids of a history stay consistent without any state.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import re
from collections.abc import Collection

__all__ = ["UpstreamIds", "to_client_id", "to_upstream_id"]

#: Prefix of ids that encode an upstream's id which is illegal for the client.
ENCODED_PREFIX = "toolu_cpx_"

_MAX_LEGAL = 64
_CLIENT_LEGAL = re.compile(rf"[A-Za-z0-9_-]{{1,{_MAX_LEGAL}}}\Z")  # what the Anthropic API accepts
_OPENAI_LEGAL = re.compile(r"[A-Za-z0-9_-]{1,40}\Z")  # longer: 400 string_above_max_length
_MISTRAL_LEGAL = re.compile(r"[A-Za-z0-9]{9}\Z")  # else: 400 code 3280
_BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


def to_client_id(upstream_id: str) -> str:
    """Return the client's id: the same where it is legal, else a reversible encoding; "" for an empty one."""
    if not upstream_id or (_CLIENT_LEGAL.match(upstream_id) and not upstream_id.startswith(ENCODED_PREFIX)):
        return upstream_id
    encoded = base64.urlsafe_b64encode(upstream_id.encode("utf-8", "surrogatepass")).rstrip(b"=")
    return ENCODED_PREFIX + encoded.decode()


def to_upstream_id(client_id: str, style: str = "any", attempt: int = 0) -> str:
    """Return the upstream's id.

    Args:
        style: ``tool_id_style`` of the dialect.
        attempt: how many earlier results were taken by other ids of the request.
    """
    # Ids longer than any legal one are not cached: their size is unbounded.
    convert = _upstream_id if len(client_id) <= _MAX_LEGAL else _upstream_id.__wrapped__
    return convert(client_id, style, attempt)


@functools.lru_cache(maxsize=4096)  # each request of a conversation repeats the ids of the previous one
def _upstream_id(client_id: str, style: str, attempt: int) -> str:
    original = _decoded(client_id)
    if style == "openai" and (attempt or not _OPENAI_LEGAL.match(original)):
        return "call_" + _digest(original, attempt).hex()[:32]
    if style == "mistral" and (attempt or not _MISTRAL_LEGAL.match(original)):
        number = int.from_bytes(_digest(original, attempt), "big")
        digits = []
        for _ in range(9):
            number, digit = divmod(number, 62)
            digits.append(_BASE62[digit])
        return "".join(digits)
    return f"{original}-{attempt}" if attempt else original


class UpstreamIds:
    """The ids of one request: one upstream id per client id, and never the same for two."""

    __slots__ = ("_style", "_taken", "_upstream")

    def __init__(self, style: str) -> None:
        self._style = style
        self._upstream: dict[str, str] = {}
        self._taken: set[str] = set()

    @property
    def client_ids(self) -> Collection[str]:
        """All client ids seen."""
        return self._upstream.keys()

    def of(self, client_id: str, *, is_repeated: bool = False) -> str:
        """Return the upstream id of `client_id`; a new one if it is repeated within one message."""
        known = self._upstream.get(client_id)
        if known is not None and not is_repeated:
            return known
        # Every upstream refuses an empty id; "call" replaces it.
        upstream_id, attempt = to_upstream_id(client_id or "call", self._style), 0
        while upstream_id in self._taken:
            attempt += 1
            upstream_id = to_upstream_id(client_id or "call", self._style, attempt)
        self._taken.add(upstream_id)
        if known is None:
            self._upstream[client_id] = upstream_id
        return upstream_id


def _decoded(client_id: str) -> str:
    if not client_id.startswith(ENCODED_PREFIX):
        return client_id
    encoded = client_id[len(ENCODED_PREFIX) :]
    try:
        raw = base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4))
        original = raw.decode("utf-8", "surrogatepass")
    except ValueError:
        return client_id
    return original or client_id


def _digest(text: str, attempt: int) -> bytes:
    salted = f"{text}#{attempt}" if attempt else text
    return hashlib.sha256(salted.encode("utf-8", "surrogatepass")).digest()
