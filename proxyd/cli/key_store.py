"""The store of virtual keys that the daemon uses, for commands."""

from __future__ import annotations

import os
from collections.abc import Sequence

from proxyd.config.database_url import DatabaseUrl
from proxyd.config.envfile import with_env_file
from proxyd.config.paths import resolve_models_path, resolve_state_folder
from proxyd.config.routes import ModelRoute
from proxyd.store.interface import KeyStore
from proxyd.store.opening import open_key_store

__all__ = ["configured_store", "configured_url", "open_configured_store"]


def configured_url() -> DatabaseUrl | None:
    """Return the address that the setting ``store`` has, None for SQLite.

    Raises:
        ConfigError: models.yaml or the setting is invalid. Keys must not go into another store than the daemon's.
    """
    return configured_store()[0]


def configured_store() -> tuple[DatabaseUrl | None, Sequence[ModelRoute]]:
    """Return the address of the store, as `configured_url`, and the entries of models.yaml.

    Raises:
        ConfigError: as `configured_url`.
    """
    path, _ = resolve_models_path(None, os.environ)
    if path.exists():
        from proxyd.daemon.configuration import load_settings

        config, settings = load_settings({}, path, os.environ)
        return settings.store, config.table.routes
    from proxyd.config.settings_loader import decide_settings

    return decide_settings({}, with_env_file(path.parent, os.environ), folder=path.parent).store, ()


def open_configured_store() -> KeyStore:
    """Open the store that the daemon uses.

    Raises:
        ConfigError: as `configured_url`.
    """
    return open_key_store(configured_url(), resolve_state_folder(os.environ))
