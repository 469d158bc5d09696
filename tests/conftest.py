"""What every test of the tree needs: the home of a command, a database server, the effort of property tests."""

from __future__ import annotations

from tests.support.command_line import home
from tests.support.effort import load_profile
from tests.support.postgres import postgres

__all__ = ["home", "postgres"]

load_profile()
