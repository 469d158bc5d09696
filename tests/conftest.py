"""What every test of the tree needs: the event loop, the home of a command, a database server, the effort of
property tests."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping

import pytest
import structlog

from tests.support.command_line import home
from tests.support.effort import load_profile
from tests.support.event_loop import Loop
from tests.support.postgres import postgres

__all__ = ["home", "postgres"]

load_profile()


def pytest_collection_finish() -> None:
    """Keep the objects of pytest, the modules and the tests out of later garbage collections, and have fewer of them.

    With the interpreter's own thresholds they took an eighth of the processor time of all unit tests.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], Loop]]:
    return {"test": Loop}


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown() -> None:
    """Undo what a command or daemon that a test ran in this process has configured: it would filter what others log."""
    if structlog.is_configured():
        structlog.reset_defaults()
