"""The reader of response heads, judged by h11: what it accepts, h11 accepts and reads in the same way."""

from __future__ import annotations

import itertools

import h11
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from proxyd.codecs.wire.http1_head import HeadFault, HeadReader, ResponseHead
from tests.support.effort import examples

USUAL = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n"
    b"Connection: keep-alive\r\nKeep-Alive: timeout=5, max=100\r\nrequest-id: req_1\r\nX-Empty:\r\n\r\n"
)


def read(data: bytes, cuts: tuple[int, ...] = ()) -> tuple[ResponseHead, bytes] | None:
    """The head and the bytes after it, from one reader that is fed the parts between the cuts."""
    bounds = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    reader = HeadReader()
    for start, end in itertools.pairwise(bounds):
        found = reader.feed(data[start:end])
        if found is not None:
            return found[0], found[1] + data[end:]
    return None


def outcome(data: bytes, cuts: tuple[int, ...] = ()) -> object:
    try:
        return read(data, cuts)
    except HeadFault:
        return HeadFault


def judged(data: bytes) -> h11.Response | h11.InformationalResponse | None:
    """What h11 reads; None where it needs more.

    Raises:
        h11.RemoteProtocolError: it is no response.
    """
    client = h11.Connection(h11.CLIENT, max_incomplete_event_size=1 << 20)
    client.send(h11.Request(method="GET", target="/", headers=[("Host", "x")]))
    client.send(h11.EndOfMessage())
    client.receive_data(data)
    event = client.next_event()
    assert event is h11.NEED_DATA or isinstance(event, (h11.Response, h11.InformationalResponse))
    return None if event is h11.NEED_DATA else event


def agrees(head: ResponseHead, event: h11.Response | h11.InformationalResponse) -> None:
    assert (head.status, head.reason.encode("utf-8", "surrogateescape")) == (event.status_code, event.reason)
    ours = [
        (name.lower().encode(), value.encode("utf-8", "surrogateescape"))
        for name, value in head.headers.items()
    ]
    theirs = [(bytes(name), bytes(value)) for name, value in event.headers]
    # h11 joins repeated lengths into one, and writes the coding in lower case.
    assert [pair for pair in ours if pair[0] not in (b"content-length", b"transfer-encoding")] == [
        pair for pair in theirs if pair[0] not in (b"content-length", b"transfer-encoding")
    ]
    framing = dict(theirs)
    length = framing.get(b"content-length")
    assert head.length == (None if length is None else int(length))
    assert head.is_chunked == (b"transfer-encoding" in framing)


def test_the_usual_head() -> None:
    found = read(USUAL + b"rest")
    assert found is not None
    head, rest = found
    assert (head.status, head.reason, rest) == (200, "OK", b"rest")
    assert (head.length, head.is_chunked, head.keeps_alive, head.idle_s) == (None, True, True, 5.0)
    assert head.headers["CONTENT-TYPE"] == "text/event-stream; charset=utf-8"
    assert head.headers["x-empty"] == ""
    event = judged(USUAL)
    assert event is not None
    agrees(head, event)


_BYTES = st.sampled_from([bytes([each]) for each in range(256)])
_NAMES = st.sampled_from(
    [
        b"Content-Length",
        b"Transfer-Encoding",
        b"Connection",
        b"X",
        b"x-\xe4",
        b"",
        b"X ",
        b" X",
        b"Keep-Alive",
    ]
)
_ODD_VALUES = (
    b"5", b"5, 5", b"5, 6", b"-1", b"+5", b"0x5", b"5 ", b"", b"chunked", b"Chunked", b"gzip, chunked", b"identity",
    b"close", b"keep-alive, x", b"\xff\xfe", b"a\tb", b"timeout=5", b"\x0b", b"1" * 30,
)  # fmt: skip
_ODD_VALUES = (
    b"5", b"5, 5", b"5, 6", b"-1", b"+5", b"0x5", b"5 ", b"", b"chunked", b"Chunked", b"gzip, chunked", b"identity",
    b"close", b"keep-alive, x", b"\xff\xfe", b"a\tb", b"timeout=5", b"\x0b", b"1" * 30,
)  # fmt: skip
_VALUES = st.one_of(
    st.sampled_from(_ODD_VALUES),
    st.binary(max_size=6),
)
_ENDS = st.sampled_from([b"\r\n", b"\n", b"\r", b"\r\r\n", b"\r\n ", b"\r\n\t"])
_FIRST = st.sampled_from(
    [b"HTTP/1.1 200 OK", b"HTTP/1.0 200 OK", b"HTTP/1.1 204", b"HTTP/1.1 200 ", b"HTTP/1.1  200 OK",
     b"HTTP/1.1 099 X", b"HTTP/1.1 103 Early", b"HTTP/1.1 600 X", b"HTTP/2.0 200 OK", b"http/1.1 200 OK",
     b"HTTP/1.1 20 OK", b"HTTP/1.1 2000 OK", b"HTTP/1.1\t200 OK", b"ICY 200 OK", b"", b"HTTP/1.1 200 \xe4\x01"]
)  # fmt: skip


