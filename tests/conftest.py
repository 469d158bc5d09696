"""What every test of the tree needs: the home folder of a command, and the effort of property tests."""

from __future__ import annotations

from tests.support.command_line import home
from tests.support.effort import load_profile

__all__ = ["home"]

load_profile()
