"""Find the key of the upstream for ``claude-proxy add``, and keep one that is pasted."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import click

from proxyd.cli.exit_codes import EXIT_PERMISSIONS, EXIT_USAGE, CommandFailed
from proxyd.config.envfile import save_variable
from proxyd.config.system_keyring import KeyringFailed, find_key, keep_key, keyring_title
from proxyd.onboarding.entries import Target
from proxyd.onboarding.found_key import FoundKey
from proxyd.onboarding.pasted_key import read_pasted_key, variable_named

__all__ = ["ask_for_key", "find_key_of", "keep_found_key"]


def find_key_of(target: Target, key_env: str | None, environ: Mapping[str, str], env_file: Path) -> FoundKey:
    """Return the key of a target: of a variable, of the system's keyring, or one that is asked for.

    Args:
        key_env: the name that was given for it.

    Raises:
        CommandFailed: there is none, and no terminal to ask on.
    """
    name = key_env or target.key_env
    if not name:
        return FoundKey()
    if not name.isidentifier() or not name.isascii():
        raise CommandFailed(
            "--key-env: expected the name of a variable, such as MOONSHOT_API_KEY", EXIT_USAGE
        )
    value = environ.get(name, "").strip()
    if value:
        click.echo(f"The key of {target.title} is that of {name}.")
        return FoundKey(name, value)
    stored = find_key(name)
    if stored:
        click.echo(f"The key of {target.title} is {name} in the system's keyring.")
        return FoundKey(name, stored, in_keyring=True)
    if not sys.stdin.isatty():
        raise CommandFailed(
            f"{name} is not set here, nor in {env_file}; run 'export {name}=KEY', name another variable with "
            "--key-env, or run this on a terminal to paste the key",
            EXIT_USAGE,
        )
    return ask_for_key(target.title, name, environ, env_file)


def ask_for_key(title: str, name: str, environ: Mapping[str, str], env_file: Path) -> FoundKey:
    """Return a key that is pasted, or that of a variable whose name is typed."""
    keyring = keyring_title()
    other = "" if keyring is None else f" or in the system's keyring ({keyring}),"
    click.echo(f"The key of {title} is kept in {env_file}, which only you can read,{other} as {name}.")
    while True:
        text = click.prompt(
            "Paste the key (it is not shown), or type the name of a variable",
            hide_input=True,
            prompt_suffix=": ",
        )
        named = variable_named(text, environ)
        if named is not None:
            value = environ.get(named, "").strip()
            if value:
                return FoundKey(named, value)
            click.echo(
                f"  {named} looks like the name of a variable, and it is not set here or in {env_file}."
            )
            continue
        try:
            return FoundKey(name, read_pasted_key(text), is_pasted=True)
        except ValueError as exc:
            click.echo(f"  {exc}.")


def keep_found_key(key: FoundKey, env_file: Path) -> FoundKey:
    """Write a pasted key where its owner wants it, print where that is, and return the key with its place.

    Raises:
        CommandFailed, ConfigError: it cannot be written.
    """
    if not key.is_pasted:
        return key
    if keyring_title() is None or not click.confirm(
        f"Keep the key in the system's keyring instead of {env_file}?", default=False
    ):
        click.echo(f"{save_variable(env_file.parent, key.name, key.value)}: {key.name} is kept there.")
        return key
    try:
        keep_key(key.name, key.value)
    except KeyringFailed as exc:
        raise CommandFailed(
            f"the key was not kept, and nothing was written: {exc.message}; or keep it in {env_file}",
            EXIT_PERMISSIONS,
        ) from None
    click.echo(f"The system's keyring: {key.name} is kept there.")
    return replace(key, in_keyring=True)
