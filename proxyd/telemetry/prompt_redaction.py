"""What an upstream's words quote of a request, for what is remembered of them (docs/spec/operations.md#e7).

An error message may repeat a part of the prompt. The client gets it as it is; logs, ledger, feeds and records get it
without each run of `MIN_BYTES` or more that stands in the request, be it in its bytes or in one of its texts. Where the
request is gone, because the stream has begun, or too long to be searched in a moment, no more is kept of the message
than could not be such a run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["MIN_BYTES", "without_prompt_text"]

#: Shorter ones are words that both happen to use.
MIN_BYTES = 24
#: Each run of `MIN_BYTES` holds one whole block, wherever it begins.
_BLOCK_BYTES = 12
#: What is remembered of a message, and how long a request may be: with both at most, a search takes 25 ms.
_MAX_MESSAGE_BYTES, _MAX_REQUEST_BYTES = 1000, 512 * 1024
#: Steps of a search; blocks that stand everywhere, such as lines of dashes, would take more.
_MAX_STEPS = 20_000
_MARK = "…"


def without_prompt_text(message: str, body: bytes, payload: Mapping[str, Any]) -> str:
    """`message` less what it quotes of a request.

    Args:
        body: the request; b"" where it is gone.
        payload: the same, parsed, as far as it could be.
    """
    words = message.encode("utf-8", "surrogatepass")
    if len(words) < MIN_BYTES:
        return message
    kept = words[:_MAX_MESSAGE_BYTES]
    places = None
    if 0 < len(body) <= _MAX_REQUEST_BYTES:
        places = _quotes(kept, b"\xff".join([body, *_texts(payload)]))
    if places is None:
        places = [(MIN_BYTES - 1, len(kept))]
    pieces, end = [], 0
    for start, stop in sorted(places):
        if start > end:
            pieces.append(kept[end:start].decode("utf-8", "ignore"))
        end = max(end, stop)
        pieces += [_MARK] if pieces[-1:] != [_MARK] else []
    if end < len(kept):
        pieces.append(kept[end:].decode("utf-8", "ignore"))
    if len(words) > len(kept) and pieces[-1:] != [_MARK]:
        pieces.append(_MARK)
    return "".join(pieces)


def _quotes(message: bytes, request: bytes) -> list[tuple[int, int]] | None:
    """Where in `message` runs of `request` stand; None where that takes too long to tell."""
    places = []
    ends: dict[int, int] = {}  # by how far the two are apart: so far they are known to be alike
    steps = 0
    for block in range(0, len(message) - _BLOCK_BYTES + 1, _BLOCK_BYTES):
        words = message[block : block + _BLOCK_BYTES]
        at = request.find(words)
        while at >= 0:
            start, stop, shift = block, block + _BLOCK_BYTES, at - block
            at = request.find(words, at + 1)
            steps += 1
            if ends.get(shift, 0) >= stop:
                continue
            while start > 0 and start + shift > 0 and message[start - 1] == request[start + shift - 1]:
                start -= 1
            while (
                stop < len(message) and request[stop + shift : stop + shift + 1] == message[stop : stop + 1]
            ):
                stop += 1
            ends[shift] = stop
            if stop - start >= MIN_BYTES:
                places.append((start, stop))
            steps += stop - start
            if steps > _MAX_STEPS:
                return None
    return places


def _texts(payload: Mapping[str, Any]) -> Iterator[bytes]:
    """All texts of `payload`, as they read once their escapes are undone."""
    waiting: list[Any] = [payload]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            yield value.encode("utf-8", "surrogatepass")
        elif isinstance(value, Mapping):
            waiting += value.keys()
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value
