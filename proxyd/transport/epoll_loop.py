"""The daemon's event loop: asyncio's own, with a selector on epoll (Linux) that is made for one event at a time.

Most turns of the loop bring one descriptor that can be read: a piece of a stream. Between two of them the machine does
other things, so that what counts is how much code and data a turn touches. The library's selector works out the
timeout, which epoll then does once more, and makes its answer anew for each event. Here that answer lies ready. And
from the selector's answer to the first line that reads a piece the loop takes six calls, a list, a queue and a context:
who wants to can have its descriptor read before all that.
"""

from __future__ import annotations

import asyncio
import select
import selectors
from collections.abc import Callable
from typing import Any

__all__ = ["EventLoop", "Selector"]

#: Events that are taken at once. Those beyond come with the next look, and epoll lets none starve.
_MOST_EVENTS = 256

_IN = select.EPOLLIN


class Selector(selectors.EpollSelector):
    """As its base, which keeps the books."""

    _selector: select.epoll  # the base's own; typing does not know it

    def __init__(self) -> None:
        super().__init__()
        self._poll: Callable[[float, int], list[tuple[int, int]]] = self._selector.poll
        self._keys: dict[int, selectors.SelectorKey] = {}
        #: What `select` returns where a descriptor can be read and nothing else has happened.
        self._readable: dict[int, list[tuple[selectors.SelectorKey, int]]] = {}
        self._at_once: dict[int, Callable[[], bool]] = {}

    def read_at_once(self, descriptor: int, read: Callable[[], bool]) -> None:
        """Have `read` called from within `select` whenever `descriptor` can be read and nothing else has happened to
        it, until it is unregistered.

        Args:
            read: what it returns says whether that was all; if not, it is told as ever. It must not raise.
        """
        if descriptor in self._keys:
            self._at_once[descriptor] = read

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._note(super().register(fileobj, events, data))

    def modify(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        key = self.get_key(fileobj)
        try:
            return self._note(super().modify(fileobj, events, data))
        except Exception:
            self._forget(key.fd)  # the base has unregistered it
            raise

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        key = super().unregister(fileobj)
        self._forget(key.fd)
        return key

    def close(self) -> None:
        super().close()
        self._keys.clear()
        self._readable.clear()
        self._at_once.clear()

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """What has happened. The list is for looking at: it may be given out again."""
        if timeout is None:
            timeout = -1
        elif timeout < 0:
            timeout = 0
        try:
            found = self._poll(timeout, _MOST_EVENTS)
        except InterruptedError:
            return []
        ready: list[tuple[selectors.SelectorKey, int]] = []
        for descriptor, event in found:
            if event == _IN:
                if (read := self._at_once.get(descriptor)) is not None and read():
                    continue
                if len(found) == 1 and (alone := self._readable.get(descriptor)) is not None:
                    return alone
            key = self._keys.get(descriptor)
            if key is not None:
                # Anything else, such as a reset, is told by reading and by writing.
                reads = selectors.EVENT_READ if event & ~select.EPOLLOUT else 0
                writes = selectors.EVENT_WRITE if event & ~select.EPOLLIN else 0
                ready.append((key, (reads | writes) & key.events))
        return ready

    def _note(self, key: selectors.SelectorKey) -> selectors.SelectorKey:
        self._keys[key.fd] = key
        if key.events & selectors.EVENT_READ:
            self._readable[key.fd] = [(key, selectors.EVENT_READ)]
        else:
            self._readable.pop(key.fd, None)
        return key

    def _forget(self, descriptor: int) -> None:
        self._keys.pop(descriptor, None)
        self._readable.pop(descriptor, None)
        self._at_once.pop(descriptor, None)


class EventLoop(asyncio.SelectorEventLoop):
    """asyncio's, on a `Selector`."""

    def __init__(self) -> None:
        self._looks = Selector()
        super().__init__(self._looks)

    def read_at_once(self, descriptor: int, read: Callable[[], bool]) -> None:
        """See `Selector.read_at_once`."""
        self._looks.read_at_once(descriptor, read)
