"""The loop's selector tells what the standard library's tells, and its loop carries streams."""

from __future__ import annotations

import asyncio
import os
import selectors
import socket
import struct
import sys
import weakref
from collections.abc import Iterator
from contextlib import ExitStack
from time import monotonic

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

if sys.platform != "linux":
    pytest.skip("epoll is Linux's", allow_module_level=True)

from proxyd.cli.commands.run import _run
from proxyd.transport.epoll_loop import _MOST_EVENTS, Selector
from tests.support.effort import examples

_BOTH = selectors.EVENT_READ | selectors.EVENT_WRITE


@pytest.fixture
def selector() -> Iterator[Selector]:
    found = Selector()
    yield found
    found.close()


def _pair() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        far = socket.create_connection(server.getsockname())
        near, _ = server.accept()
    near.setblocking(False)
    return near, far


_steps = st.tuples(
    st.sampled_from(["register", "unregister", "modify", "send", "read", "shut", "reset", "look"]),
    st.integers(0, 2),
    st.sampled_from([selectors.EVENT_READ, selectors.EVENT_WRITE, _BOTH]),
    st.integers(0, 1),
)


@given(st.lists(_steps, max_size=25))
@settings(max_examples=examples(150), deadline=None)
def test_it_tells_what_the_library_s_tells(steps: list[tuple[str, int, int, int]]) -> None:
    with ExitStack() as stack:
        ours, theirs = Selector(), selectors.EpollSelector()
        pairs = [_pair() for _ in range(3)]
        stack.callback(ours.close)
        stack.callback(theirs.close)
        for near, far in pairs:
            stack.callback(near.close)
            stack.callback(far.close)
        known: set[int] = set()
        for step, number, events, data in (*steps, ("look", 0, 0, 0)):
            near, far = pairs[number]
            if step == "register" and number not in known:
                known.add(number)
                assert ours.register(near, events, data) == theirs.register(near, events, data)
            elif step == "unregister" and number in known:
                known.remove(number)
                assert ours.unregister(near) == theirs.unregister(near)
            elif step == "modify" and number in known:
                assert ours.modify(near, events, data) == theirs.modify(near, events, data)
            elif step == "send" and far.fileno() >= 0:
                far.send(b"x")
            elif step == "read":
                try:
                    near.recv(10)
                except OSError:
                    pass
            elif step == "shut" and far.fileno() >= 0:
                far.shutdown(socket.SHUT_WR)
                pairs[number] = near, socket.socket()
                stack.callback(pairs[number][1].close)
                pairs[number][1].close()
            elif step == "reset" and far.fileno() >= 0:
                far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                far.close()
            assert dict(ours.select(0)) == dict(theirs.select(0))
            assert dict(ours.get_map()) == dict(theirs.get_map())


def test_it_waits_as_long_as_it_is_told(selector: Selector) -> None:
    near, far = _pair()
    with near, far:
        selector.register(near, selectors.EVENT_READ)
        began = monotonic()
        assert selector.select(0) == selector.select(-1) == []
        assert selector.select(0.0301) == []
        assert monotonic() - began >= 0.0301
        far.send(b"x")
        ((key, events),) = selector.select(None)
        assert (key.fd, events) == (near.fileno(), selectors.EVENT_READ)


def test_a_descriptor_that_was_closed_and_given_out_again_is_the_new_one(selector: Selector) -> None:
    near, far = _pair()
    again, other = _pair()
    number = near.fileno()
    with near, far, again, other:
        selector.register(number, selectors.EVENT_READ, "old")
        far.send(b"x")
        assert [key.data for key, _ in selector.select(0)] == ["old"]
        selector.unregister(number)
        os.dup2(again.fileno(), number)
        selector.register(number, selectors.EVENT_READ, "new")
        assert selector.select(0) == []
        other.send(b"x")
        assert [key.data for key, _ in selector.select(0)] == ["new"]


def test_a_pipe_whose_writer_has_gone_can_be_read(selector: Selector) -> None:
    reader, writer = os.pipe()
    selector.register(reader, selectors.EVENT_READ)
    os.close(writer)
    ((key, events),) = selector.select(1)
    assert (key.fd, events) == (reader, selectors.EVENT_READ)
    os.close(reader)


