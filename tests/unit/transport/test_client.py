"""The errors that exceptions of the client library become."""

from __future__ import annotations

import asyncio
import errno
import socket

import pytest

from proxyd.codecs.wire.http1_body import BodyFault
from proxyd.errors import BadReply, ProxyError, TimedOut, Truncated, Unreachable
from proxyd.transport.client import failure_of
from proxyd.transport.faults import (
    CertificateRejected,
    ConnectFailed,
    ConnectTimeout,
    InvalidAddress,
    NameNotResolved,
    NoResponse,
    NotHTTP,
    ProxyRefused,
    ProxyUnreachable,
    ProxyUnsupported,
    TLSFailed,
    UnexpectedResponse,
)

URL_ = "https://api.example.com:8443/v1/chat/completions?key=query-value"


def _caused_by(exc: BaseException, cause: BaseException) -> BaseException:
    exc.__cause__ = cause
    return exc


@pytest.mark.parametrize(
    ("exc", "kind", "message"),
    [
        (asyncio.TimeoutError(), TimedOut, "did not answer in time"),
        (ConnectTimeout(), Unreachable, "no connection to .* in time"),
        (BodyFault("cut"), Truncated, "closed the stream before finishing"),
        (UnexpectedResponse(), BadReply, "before it had the whole request"),
        (NotHTTP("its status line is invalid"), BadReply, "not HTTP: its status line"),
        (NoResponse(is_untouched=True), Unreachable, "closed the connection"),
        (ConnectionResetError(), Unreachable, "closed the connection"),
        (InvalidAddress("x"), Unreachable, "not a URL"),
        (ProxyRefused("http://proxy:3128", 403), Unreachable, r"\(http://proxy:3128\) .*: it answered 403"),
        (ProxyRefused("http://proxy:3128", None), Unreachable, "it sent no HTTP response"),
        (
            ProxyUnreachable("http://proxy:3128", "refused"),
            Unreachable,
            r"\(http://proxy:3128\) for .*: refused",
        ),
        (ProxyUnsupported("socks5"), Unreachable, "socks5, which is not supported"),
        (TLSFailed("unsupported protocol"), Unreachable, "no TLS connection to .*: unsupported protocol"),
        (ValueError("other"), BadReply, "failed: ValueError"),
        (OSError(errno.EMFILE, "Too many open files"), Unreachable, "ulimit -n"),
        (_caused_by(RuntimeError(), OSError(errno.ENFILE, "Too many")), Unreachable, "ulimit -n"),
    ],
)
def test_exceptions_become_errors(exc: BaseException, kind: type[ProxyError], message: str) -> None:
    failure = failure_of(exc, URL_)
    assert type(failure) is kind
    with pytest.raises(kind, match=message):
        raise failure
    assert "api.example.com" in failure.message
    assert "query-value" not in failure.message


def test_failed_connections_become_errors() -> None:
    refused = ConnectFailed(ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"))
    assert (
        "could not connect to https://api.example.com:8443/v1/chat/completions?key=…: connection refused"
        in failure_of(refused, URL_).message
    )
    for number, is_permanent in ((socket.EAI_NONAME, True), (socket.EAI_AGAIN, False)):
        failure = failure_of(NameNotResolved(socket.gaierror(number, "no")), URL_)
        assert "could not be resolved" in failure.message
        assert ("x-should-retry" in failure.headers) is is_permanent
    untrusted = failure_of(CertificateRejected("self-signed certificate"), URL_)
    assert "could not be verified: self-signed certificate; " in untrusted.message
    assert untrusted.headers == {"x-should-retry": "false"}


def test_an_error_of_ours_stays_as_it_is() -> None:
    failure = TimedOut("the upstream was silent for 3 s")
    assert failure_of(failure, URL_) is failure
