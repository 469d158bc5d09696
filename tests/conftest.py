"""Tests run on the daemon's own event loop, where it has one (`proxyd.transport.epoll_loop`); those of the uplink,
which reads its sockets otherwise there, on asyncio's as well.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Mapping

import pytest

from tests.support.command_line import home
from tests.support.effort import load_profile

__all__ = ["home"]

load_profile()


def pytest_asyncio_loop_factories(
    item: pytest.Item,
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    factories: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {}
    if sys.platform == "linux":
        from proxyd.transport.epoll_loop import EventLoop

        factories["proxyd"] = EventLoop
    if not factories or item.path.name == "test_pool.py":
        factories["asyncio"] = asyncio.new_event_loop
    return factories
