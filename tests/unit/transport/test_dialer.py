"""How connections are opened: the race of addresses, tunnels, TLS."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from proxyd.transport import dialer as module
from proxyd.transport.connection import ReadBuffer, UpstreamConnection
from proxyd.transport.dialer import Dialer, connect_to_any
from proxyd.transport.environment import Proxy
from proxyd.transport.faults import (
    CertificateRejected,
    ConnectFailed,
    NameNotResolved,
    ProxyRefused,
    ProxyUnreachable,
    TLSFailed,
)
from proxyd.transport.lookups import Lookups
from proxyd.transport.names import Address, Names
from proxyd.transport.tls import TLSContext
from tests.support.certificates import make_certificate, server_context
from tests.support.raw_sockets import no_leaks
from tests.support.servers import running_server

#: Nothing listens here: an address that refuses at once.
REFUSING = Address(socket.AF_INET, ("127.0.0.1", 1))


def connection() -> UpstreamConnection:
    return UpstreamConnection(ReadBuffer())


def dialer(port: int, host: str = "127.0.0.1", **more: object) -> Dialer:
    return Dialer(Names(Lookups(), is_kept_fresh=False), host, port, **{"context": None, **more})  # type: ignore[arg-type]


@asynccontextmanager
async def listening(
    *, answer: bytes | None = None, tls: ssl.SSLContext | None = None
) -> AsyncIterator[tuple[int, list[bytes]]]:
    """A server that writes `answer` when something has arrived, and keeps what has; its port."""
    received: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                received.append(data)
                if answer is not None:
                    writer.write(answer)
        except OSError:
            pass
        finally:
            writer.transport.abort()

    async with running_server(serve, ssl=tls) as port:
        yield port, received


async def test_the_next_address_is_tried_at_once_where_one_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_ATTEMPT_DELAY_S", 60)
    async with no_leaks(), listening() as (port, _):
        addresses = [REFUSING, REFUSING, Address(socket.AF_INET, ("127.0.0.1", port))]
        sock = await asyncio.wait_for(connect_to_any(addresses), 30)
        assert sock.getpeername() == ("127.0.0.1", port)
        sock.close()


async def test_the_next_address_is_tried_beside_one_that_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    async def connect(address: Address) -> socket.socket:
        if address is silent:
            await asyncio.sleep(60)
        return await known(address)

    known, silent = module._connect, Address(socket.AF_INET, ("127.0.0.2", 9))
    monkeypatch.setattr(module, "_connect", connect)
    monkeypatch.setattr(module, "_ATTEMPT_DELAY_S", 0.05)
    async with no_leaks(), listening() as (port, _):
        sock = await asyncio.wait_for(
            connect_to_any([silent, Address(socket.AF_INET, ("127.0.0.1", port)), silent]), 5
        )
        assert sock.getpeername() == ("127.0.0.1", port)
        sock.close()


async def test_two_that_are_as_fast_leave_one_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    both = asyncio.Event()

    async def connect(address: Address) -> socket.socket:
        sock = await known(address)
        await both.wait()
        return sock

    known = module._connect
    monkeypatch.setattr(module, "_connect", connect)
    monkeypatch.setattr(module, "_ATTEMPT_DELAY_S", 0.01)
    async with no_leaks(), listening() as (port, _):
        asyncio.get_running_loop().call_later(0.1, both.set)
        sock = await connect_to_any([Address(socket.AF_INET, ("127.0.0.1", port))] * 3)
        sock.close()


async def test_the_first_failure_is_reported_where_all_fail() -> None:
    async with no_leaks():
        with pytest.raises(ConnectFailed, match=r"^connection refused$"):
            await connect_to_any([REFUSING] * 3)


async def test_addresses_that_all_failed_are_looked_up_again(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    known = socket.getaddrinfo

    def getaddrinfo(host: str, *more: object, **options: object) -> object:
        asked.append(host)
        return known(host, *more, **options)  # type: ignore[call-overload]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    unreachable = dialer(1, "localhost")
    for _ in range(2):
        with pytest.raises(ConnectFailed):
            await unreachable.open(connection)
    assert asked == ["localhost"] * 2


async def test_a_cancelled_race_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    async def connect(address: Address) -> socket.socket:
        sock = await known(address)
        try:
            await asyncio.sleep(60)
        except BaseException:
            sock.close()
            raise
        return sock

    known = module._connect
    monkeypatch.setattr(module, "_connect", connect)
    async with no_leaks(), listening() as (port, _):
        task = asyncio.ensure_future(connect_to_any([Address(socket.AF_INET, ("127.0.0.1", port))] * 2))
        await asyncio.sleep(0.05)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


# -- TLS


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make_certificate(tmp_path_factory.mktemp("certificate"))


async def test_a_certificate_is_verified(certificate: tuple[Path, Path]) -> None:
    async with no_leaks(), listening(tls=server_context(*certificate)) as (port, _):
        with pytest.raises(CertificateRejected, match=r"self.signed"):
            await dialer(port, "localhost", context=TLSContext()).open(connection)
        trusting = TLSContext(str(certificate[1]))
        made = await dialer(port, "localhost", context=trusting).open(connection)
        assert made.is_connected
        made.close()
        with pytest.raises(CertificateRejected, match="IP address mismatch"):
            await dialer(port, "127.0.0.1", context=trusting).open(connection)


async def test_a_client_certificate_is_shown(certificate: tuple[Path, Path], tmp_path: Path) -> None:
    both = tmp_path / "client.pem"
    both.write_bytes(certificate[1].read_bytes() + certificate[0].read_bytes())
    asking = server_context(*certificate)
    asking.verify_mode = ssl.CERT_REQUIRED
    asking.load_verify_locations(certificate[1])
    async with listening(answer=b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", tls=asking) as (port, _):
        with_one = TLSContext(str(certificate[1]), str(both))
        made = await dialer(port, "localhost", context=with_one).open(connection)
        waiting = made.send_request(b"GET / HTTP/1.1\r\n\r\n", b"", decodes=False, has_body=True)
        assert (await asyncio.wait_for(waiting, 30)).status == 200
        made.close()


@pytest.mark.parametrize("text", ["", "nonsense"])
def test_a_file_without_a_certificate_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "client.pem"
    path.write_text(text)
    with pytest.raises(OSError, match=r".*"):
        TLSContext("", str(path)).load()
    with pytest.raises(OSError, match=r".*"):
        TLSContext(str(tmp_path / "missing.pem")).load()


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad\r\n\r\n", b"SSH-2.0\r\n"])
async def test_a_server_without_tls_is_said_to_be_none(answer: bytes) -> None:
    async with no_leaks(), listening(answer=answer) as (port, _):
        with pytest.raises(TLSFailed, match=r"wrong version number|record layer failure"):
            await dialer(port, context=TLSContext()).open(connection)


async def test_a_server_that_leaves_in_the_handshake() -> None:
    async def leave(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with running_server(leave) as port, no_leaks():
        with pytest.raises(TLSFailed, match="closed during the handshake"):
            await dialer(port, context=TLSContext()).open(connection)


# -- proxies


def proxy(port: int, *, is_tls: bool = False) -> Proxy:
    return Proxy("localhost" if is_tls else "127.0.0.1", port, is_tls, "Basic dTpw")


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n", 407),
        (b"HTTP/1.1 502 Bad Gateway\r\n\r\nrubbish", 502),
        (b"rubbish", None),
        (b"HTTP/1.1 200 OK\r\n\r\nrubbish", None),
    ],
)
async def test_a_proxy_that_makes_no_tunnel(answer: bytes, status: int | None) -> None:
    async with no_leaks(), listening(answer=answer) as (port, received):
        with pytest.raises(ProxyRefused) as raised:
            await dialer(443, "upstream.invalid", context=TLSContext(), proxy=proxy(port)).open(connection)
        assert (raised.value.status, raised.value.address) == (status, f"http://127.0.0.1:{port}")
    assert received[0] == (
        b"CONNECT upstream.invalid:443 HTTP/1.1\r\nHost: upstream.invalid:443\r\n"
        b"Proxy-Authorization: Basic dTpw\r\n\r\n"
    )


async def test_a_proxy_that_leaves() -> None:
    async def leave(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with running_server(leave) as port, no_leaks():
        with pytest.raises(ProxyRefused):
            await dialer(443, "x.invalid", context=TLSContext(), proxy=proxy(port)).open(connection)


async def test_a_proxy_that_is_not_there() -> None:
    with pytest.raises(ProxyUnreachable, match=r"http://127.0.0.1:1: connection refused"):
        await dialer(443, "x.invalid", context=TLSContext(), proxy=proxy(1)).open(connection)


async def test_a_name_with_a_literal_in_brackets_is_asked_for_with_them() -> None:
    async with listening(answer=b"HTTP/1.1 403 No\r\n\r\n") as (port, received):
        with pytest.raises(ProxyRefused):
            await dialer(443, "::1", context=TLSContext(), proxy=proxy(port)).open(connection)
    assert received[0].startswith(b"CONNECT [::1]:443 HTTP/1.1\r\nHost: [::1]:443\r\n")


async def test_a_proxy_that_is_reached_by_tls(certificate: tuple[Path, Path]) -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    tls = server_context(*certificate)
    async with no_leaks(), listening(answer=answer, tls=tls) as (port, received):
        plain = dialer(
            80, "x.invalid", proxy=proxy(port, is_tls=True), proxy_context=TLSContext(str(certificate[1]))
        )
        made = await plain.open(connection)
        waiting = made.send_request(b"GET / HTTP/1.1\r\n\r\n", b"", decodes=False, has_body=True)
        assert (await asyncio.wait_for(waiting, 30)).status == 200
        made.close()
        wary = dialer(80, "x.invalid", proxy=proxy(port, is_tls=True), proxy_context=TLSContext())
        with pytest.raises(ProxyUnreachable, match=r"self.signed"):
            await wary.open(connection)
    assert received[:1] == [b"GET / HTTP/1.1\r\n\r\n"]


async def test_a_name_that_nobody_knows() -> None:
    with pytest.raises(NameNotResolved):
        await dialer(443, "nobody.invalid", context=TLSContext()).open(connection)
