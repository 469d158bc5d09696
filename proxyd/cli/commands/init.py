"""``claude-proxy init``: write a first configuration."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import click

from proxyd.cli.package_data import packaged_path
from proxyd.config.paths import make_private_folder, resolve_models_path

__all__ = ["init_command", "write_configuration"]

_ENV = """\
# Variables for claude-proxy, KEY=value, one a line. Keys that models.yaml refers to as ${NAME} belong here:
# OPENROUTER_API_KEY=...
# The environment itself wins over this file. Nobody but you should be able to read it (mode 0600).
"""


@click.command("init", epilog="Example: claude-proxy init")
@click.option(
    "--models", metavar="FILE", type=click.Path(), help="Where models.yaml goes; the rest beside it."
)
@click.option("--force", is_flag=True, help="Write over files that are there; they are kept as FILE.bak.")
def init_command(models: str | None, force: bool) -> None:
    """Write a commented models.yaml, a hooks folder and an env file.

    Only the model demo is on at first, and no hook; all else is commented out or begins with a _. Files that are there
    already are left alone.
    """
    path, _ = resolve_models_path(models, os.environ)
    for line in write_configuration(path, force=force):
        click.echo(line)
    at = "" if models is None else f" --models {models}"
    click.echo(f"Now add a model (claude-proxy add{at}) or edit {path}; then: claude-proxy check{at}")


def write_configuration(models: Path, *, force: bool = False) -> list[str]:
    """Write the files that are missing; return a line for each file.

    Raises:
        OSError: one cannot be written.
    """
    folder = models.parent
    make_private_folder(folder)
    hooks = folder / "hooks"
    hooks.mkdir(exist_ok=True, mode=0o700)
    done = [
        _copy(packaged_path("config", "models.yaml"), models, 0o600, force=force),
        _copy(
            packaged_path("config", "models.schema.json"), folder / "models.schema.json", 0o644, force=force
        ),
    ]
    done += [
        _copy(path, hooks / path.name, 0o644, force=force)
        for path in sorted(packaged_path("hooks").glob("*.py"))
    ]
    env = folder / "env"
    if env.exists() and not force:
        done.append(f"kept  {env}")
    else:
        done.append(_backed_up(env) or f"wrote {env}")
        # Created with its mode, so that others cannot read it in between.
        descriptor = os.open(env, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(_ENV)
    return done


def _copy(source: Path, target: Path, mode: int, *, force: bool) -> str:
    if target.exists():
        if not force:
            return f"kept  {target}"
        if target.read_bytes() == source.read_bytes():
            return f"same  {target}"
    line = _backed_up(target) or f"wrote {target}"
    shutil.copyfile(source, target)
    target.chmod(mode)
    return line


def _backed_up(path: Path) -> str | None:
    """Rename a file to FILE.bak; return None if it does not exist."""
    if not path.exists():
        return None
    backup = path.with_name(f"{path.name}.bak")
    path.replace(backup)
    return f"wrote {path} (the old one is {backup})"
