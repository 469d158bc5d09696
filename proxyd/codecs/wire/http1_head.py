"""Sans-I/O reader for the head of an HTTP/1.1 response (RFC 9112, 2 to 6).

Strict where two readers could disagree on what belongs to which response: names are tokens, values hold no control
characters, no line is folded, and there is one framing. Lenient where they can't: lines may end in LF alone, and a
reason phrase may be missing, as some small servers send them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from multidict import CIMultiDict, CIMultiDictProxy

__all__ = ["HeadFault", "HeadReader", "ResponseHead"]

#: Limits on a line, on the number of headers and on the whole head (docs/spec/operations.md#c2 has the first two for
#: requests).
_MAX_LINE_BYTES, _MAX_HEADERS, _MAX_HEAD_BYTES = 8190, 128, 128 * 1024
#: How every head begins; anything else is another protocol.
_BEGINNING = b"HTTP/1."
_TOKEN, _VALUE = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+", r"[^\x00-\x08\x0a-\x1f\x7f]*"
_STATUS_LINE = re.compile(rf"HTTP/1\.([01]) ([1-5][0-9]{{2}})(?: ({_VALUE}))?")
#: All headers at once: a loop over their lines would take longer than all else that a small response needs.
_HEADERS = re.compile(rf"(?:{_TOKEN}:{_VALUE}\r?\n)*")
#: More digits are no length of anything.
_LENGTH = re.compile(r"[0-9]{1,18}")
_TIMEOUT = re.compile(r"(?:^|[,;\s])timeout\s*=\s*\"?([0-9]{1,9})\b", re.IGNORECASE)
#: A protocol that was not asked for.
_SWITCHING = 101


class HeadFault(Exception):
    """This is no head of an HTTP/1.1 response. The message is for the log."""


@dataclass(frozen=True, slots=True)
class ResponseHead:
    """The head of a response.

    Attributes:
        length: value of ``Content-Length``, or None.
        is_chunked: ``Transfer-Encoding: chunked``.
        keeps_alive: the connection may be reused if the body has an end of its own.
        idle_s: how long the server says that it keeps an idle connection, or None.
    """

    status: int
    reason: str
    headers: CIMultiDictProxy[str]
    length: int | None
    is_chunked: bool
    keeps_alive: bool
    idle_s: float | None

    @property
    def is_interim(self) -> bool:
        """Whether another head follows, and no body."""
        return self.status < 200


class HeadReader:
    """Incremental reader of one head: `feed` bytes until it returns the head."""

    __slots__ = ("_received", "_searched")

    def __init__(self) -> None:
        self._received = b""
        self._searched = 0  # up to here there is no end

    def feed(self, data: bytes) -> tuple[ResponseHead, bytes] | None:
        """Return the head and the bytes after it, or None if it is not complete yet.

        Raises:
            HeadFault: this is no valid head, or too long.
        """
        received = self._received + data if self._received else data
        if received[: len(_BEGINNING)] != _BEGINNING[: len(received)]:
            raise HeadFault("it does not begin with HTTP/1")
        size, end = _end_of_head(received, self._searched)
        if (size or len(received)) > _MAX_LINE_BYTES:
            _check_size(received, size or len(received))
        if not size:
            self._received, self._searched = received, max(0, len(received) - 2)
            return None
        return _parse(received[:size]), received[end:]


def _end_of_head(received: bytes, start: int) -> tuple[int, int]:
    """Return the size of the head with its last line end, and where its body begins; 0 and 0 if it has no end yet."""
    with_cr, without = received.find(b"\n\r\n", start), received.find(b"\n\n", start)
    if with_cr >= 0 and not 0 <= without < with_cr:
        return with_cr + 1, with_cr + 3
    return (without + 1, without + 2) if without >= 0 else (0, 0)


def _check_size(received: bytes, size: int) -> None:
    if size > _MAX_HEAD_BYTES or max(map(len, received[:size].split(b"\n"))) > _MAX_LINE_BYTES + 1:
        raise HeadFault("its head, or a line of it, is too long")


def _parse(head: bytes) -> ResponseHead:
    # Bytes that are not UTF-8 can be written again as they were.
    first, _, lines = head.decode("utf-8", "surrogateescape").partition("\n")
    status_line = _STATUS_LINE.fullmatch(first.removesuffix("\r"))
    if status_line is None:
        raise HeadFault("its status line is invalid")
    if not _HEADERS.fullmatch(lines):
        raise HeadFault("a header has an invalid name, or a control character in its value")
    if lines.count("\n") > _MAX_HEADERS:
        raise HeadFault("it has too many headers")
    pairs = [line.partition(":") for line in lines.split("\n")[:-1]]
    headers = CIMultiDict([(name, value.strip(" \t\r")) for name, _, value in pairs])
    status = int(status_line[2])
    if status == _SWITCHING:
        raise HeadFault("it switches to a protocol that was not asked for")
    length, is_chunked = _framing(headers)
    return ResponseHead(
        status,
        status_line[3] or "",
        CIMultiDictProxy(headers),
        length,
        is_chunked,
        _keeps_alive(headers, is_1_1=status_line[1] == "1", is_chunked=is_chunked),
        _idle_s(headers),
    )


def _framing(headers: CIMultiDict[str]) -> tuple[int | None, bool]:
    """Return the length, and whether the body is chunked.

    Raises:
        HeadFault: the length is invalid, there are several, the coding is unknown, or both are given, which nginx
            refuses, too: one of the two is a lie.
    """
    codings = headers.getall("transfer-encoding", None)
    lengths = headers.getall("content-length", None)
    if codings is not None:
        if lengths is not None:
            raise HeadFault("it has both a length and a transfer encoding")
        if len(codings) > 1 or codings[0].lower() != "chunked":
            raise HeadFault("its transfer encoding is not 'chunked'")
        return None, True
    if lengths is None:
        return None, False
    values = {value.strip(" \t") for line in lengths for value in line.split(",")}
    if len(values) > 1 or not _LENGTH.fullmatch(value := values.pop()):
        raise HeadFault("its content length is invalid, or it has several")
    return int(value), False


def _keeps_alive(headers: CIMultiDict[str], *, is_1_1: bool, is_chunked: bool) -> bool:
    lines = headers.getall("connection", None)
    if lines is None:
        return is_1_1
    options = {option.strip(" \t").lower() for line in lines for option in line.split(",")}
    if "close" in options:
        return False
    # HTTP/1.0 has no chunks: what comes after such a body is anybody's guess.
    return is_1_1 or ("keep-alive" in options and not is_chunked)


def _idle_s(headers: CIMultiDict[str]) -> float | None:
    line = headers.get("keep-alive")
    found = None if line is None else _TIMEOUT.search(line)
    return None if found is None else float(found[1])
