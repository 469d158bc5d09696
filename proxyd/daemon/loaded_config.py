"""A configuration as a whole: what the daemon runs on, and what the commands that only read it look at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from proxyd.config.models import Config
from proxyd.config.settings import Settings
from proxyd.hooks.loader import HookSet

__all__ = ["LoadConfig", "LoadedConfig"]


@dataclass(frozen=True, slots=True)
class LoadedConfig:
    """A configuration that is valid as a whole."""

    config: Config
    settings: Settings
    hooks: HookSet = field(default_factory=HookSet)


#: Reads the configuration afresh. Raises `ConfigError`.
LoadConfig = Callable[[], LoadedConfig]
