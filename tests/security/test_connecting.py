"""What comes before a request: names, proxies, TLS, descriptors. One timeout covers it, and it holds up nothing."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from proxyd.errors import ConfigError
from proxyd.transport.lookups import Lookups
from tests.support.certificates import make_certificate, server_context
from tests.support.daemon_process import process, write_models
from tests.support.harness import running_proxy
from tests.support.ports import free_port
from tests.support.raw_sockets import RawClient, RawResponse, RawUpstream, no_leaks, post, until
from tests.support.servers import running_server
from tests.support.streams import CHUNKED, DIRECT, HELLO, TRANSLATED, as_chunks, judge

END = b"0\r\n\r\n"
KEY = "X-Api-Key: sk-client-0123456789"
ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make_certificate(tmp_path_factory.mktemp("certificate"))


class Proxy:
    """An HTTP proxy that makes tunnels (CONNECT).

    Args:
        response: what it answers instead of making one; None for silence.

    Attributes:
        lines: the request lines that it has read.
    """

    def __init__(self, response: bytes | None = ESTABLISHED, *, is_tunnel_silent: bool = False) -> None:
        self.lines: list[bytes] = []
        self.port = 0
        self._response = response
        self._is_tunnel_silent = is_tunnel_silent

    @asynccontextmanager
    async def running(self) -> AsyncIterator[str]:
        """Its URL."""
        async with running_server(self._serve) as port:
            yield f"http://user:word@127.0.0.1:{port}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            self.lines.append(head.partition(b"\r\n")[0])
            if self._response is not None:
                writer.write(self._response)
            if self._response != ESTABLISHED or self._is_tunnel_silent:
                await reader.read()
                return
            host, _, port = head.split()[1].decode().rpartition(":")
            there_reader, there_writer = await asyncio.open_connection(host, int(port))
            try:
                await asyncio.gather(_pump(reader, there_writer), _pump(there_reader, writer))
            finally:
                there_writer.transport.abort()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.transport.abort()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()


async def ask(base: str, model: str = "m", **more: Any) -> RawResponse:
    async with RawClient.to(base) as client:
        await client.send(post({**HELLO, "model": model, **more}, KEY))
        return await client.response(20)


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Without any proxy."""
    for name in ("http_proxy", "https_proxy", "no_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    return monkeypatch


# -- proxies


@pytest.mark.statement("E10")
@pytest.mark.parametrize("direct", [True, False], ids=["direct", "translated"])
async def test_an_https_upstream_is_reached_through_the_proxy_of_the_environment(
    certificate: tuple[Path, Path], direct: bool, environment: pytest.MonkeyPatch
) -> None:
    frames = DIRECT if direct else TRANSLATED
    upstream = RawUpstream(
        lambda _: (CHUNKED, as_chunks(*frames.values()), END), tls=server_context(*certificate)
    )
    proxy = Proxy()
    settings: dict[str, Any] = {"trust_env": True, "ca_file": str(certificate[1]), "max_retries": 0}
    async with no_leaks(), upstream.running(), proxy.running() as url:
        environment.setenv("HTTPS_PROXY", url)
        entry = {"model_id": "m", "api_base": upstream.base, "direct": direct}
        async with running_proxy([entry], **settings) as base:
            for _ in range(2):
                response = await ask(base)
                assert response.status == 200
                assert judge(response.events()) == "message_stop"
    assert proxy.lines == [b"CONNECT localhost:%d HTTP/1.1" % upstream.port]
    assert len(upstream.heads) == 2
    assert all(b"Proxy-Authorization" not in head for head in upstream.heads)


@pytest.mark.parametrize(
    "response",
    [b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n", b"nonsense\r\n\r\n"],
    ids=["403", "nonsense"],
)
async def test_a_proxy_that_makes_no_tunnel_is_named(
    response: bytes, environment: pytest.MonkeyPatch
) -> None:
    proxy = Proxy(response)
    async with no_leaks(), proxy.running() as url:
        environment.setenv("HTTPS_PROXY", url)
        entry = {"model_id": "m", "api_base": "https://upstream.invalid/v1"}
        async with running_proxy([entry], trust_env=True, max_retries=0) as base:
            answer = await ask(base)
    assert answer.status == 502
    assert b"upstream.invalid" in answer.body
    assert b"word" not in answer.body


async def test_a_proxy_that_is_not_there_is_named(environment: pytest.MonkeyPatch) -> None:
    port = free_port()
    environment.setenv("HTTPS_PROXY", f"http://user:word@127.0.0.1:{port}")
    entry = {"model_id": "m", "api_base": "https://upstream.invalid/v1"}
    async with running_proxy([entry], trust_env=True, max_retries=0) as base:
        response = await ask(base)
    assert response.status == 502
    assert response.error()[1] == (
        f"could not connect to the proxy of the environment (http://127.0.0.1:{port}) for upstream.invalid: "
        "connection refused (https://upstream.invalid/v1/chat/completions)"
    )


async def test_a_kind_of_proxy_that_is_not_supported_is_named(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("ALL_PROXY", "socks5://user:word@127.0.0.1:1080")
    entry = {"model_id": "m", "api_base": "https://upstream.invalid/v1"}
    async with running_proxy([entry], trust_env=True, max_retries=0) as base:
        response = await ask(base)
    assert response.status == 502
    words = response.error()[1]
    assert "upstream.invalid is of the kind socks5, which is not supported: set HTTPS_PROXY" in words
    assert "word" not in words


# -- what answers there


async def test_a_name_that_resolves_to_nothing_is_named(environment: pytest.MonkeyPatch) -> None:
    entry = {"model_id": "m", "api_base": "https://nobody.invalid/v1"}
    async with running_proxy([entry]) as base:
        response = await ask(base)
    assert response.status == 502
    assert "https://nobody.invalid/v1/chat/completions" in response.error()[1]
    assert "could not be resolved" in response.error()[1]


async def test_a_certificate_that_has_expired_is_named(tmp_path: Path) -> None:
    key, certificate = make_certificate(tmp_path, has_expired=True)
    upstream = RawUpstream(lambda _: (), tls=server_context(key, certificate))
    async with no_leaks(), upstream.running():
        entry = {"model_id": "m", "api_base": upstream.base}
        async with running_proxy([entry], ca_file=str(certificate)) as base:
            response = await ask(base)
    assert response.status == 502
    assert f"localhost:{upstream.port}" in response.error()[1]
    assert "could not be verified: certificate has expired" in response.error()[1]
    assert upstream.heads == []


@pytest.mark.parametrize("what", ["certificate", "authorities"])
async def test_a_file_without_certificates_ends_the_start(what: str, tmp_path: Path) -> None:
    path = tmp_path / "file.pem"
    path.write_text("nonsense")
    name = "client_cert" if what == "certificate" else "ca_file"
    with pytest.raises(ConfigError, match=f"{name}: .*file.pem can't be used: .*; expected a PEM file with"):
        async with running_proxy([{"model_id": "m", "api_base": "https://x.invalid"}], **{name: str(path)}):
            pass


# -- one timeout


@pytest.fixture
def silent_names(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Names under ``.invalid`` get no response until the test ends; those that were asked for."""
    over, asked, known = threading.Event(), [], socket.getaddrinfo
    waiting: set[threading.Thread] = set()

    def getaddrinfo(host: Any, *more: Any, **options: Any) -> Any:
        if str(host).endswith(".invalid"):
            asked.append(str(host))
            waiting.add(threading.current_thread())
            over.wait(60)
            raise socket.gaierror(socket.EAI_NONAME, "the test is over")
        return known(host, *more, **options)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    yield asked
    over.set()
    for thread in waiting:
        thread.join(10)


@pytest.mark.statement("B connect_s")
@pytest.mark.parametrize("silent", ["name", "name of the proxy", "proxy", "TLS", "TLS in the tunnel"])
@pytest.mark.parametrize("is_stream", [True, False], ids=["stream", "whole"])
async def test_one_timeout_covers_all_that_makes_a_connection(
    silent: str, is_stream: bool, environment: pytest.MonkeyPatch, silent_names: list[str]
) -> None:
    proxy = Proxy(None if silent in ("proxy", "TLS") else ESTABLISHED, is_tunnel_silent=True)
    async with proxy.running() as url:
        port = url.rpartition(":")[2]
        target = f"https://127.0.0.1:{port}" if silent == "TLS" else "https://host.invalid"
        if silent in ("proxy", "TLS in the tunnel"):
            environment.setenv("HTTPS_PROXY", url)
        elif silent == "name of the proxy":
            environment.setenv("HTTPS_PROXY", f"http://proxy.invalid:{port}")
        entry = {"model_id": "m", "api_base": f"{target}/v1"}
        settings = {"connect_s": 0.2, "first_byte_s": 60.0, "max_retries": 0, "trust_env": True}
        async with running_proxy([entry], **settings) as base:
            response = await ask(base, stream=is_stream)
    assert response.status == 502
    assert "could be made in time" in response.error()[1]


# -- names


async def test_names_that_nobody_answers_for_hold_up_nothing_else(silent_names: list[str]) -> None:
    upstream = RawUpstream(lambda _: (CHUNKED, as_chunks(*TRANSLATED.values()), END))
    async with upstream.running():
        entries = [{"model_id": f"dead{n}", "api_base": f"http://host{n}.invalid/v1"} for n in range(40)] + [
            {"model_id": "m", "api_base": f"http://localhost:{upstream.port}/v1"}
        ]
        async with running_proxy(entries, connect_s=0.0, max_retries=0) as base, AsyncExitStack() as stack:
            for n in range(40):
                client = await stack.enter_async_context(RawClient.to(base))
                await client.send(post({**HELLO, "model": f"dead{n}", "stream": False}, KEY))
            await until(lambda: len(silent_names) == 40, 30)
            assert (await ask(base)).status == 200
            async with RawClient.to(base) as client:
                await client.send(b"GET /dashboard HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
                assert (await client.response()).status == 200
            assert (
                await asyncio.wait_for(asyncio.to_thread(lambda: "the loop's own threads are free"), 30)
            ).startswith("the loop")


async def test_a_reload_and_a_stop_wait_for_no_name(tmp_path: Path) -> None:
    """The resolver is silent for a minute."""
    upstream = RawUpstream(lambda _: (CHUNKED, as_chunks(*TRANSLATED.values()), END))
    dead = [{"model_id": f"dead{n}", "api_base": f"http://host{n}.invalid/v1"} for n in range(40)]
    settings: dict[str, Any] = {"connect_s": 50.0, "max_retries": 0, "drain_timeout_s": 1.0}
    async with upstream.running(), AsyncExitStack() as stack:
        child = await stack.enter_async_context(
            process(tmp_path, upstream, *dead, module="tests.security.silent_names", **settings)
        )
        for n in range(40):
            client = await stack.enter_async_context(RawClient.to(child.base))
            await client.send(post({**HELLO, "model": f"dead{n}", "stream": False}, KEY))
        await asyncio.sleep(0.5)
        write_models(tmp_path, upstream, *dead[1:], **settings)
        child.send(signal.SIGHUP)
        await child.says("config.reloaded")
        child.send(signal.SIGTERM)
        assert await child.ended(20) == 0


async def test_look_ups_over_the_limit_wait_and_those_given_up_are_not_made() -> None:
    lookups, gate, made = Lookups(max_threads=2), threading.Event(), []

    def look_up(name: str) -> str:
        made.append(name)
        gate.wait(20)
        return name

    tasks = [asyncio.ensure_future(lookups.run(lambda n=n: look_up(n))) for n in "abcd"]
    await until(lambda: len(made) == 2, 30)
    tasks[2].cancel()
    await asyncio.sleep(0)
    gate.set()
    assert [await tasks[n] for n in (0, 1, 3)] == ["a", "b", "d"]
    assert sorted(made) == ["a", "b", "d"]
    with pytest.raises(ZeroDivisionError):
        await lookups.run(lambda: 1 // 0)


# -- descriptors


@pytest.mark.statement("D4")
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_descriptors_that_ran_out_here_open_no_circuit(host: str) -> None:
    upstream = RawUpstream(lambda _: (CHUNKED, as_chunks(*TRANSLATED.values()), END))
    async with upstream.running():
        entry = {"model_id": "m", "api_base": f"http://{host}:{upstream.port}/v1"}
        settings = {"circuit_failures": 2, "circuit_open_s": 600.0, "max_retries": 0}
        async with running_proxy([entry], **settings) as base, RawClient.to(base) as client:
            await client.send(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            await client.response()  # its connection is there
            soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            with no_descriptors(soft, hard):
                for _ in range(4):
                    await client.send(post({**HELLO, "stream": False}, KEY))
                    response = await client.response()
                    assert response.status == 502
                    assert "on this machine" in response.error()[1]
            await client.send(post(HELLO))
            assert (await client.response()).status == 200
    assert len(upstream.heads) == 1


class no_descriptors:  # noqa: N801 - used like a function
    """No descriptor can be opened within."""

    def __init__(self, soft: int, hard: int) -> None:
        self._limits = soft, hard

    def __enter__(self) -> None:
        free = os.dup(0)
        os.close(free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (free, self._limits[1]))

    def __exit__(self, *exc: object) -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, self._limits)
