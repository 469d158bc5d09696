"""The configuration as a whole: flags, environment, models.yaml and hooks, read and validated together."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from proxyd.config.catalog import load_catalog
from proxyd.config.envfile import fault_of_env_file, with_env_file
from proxyd.config.models import Checks, Config, fault_of_describer, fault_of_model, load
from proxyd.config.paths import resolve_models_path, resolve_state_folder
from proxyd.config.settings import Settings
from proxyd.config.settings_loader import decide_settings, faults_in_file
from proxyd.errors import ConfigError, UnsafePermissions
from proxyd.hooks.loader import HookSet, load_hooks
from proxyd.providers.known_models import catalog_doubts, with_known_window
from proxyd.providers.registry import PROFILES, dialect_for, profile_for, sees_images
from proxyd.providers.route_warnings import price_warnings, route_warnings, search_warnings

__all__ = ["LoadConfig", "LoadedConfig", "checks", "hooks_folder", "load_configuration", "load_settings"]


@dataclass(frozen=True, slots=True)
class LoadedConfig:
    """A validated configuration: what the daemon runs on and the commands read."""

    config: Config
    settings: Settings
    hooks: HookSet = field(default_factory=HookSet)


#: Reads the configuration again. Raises `ConfigError`.
LoadConfig = Callable[[], LoadedConfig]


def checks() -> Checks:
    """Return what models.yaml is validated against: the known profiles, quirks and settings."""
    return Checks(
        providers=PROFILES.keys(), quirk=_quirk_fault, settings=faults_in_file, sees_images=sees_images
    )


def hooks_folder(models: Path) -> Path:
    """Return the folder of the hook files that belong to the models.yaml at `models`."""
    return models.parent / "hooks"


def load_configuration(
    flags: Mapping[str, Any], models: str | None, environ: Mapping[str, str], *, strict: bool = False
) -> LoadedConfig:
    """Read and validate everything from the files as they are now.

    Args:
        flags: settings given on the command line; None where a flag was not given.
        models: ``--models``.

    Raises:
        ConfigError: one line per fault.
        UnsafePermissions: other users may change models.yaml or, with `strict`, read the keys in a file.
    """
    path, _ = resolve_models_path(models, environ)
    config, settings = load_settings(flags, path, environ, strict=strict)
    table = config.table.with_discovery_prefix(settings.discovery_prefix)
    hooks = load_hooks(
        hooks_folder(path),
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
    """Read the models.yaml at `path` and the settings in force, without the hooks.

    Raises:
        ConfigError, UnsafePermissions: as `load_configuration`.
    """
    environ = with_env_file(path.parent, environ)
    config = load(path, environ, strict=strict, checks=checks())
    catalog, fault = load_catalog(resolve_state_folder(environ))
    routes = config.table.routes
    doubts = (f"{path}: {line}" for line in (*route_warnings(routes), *catalog_doubts(routes, catalog)))
    warnings = (*config.warnings, *doubts, *(() if fault is None else (fault,)))
    table = replace(config.table, routes=tuple(with_known_window(route, catalog) for route in routes))
    config = replace(config, table=table, warnings=warnings)
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
    searches = tuple(f"{path}: {line}" for line in search_warnings(config.table.routes, settings))
    prices = price_warnings(config.table.routes) if settings.auth == "keys" else []
    config = replace(config, warnings=(*config.warnings, *searches, *(f"{path}: {line}" for line in prices)))
    # From the environment; those of the file are checked already.
    for name, key in (("auto_mode", "classifier"), ("images", "describe_with")):
        model = getattr(settings, name).get(key)
        fault = fault_of_model(model, config.table) if model else None
        if fault is None and model and name == "images":
            fault = fault_of_describer(model, config.table, sees_images)
        if fault is not None:
            raise ConfigError(f"{settings.origin_of(name)}: {name}.{key}: {path}: {fault}")
    return config, settings


def _quirk_fault(name: str, value: Any) -> str | None:
    try:
        dialect_for(profile_for("", None), "", {name: value})
    except ConfigError as exc:
        return exc.message
    return None
