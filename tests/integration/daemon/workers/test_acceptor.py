"""Connections from the parent to workers: in turn, by session, and none lost."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from proxyd.daemon.workers import acceptor as acceptor_module
from proxyd.daemon.workers.acceptor import Acceptor
from proxyd.daemon.workers.channel import PLAIN, TLS
from tests.support.raw_sockets import no_leaks, until


@dataclass
class Worker:
    """The end of a channel that a worker reads."""

    number: int
    is_ready: bool = True
    got: list[tuple[bytes, bytes]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.socket, self.end = socket.socketpair()
        self.socket.setblocking(False)
        self.end.setblocking(False)

    def read(self) -> int:
        """Take what has been passed, with the first bytes of each; return how many there are by now."""
        while True:
            try:
                kind, descriptors, _, _ = socket.recv_fds(self.end, 1, 1)
            except BlockingIOError:
                return len(self.got)
            with socket.socket(fileno=descriptors[0]) as connection:
                connection.settimeout(0)
                try:
                    self.got.append((kind, connection.recv(4096)))
                except BlockingIOError:
                    self.got.append((kind, b""))


class Bench:
    """An acceptor, workers and clients."""

    def __init__(self, workers: int) -> None:
        self.workers = [Worker(number) for number in range(1, workers + 1)]
        self.listening = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
        for each in self.listening:
            each.setblocking(False)
        self.addresses = [each.getsockname() for each in self.listening]
        self.clients: list[socket.socket] = []

    def start(self) -> Acceptor:
        plain, tls = self.listening
        acceptor = Acceptor([plain], [tls], lambda: [each for each in self.workers if each.is_ready])
        acceptor.start()
        return acceptor

    def connect(self, session: str | None = None, *, says: bytes | None = None, tls: bool = False) -> None:
        client = socket.create_connection(self.addresses[tls])
        self.clients.append(client)
        if session is not None:
            says = f"POST / HTTP/1.1\r\nHost: x\r\nX-Claude-Code-Session-Id: {session}\r\n\r\n".encode()
        if says:
            client.sendall(says)

    async def passed(self, count: int) -> list[int]:
        """Wait until so many connections have been passed; return how many each worker has."""
        await until(lambda: sum(each.read() for each in self.workers) >= count, 30)
        return [len(each.got) for each in self.workers]

    def close(self) -> None:
        for each in [*self.clients, *self.listening]:
            each.close()
        for worker in self.workers:
            worker.socket.close()
            worker.end.close()


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench(2)
    yield bench
    bench.close()


async def test_conversations_are_distributed_evenly_and_stay_with_their_worker(bench: Bench) -> None:
    async with no_leaks():
        acceptor = bench.start()
        for session in "abcdef":
            bench.connect(session)
        assert await bench.passed(6) == [3, 3]
        of = {data[-20:]: worker for worker in bench.workers for _, data in worker.got}
        for _ in range(2):
            for session in "fedcba":
                bench.connect(session)
        assert await bench.passed(18) == [9, 9]
        assert {data[-20:]: worker for worker in bench.workers for _, data in worker.got} == of
        assert all(
            kind == PLAIN and data.endswith(b"\r\n\r\n") for each in bench.workers for kind, data in each.got
        )
        acceptor.close()
        bench.close()


async def test_connections_without_a_session_go_in_turn_also_those_that_say_nothing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(acceptor_module, "_FIRST_BYTES_S", 0.05)
    acceptor = bench.start()
    for _ in range(2):
        bench.connect(says=b"GET /healthz HTTP/1.1\r\n\r\n")
        bench.connect(tls=True)
        bench.connect()
    assert await bench.passed(6) == [3, 3]
    kinds = sorted(kind for each in bench.workers for kind, _ in each.got)
    assert kinds == sorted([PLAIN] * 4 + [TLS] * 2)
    acceptor.close()


async def test_what_comes_while_no_worker_is_ready_waits(bench: Bench) -> None:
    for each in bench.workers:
        each.is_ready = False
    acceptor = bench.start()
    for session in "abc":
        bench.connect(session)
    bench.connect(tls=True)
    await until(lambda: len(acceptor._waiting) == 4, 30)
    assert await bench.passed(0) == [0, 0]
    bench.workers[1].is_ready = True
    acceptor.pass_waiting()
    assert await bench.passed(4) == [0, 4]
    acceptor.close()


async def test_a_worker_that_is_gone_is_passed_over_and_its_conversations_move(bench: Bench) -> None:
    acceptor = bench.start()
    for session in "ab":
        bench.connect(session)
    assert await bench.passed(2) == [1, 1]
    bench.workers[0].end.close()
    for session in "abab":
        bench.connect(session)
    await until(lambda: bench.workers[1].read() == 5, 30)
    acceptor.close()


async def test_a_client_that_leaves_and_one_that_comes_too_late_trouble_nobody(bench: Bench) -> None:
    acceptor = bench.start()
    bench.connect()
    bench.clients.pop().close()
    bench.connect("a")
    assert sum(await bench.passed(1)) >= 1
    acceptor.close()
    with pytest.raises(ConnectionRefusedError):
        bench.connect("b")
