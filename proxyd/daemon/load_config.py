"""Flags, environment and models.yaml, read together into what the daemon runs on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from proxyd.config.envfile import fault_of_env_file, with_env_file
from proxyd.config.models import Checks, Config, load
from proxyd.config.paths import resolve_models_path
from proxyd.config.settings import Settings
from proxyd.config.settings_loader import decide_settings, faults_in_file
from proxyd.daemon.loaded_config import LoadedConfig
from proxyd.errors import ConfigError, UnsafePermissions
from proxyd.hooks.loader import load_hooks
from proxyd.providers.registry import PROFILES, dialect_for, profile_for
from proxyd.providers.route_warnings import route_warnings

__all__ = ["checks", "load_configuration", "load_settings"]


def checks() -> Checks:
    """What models.yaml is held against: the profiles, their quirks and the settings there are."""
    return Checks(providers=PROFILES.keys(), quirk=_fault_in_quirk, settings=faults_in_file)


def load_configuration(
    flags: Mapping[str, Any], models: str | None, environ: Mapping[str, str], *, strict: bool = False
) -> LoadedConfig:
    """Read everything afresh.

    Args:
        flags: settings given on the command line, None for those that were not.
        models: ``--models``.

    Raises:
        ConfigError: one line per fault.
        UnsafePermissions: others may change models.yaml; with `strict`, others can read the keys in a file.
    """
    path, _ = resolve_models_path(models, environ)
    config, settings = load_settings(flags, path, environ, strict=strict)
    table = config.table.with_discovery_prefix(settings.discovery_prefix)
    hooks = load_hooks(
        path.parent / "hooks",
        options=settings.hook_options,
        timeout_s=settings.hook_timeout_s,
        isolation="process" if settings.hooks.get("isolation") == "process" else "thread",
    )
    try:
        hooks.check_names(table.routes)
    except ConfigError:
        hooks.close()
        raise
    return LoadedConfig(replace(config, table=table), settings, hooks)


def load_settings(
    flags: Mapping[str, Any], path: Path, environ: Mapping[str, str], *, strict: bool = False
) -> tuple[Config, Settings]:
    """The models.yaml at `path` and the settings in force, without the hooks.

    Raises:
        ConfigError, UnsafePermissions: as `load_configuration`.
    """
    environ = with_env_file(path.parent, environ)
    config = load(path, environ, strict=strict, checks=checks())
    doubts = (f"{path}: {line}" for line in route_warnings(config.table.routes))
    config = replace(config, warnings=(*config.warnings, *doubts))
    open_file = fault_of_env_file(path.parent)
    if open_file is not None:
        if strict:
            raise UnsafePermissions(open_file)
        config = replace(config, warnings=(*config.warnings, open_file))
    settings = decide_settings(
        flags,
        environ,
        file_values=config.settings,
        file_places=config.settings_at,
        folder=path.parent,
    )
    return config, settings


def _fault_in_quirk(name: str, value: Any) -> str | None:
    try:
        dialect_for(profile_for("", None), "", {name: value})
    except ConfigError as exc:
        return exc.message
    return None
