"""The errors that exceptions of the client library become."""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl

import aiohttp
import pytest
from yarl import URL

from proxyd.codecs.wire.http1_body import BodyFault
from proxyd.errors import BadReply, ProxyError, TimedOut, Truncated, Unreachable
from proxyd.transport.client import failure_of
from proxyd.transport.connection import UnexpectedResponse
from proxyd.transport.pool import NotHTTP

URL_ = "https://api.example.com:8443/v1/chat/completions?key=query-value"


def _caused_by(exc: BaseException, cause: BaseException) -> BaseException:
    exc.__cause__ = cause
    return exc


@pytest.mark.parametrize(
    ("exc", "kind", "message"),
    [
        (asyncio.TimeoutError(), TimedOut, "did not answer in time"),
        (aiohttp.ConnectionTimeoutError(), Unreachable, "no connection to .* in time"),
        (BodyFault("cut"), Truncated, "closed the stream before finishing"),
        (UnexpectedResponse(), BadReply, "before it had the whole request"),
        (NotHTTP(), BadReply, "not HTTP"),
        (aiohttp.ServerDisconnectedError(), Unreachable, "closed the connection"),
        (ConnectionResetError(), Unreachable, "closed the connection"),
        (aiohttp.InvalidURL("x"), Unreachable, "not a URL"),
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


async def test_connector_errors_become_errors() -> None:
    key = aiohttp.ClientRequest(
        "GET", URL("https://api.example.com:8443/"), loop=asyncio.get_running_loop()
    ).connection_key
    refused = aiohttp.ClientConnectorError(
        key, ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")
    )
    assert (
        "could not connect to https://api.example.com:8443/v1/chat/completions?key=…: connection refused"
        in failure_of(refused, URL_).message
    )
    for number, is_permanent in ((socket.EAI_NONAME, True), (socket.EAI_AGAIN, False)):
        failure = failure_of(aiohttp.ClientConnectorDNSError(key, socket.gaierror(number, "no")), URL_)
        assert "could not be resolved" in failure.message
        assert ("x-should-retry" in failure.headers) is is_permanent
    untrusted = aiohttp.ClientConnectorCertificateError(key, ssl.SSLCertVerificationError("self-signed"))
    assert "could not be verified" in failure_of(untrusted, URL_).message
    assert failure_of(untrusted, URL_).headers == {"x-should-retry": "false"}


def test_an_error_of_ours_stays_as_it_is() -> None:
    failure = TimedOut("the upstream was silent for 3 s")
    assert failure_of(failure, URL_) is failure
