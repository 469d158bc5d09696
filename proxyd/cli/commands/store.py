"""``claude-proxy store migrate``: copy virtual keys, teams and their usage from SQLite to PostgreSQL."""

from __future__ import annotations

import os
from pathlib import Path

import click

from proxyd.cli.exit_codes import EXIT_CONFIG, EXIT_USAGE, CommandFailed
from proxyd.cli.groups import CommandGroup
from proxyd.cli.key_store import configured_url
from proxyd.config.database_url import SQLITE, DatabaseUrl, read_store
from proxyd.config.envfile import with_env_file
from proxyd.config.paths import resolve_models_path, resolve_state_folder
from proxyd.store.interface import KeyStore, StoreFailed
from proxyd.store.opening import open_key_store
from proxyd.store.virtual_keys import Directory

__all__ = ["store_command"]


@click.group("store", cls=CommandGroup, epilog="Example: claude-proxy store migrate --to '${STORE_URL}'")
def store_command() -> None:
    """Where virtual keys, limits and their usage are kept (settings: store)."""


@store_command.command(
    "migrate", epilog="Example: claude-proxy store migrate --from sqlite --to 'postgresql://proxy@db/claude'"
)
@click.option(
    "--from", "source", type=click.Choice([SQLITE]), default=SQLITE, help="What to copy: keys.db (sqlite)."
)
@click.option(
    "--to",
    "target",
    metavar="URL",
    help="postgresql://USER@HOST/DATABASE, '${ENV_NAME}' or '${file:PATH}', hidden from other users; "
    "the setting 'store' if left out.",
)
def migrate_command(source: str, target: str | None) -> None:
    """Copy keys, teams and usage into an empty database, and compare what is there then.

    Keys stay valid. The daemon is best stopped meanwhile: what it books after the copy is not in it.
    """
    del source  # there is one choice
    url = _target(target)
    state_folder = resolve_state_folder(os.environ)
    origin, copy = open_key_store(None, state_folder), open_key_store(url, state_folder)
    try:
        keys, teams, windows = _copy(origin, copy, url)
    except StoreFailed as exc:
        raise CommandFailed(exc.message, EXIT_CONFIG) from None
    finally:
        origin.close()
        copy.close()
    click.echo(f"copied and compared: keys {keys}, teams {teams}, sums of usage {windows}")
    click.echo(
        "Set 'store' in models.yaml to this address and restart the daemon; keys.db is no longer read then."
    )


def _target(text: str | None) -> DatabaseUrl:
    path, _ = resolve_models_path(None, os.environ)
    try:
        if text is None:
            url = configured_url()
        else:
            url = read_store(text, with_env_file(path.parent, os.environ), Path())
    except ValueError as exc:
        raise click.UsageError(f"--to: {exc}") from None
    if url is None:
        raise click.UsageError(
            "--to: expected the address of a PostgreSQL database; SQLite is what is copied"
        )
    return url


def _copy(origin: KeyStore, copy: KeyStore, url: DatabaseUrl) -> tuple[int, int, int]:
    """Copy everything; return the numbers of keys, teams and sums."""
    directory, usage = origin.directory(), origin.all_usage()
    if not directory.keys and not directory.teams:
        raise CommandFailed("there are no keys and teams to copy in keys.db", EXIT_USAGE)
    if copy.directory() != Directory() or copy.all_usage():
        raise CommandFailed(
            f"{url} has keys, teams or usage already; copy into an empty database", EXIT_USAGE
        )
    for team in directory.teams:
        copy.put_team(team)
    for key in directory.keys:
        copy.put_key(key)
    copy.add_usage(usage)
    if copy.directory() != directory or copy.all_usage() != usage:
        raise CommandFailed(
            f"what {url} has after the copy is not what keys.db has: a daemon that used one of them changed it; "
            "stop the daemons, empty the database and copy again",
            EXIT_CONFIG,
        )
    return len(directory.keys), len(directory.teams), len(usage)