@st.composite
def heads(draw: st.DrawFn) -> bytes:
    """A head with some oddities, or the usual one with some bytes changed."""
    if draw(st.booleans()):
        data = bytearray(USUAL)
        for at in draw(st.lists(st.integers(0, len(data) - 1), max_size=3)):
            data[at : at + 1] = draw(_BYTES) if draw(st.booleans()) else b""
        return bytes(data)
    lines = draw(
        st.lists(st.tuples(_NAMES, st.sampled_from([b":", b": ", b"", b" : "]), _VALUES), max_size=4)
    )
    usual = st.just(b"\r\n")
    return (
        draw(_FIRST)
        + draw(usual | _ENDS)
        + b"".join(b"".join(line) + draw(usual | _ENDS) for line in lines)
        + draw(usual | _ENDS)
    )


@given(heads())
@settings(max_examples=examples(1500))
@example(b"HTTP/1.1 200 OK\nContent-Length: 5\n\n")
@example(b"HTTP/1.1 200\r\n\r\n")
@example(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n")
@example(b"HTTP/1.1 200 OK\r\nA: b\r\n folded\r\n\r\n")
def test_what_is_accepted_is_what_h11_reads(data: bytes) -> None:
    try:
        found = read(data)
    except HeadFault:
        return
    try:
        event = judged(data)
    except h11.RemoteProtocolError:
        assert found is None, "h11 refuses it"
        return
    if found is None:
        assert event is None, "h11 has a whole head"
        return
    assert event is not None, "h11 waits for more"
    agrees(found[0], event)


@given(heads(), st.binary(max_size=20), st.lists(st.integers(0, 400), max_size=6).map(tuple))
@settings(max_examples=examples(800))
def test_cuts_change_nothing(data: bytes, rest: bytes, cuts: tuple[int, ...]) -> None:
    data += rest
    whole = outcome(data)
    assert outcome(data, cuts) == whole or (whole is HeadFault and outcome(data, cuts) is HeadFault)


def test_every_single_cut_changes_nothing() -> None:
    for cut in range(len(USUAL) + 1):
        assert read(USUAL + b"rest", (cut,)) == read(USUAL + b"rest")
    assert read(USUAL + b"rest", tuple(range(len(USUAL)))) == read(USUAL + b"rest")


@pytest.mark.parametrize(
    "data",
    [
        b"SSH-2.0",
        b"\r\n",
        b"HTTP/2",
        b"HTTP/1.1 200 OK\r\nX: a\x00b\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: a\rb\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX : a\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0x5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: \xd9\xa5\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        b"HTTP/1.1 099 X\r\n\r\n",
        b"HTTP/1.1 600 X\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: 1\r\n" * 129 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * 8190,
        b"HTTP/1.1 200 OK\r\n" + (b"X: " + b"a" * 8000 + b"\r\n") * 17,
    ],
)
def test_what_is_refused(data: bytes) -> None:
    with pytest.raises(HeadFault):
        read(data)


@pytest.mark.parametrize(
    ("lines", "keeps_alive"),
    [
        (b"HTTP/1.1 200 OK\r\n", True),
        (b"HTTP/1.1 200 OK\r\nConnection: x, Close\r\n", False),
        (b"HTTP/1.1 200 OK\r\nConnection: x\r\nConnection: close\r\n", False),
        (b"HTTP/1.0 200 OK\r\n", False),
        (b"HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\n", True),
        (b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n", False),
    ],
)
def test_whether_the_connection_stays_open(lines: bytes, keeps_alive: bool) -> None:
    found = read(lines + b"\r\n")
    assert found is not None
    assert found[0].keeps_alive is keeps_alive


@pytest.mark.parametrize(
    ("value", "idle_s"),
    [
        (b"timeout=5", 5),
        (b"max=3, TIMEOUT = 75", 75),
        (b'timeout="9"', 9),
        (b"timeout=soon", None),
        (b"", None),
    ],
)
def test_how_long_an_idle_connection_is_kept(value: bytes, idle_s: float | None) -> None:
    found = read(b"HTTP/1.1 200 OK\r\nKeep-Alive: " + value + b"\r\n\r\n")
    assert found is not None
    assert found[0].idle_s == idle_s


def test_interim_heads_are_distinguished() -> None:
    found = read(b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\n\r\n")
    assert found is not None
    assert found[0].is_interim
    assert found[1] == b"HTTP/1.1 200 OK\r\n\r\n"
