"""Clients that speak TLS: streams, certificates that change, certificates of clients."""

from __future__ import annotations

import asyncio
import json
import shutil
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from structlog.testing import capture_logs

from proxyd.config.tls import Tls
from proxyd.daemon.server import Daemon
from tests.support.certificates import make_certificate
from tests.support.harness import HalfStream, load_entries, running_upstream, text_stream
from tests.support.raw_sockets import until
from tests.support.streams import HELLO

ENTRY = {"model_id": "m", "api_key": "sk-configured-0123456789"}


def half_stream(*, is_held: bool = False) -> HalfStream:
    half = HalfStream(text_stream(*["a word"] * 500), 1000)
    if not is_held:
        half.go_on.set()
    return half


@asynccontextmanager
async def tls_daemon(tls: Tls, upstream: HalfStream | None = None) -> AsyncIterator[Daemon]:
    async with running_upstream(upstream or half_stream()) as server:
        daemon = Daemon(load_entries([{**ENTRY, "api_base": f"{server.base}/v1"}], tls_address=tls))
        await daemon.start()
        try:
            yield daemon
        finally:
            await daemon.drain()
            await daemon.close()


def base(daemon: Daemon) -> str:
    assert daemon._tls is not None
    return f"https://localhost:{daemon._tls.addresses[0][1]}"


async def call(daemon: Daemon, trusted: Path, own: tuple[Path, Path] | None = None) -> str:
    """Make a call with a new connection; gives the text of the stream."""
    context = ssl.create_default_context(cafile=str(trusted))
    if own is not None:
        context.load_cert_chain(*own)
    connector = aiohttp.TCPConnector(ssl=context, force_close=True)
    async with aiohttp.ClientSession(connector=connector) as session:
        async with session.post(f"{base(daemon)}/v1/messages", json={**HELLO, "stream": True}) as response:
            assert response.status == 200
            return await response.text()


async def test_streams_over_tls_and_without(tmp_path: Path) -> None:
    key, cert = make_certificate(tmp_path)
    async with tls_daemon(Tls(cert, key, None, "127.0.0.1", 0)) as daemon:
        text = await call(daemon, cert)
        assert text.count("a word") == 500
        assert "message_stop" in text
        assert daemon.about()["tls_address"] == ["127.0.0.1", int(base(daemon).rpartition(":")[2])]
        host, port = daemon.addresses[0]
        async with aiohttp.ClientSession() as session:
            async with session.get(f"http://{host}:{port}/healthz") as plain:
                assert plain.status == 200
            context = ssl.create_default_context(cafile=str(cert))
            probe = {"probe": True}
            async with session.post(f"{base(daemon)}/test-connection", json=probe, ssl=context) as response:
                found = json.loads(await response.read())
                assert found["ok"] is True, found["routes"]
        (tmp_path / "other").mkdir()
        _, other = make_certificate(tmp_path / "other")
        with pytest.raises(aiohttp.ClientConnectorCertificateError):
            await call(daemon, other)


async def test_a_changed_certificate_is_taken_over_and_a_broken_one_is_not(tmp_path: Path) -> None:
    key, cert = make_certificate(tmp_path)
    (tmp_path / "new").mkdir()
    new_key, new_cert = make_certificate(tmp_path / "new")
    old = tmp_path / "old.pem"
    shutil.copy(cert, old)
    half = half_stream(is_held=True)
    async with tls_daemon(Tls(cert, key, None, "127.0.0.1", 0), half) as daemon:
        assert daemon._tls is not None
        stream = asyncio.ensure_future(call(daemon, old))
        await until(lambda: half.begun == 1)
        shutil.copy(new_key, key)
        shutil.copy(new_cert, cert)
        assert cert in daemon._watched_files()
        with capture_logs() as lines:
            await daemon._tls.renew()
            await daemon._tls.renew()
            half.go_on.set()
            assert "message_stop" in await stream, "an open stream goes on"
            await call(daemon, new_cert)
            with pytest.raises(aiohttp.ClientConnectorCertificateError):
                await call(daemon, old)
            cert.write_text("no certificate")
            await daemon._tls.renew()
            await call(daemon, new_cert)
    events = [line["event"] for line in lines if line["event"].startswith("tls.")]
    assert events == ["tls.renewed", "tls.rejected"]


# Python 3.10 does not close the transport of a handshake that has failed.
@pytest.mark.filterwarnings(
    "ignore:.*_SSLProtocolTransport:ResourceWarning",
    "ignore:.*_SSLProtocolTransport:pytest.PytestUnraisableExceptionWarning",
)
async def test_certificates_of_clients_are_asked_for(tmp_path: Path) -> None:
    key, cert = make_certificate(tmp_path)
    (tmp_path / "client").mkdir()
    client_key, client_cert = make_certificate(tmp_path / "client")
    async with tls_daemon(Tls(cert, key, client_cert, "127.0.0.1", 0)) as daemon:
        assert "message_stop" in await call(daemon, cert, (client_cert, client_key))
        for own in (None, (cert, key)):
            with pytest.raises((aiohttp.ClientError, ConnectionError, ssl.SSLError)):
                await call(daemon, cert, own)
