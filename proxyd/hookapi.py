"""Public module for hook files: the events of a stream and the context of a call."""

from __future__ import annotations

from proxyd.hooks.api import *  # noqa: F403
from proxyd.hooks.api import __all__ as __all__