class _Data:
    pass


def test_what_belongs_to_a_descriptor_is_let_go_of_with_it(selector: Selector) -> None:
    near, far = _pair()
    with near, far:
        held: list[weakref.ref[_Data]] = []
        for change in (selector.register, selector.modify):
            data = _Data()
            held.append(weakref.ref(data))
            change(near, selectors.EVENT_READ, data)
            del data
            assert [each() is None for each in held] == [True] * (len(held) - 1) + [False]
        selector.unregister(near)
        assert [each() for each in held] == [None, None]


def test_who_reads_at_once_is_called_first_and_says_whether_that_was_all(selector: Selector) -> None:
    (near, far), (other, other_far) = _pair(), _pair()
    number, calls, answers = near.fileno(), [], [True, False, True]

    def read() -> bool:
        calls.append(near.recv(10))
        return answers.pop(0)

    def told() -> dict[int, int]:
        return {key.fd: events for key, events in selector.select(0)}

    with near, far, other, other_far:
        selector.read_at_once(number, read)  # of nothing that is registered
        selector.register(near, selectors.EVENT_READ)
        selector.register(other, selectors.EVENT_READ)
        far.send(b"0")
        assert told() == {number: selectors.EVENT_READ}
        assert near.recv(10) == b"0"
        selector.read_at_once(number, read)
        far.send(b"1")
        assert told() == {}
        far.send(b"2")
        assert told() == {number: selectors.EVENT_READ}
        other_far.send(b"x")
        far.send(b"3")
        assert told() == {other.fileno(): selectors.EVENT_READ}
        assert calls == [b"1", b"2", b"3"]


@pytest.mark.parametrize("change", ["modify", "reset", "unregister"])
def test_nobody_reads_at_once_where_something_else_has_happened(selector: Selector, change: str) -> None:
    near, far = _pair()
    with near, far:
        selector.register(near, selectors.EVENT_READ)
        selector.read_at_once(near.fileno(), lambda: pytest.fail("it has been called"))
        far.send(b"x")
        if change == "modify":
            selector.modify(near, _BOTH)
        elif change == "reset":
            far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            far.close()
        else:
            selector.unregister(near)
            selector.register(near, selectors.EVENT_READ)
        ((key, _),) = selector.select(1)
        assert key.fd == near.fileno()


def test_it_is_read_at_once_again_when_writing_has_ended(selector: Selector) -> None:
    near, far = _pair()
    with near, far:
        selector.register(near, selectors.EVENT_READ)
        selector.read_at_once(near.fileno(), lambda: near.recv(10) == b"x")
        selector.modify(near, _BOTH)
        selector.modify(near, selectors.EVENT_READ)
        far.send(b"x")
        assert selector.select(1) == []
        with pytest.raises(BlockingIOError):
            near.recv(10)


def test_of_more_events_than_it_takes_at_once_none_is_lost(selector: Selector) -> None:
    with ExitStack() as stack:
        numbers = set()
        for _ in range(_MOST_EVENTS + 10):
            reader, writer = os.pipe()
            stack.callback(os.close, reader)
            stack.callback(os.close, writer)
            os.write(writer, b"x")
            selector.register(reader, selectors.EVENT_READ)
            numbers.add(reader)
        first, second = ({key.fd for key, _ in selector.select(0)} for _ in range(2))
        assert len(first) == _MOST_EVENTS
        assert first | second == numbers


@pytest.mark.skipif(sys.version_info < (3, 11), reason="Python 3.10 has no asyncio.Runner")
def test_the_daemon_runs_with_it() -> None:
    async def daemon() -> None:
        assert type(vars(asyncio.get_running_loop())["_selector"]) is Selector
        reader, writer = await asyncio.open_connection(sock=far)
        writer.write(b"ping")
        assert await asyncio.get_running_loop().sock_recv(near, 10) == b"ping"
        await asyncio.get_running_loop().sock_sendall(near, b"pong")
        near.close()
        assert await asyncio.wait_for(reader.read(), 5) == b"pong"
        writer.close()

    near, far = _pair()
    with near, far:
        _run(daemon())
