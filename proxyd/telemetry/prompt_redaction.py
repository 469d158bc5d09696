"""Removal of quoted prompt text from an upstream's error message (docs/spec/operations.md#e7).

An error message may quote a part of the prompt. The client gets it unchanged; logs, ledger, feeds and records get it
without every run of at least `MIN_BYTES` that is also in the request, in its bytes or in one of its texts. Where the
request was released, because the stream has begun, or is too long to be searched quickly, only the first bytes of the
message are kept, fewer than such a run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["MIN_BYTES", "is_searched", "without_prompt_text"]

#: Shorter runs may be common words.
MIN_BYTES = 24
#: Each run of `MIN_BYTES` contains one whole block, wherever it begins.
_BLOCK_BYTES = 12
#: Limits of the message that is kept and of the request that is searched: at both limits a search takes 25 ms.
_MAX_MESSAGE_BYTES, _MAX_REQUEST_BYTES = 1000, 512 * 1024
#: Steps of a search; frequent blocks, such as lines of dashes, would take more.
_MAX_STEPS = 20_000
_MARK = "…"


def is_searched(body: bytes) -> bool:
    """Return whether `without_prompt_text` searches this request, and so needs its texts."""
    return 0 < len(body) <= _MAX_REQUEST_BYTES


def without_prompt_text(message: str, body: bytes, payload: Mapping[str, Any]) -> str:
    """Replace what `message` quotes of a request by an ellipsis.

    Args:
        body: the request; b"" where it was released.
        payload: the same, as far as it could be parsed.
    """
    data = message.encode("utf-8", "surrogatepass")
    if len(data) < MIN_BYTES:
        return message
    kept = data[:_MAX_MESSAGE_BYTES]
    quotes = None
    if is_searched(body):
        quotes = _find_quotes(kept, b"\xff".join([body, *_texts(payload)]))
    if quotes is None:
        quotes = [(MIN_BYTES - 1, len(kept))]
    parts, end = [], 0
    for start, stop in sorted(quotes):
        if start > end:
            parts.append(kept[end:start].decode("utf-8", "ignore"))
        end = max(end, stop)
        parts += [_MARK] if parts[-1:] != [_MARK] else []
    if end < len(kept):
        parts.append(kept[end:].decode("utf-8", "ignore"))
    if len(data) > len(kept) and parts[-1:] != [_MARK]:
        parts.append(_MARK)
    return "".join(parts)


def _find_quotes(message: bytes, request: bytes) -> list[tuple[int, int]] | None:
    """Find the spans of `message` that are also in `request`; None where the search takes too long."""
    found = []
    ends: dict[int, int] = {}  # distance between the two -> where their equal part ends
    steps = 0
    for block in range(0, len(message) - _BLOCK_BYTES + 1, _BLOCK_BYTES):
        needle = message[block : block + _BLOCK_BYTES]
        at = request.find(needle)
        while at >= 0:
            start, stop, shift = block, block + _BLOCK_BYTES, at - block
            at = request.find(needle, at + 1)
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
                found.append((start, stop))
            steps += stop - start
            if steps > _MAX_STEPS:
                return None
    return found


def _texts(payload: Mapping[str, Any]) -> Iterator[bytes]:
    """All strings of `payload`, encoded, without JSON escapes."""
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
