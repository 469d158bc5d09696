"""``claude-proxy keys``: make, list, revoke and rotate virtual keys, and the teams that share limits.

They are in keys.db of the state folder, or where the setting ``store`` says; a daemon with ``auth: keys`` reads them
within a second.
"""

from __future__ import annotations

import json
import re
import secrets
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import click

from proxyd.cli.commands.check import show_columns
from proxyd.cli.exit_codes import EXIT_CONFIG, EXIT_USAGE, CommandFailed
from proxyd.cli.groups import CommandGroup
from proxyd.cli.key_store import configured_store, open_configured_store
from proxyd.cli.options import json_option
from proxyd.cli.wrapping import wrapped
from proxyd.config.faults import hint
from proxyd.store.interface import KeyStore, StoreFailed
from proxyd.store.limits import described_limits
from proxyd.store.virtual_keys import (
    PERIODS,
    Directory,
    Limit,
    Team,
    VirtualKey,
    digest_of,
    new_secret,
    parse_expiry,
    parse_limit,
    start_of,
)

__all__ = ["keys_command"]

F = TypeVar("F", bound=Callable[..., Any])

#: Names are shown in logs, pages and metrics.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}\Z")


def _read_limits(unit: str) -> Callable[[click.Context, click.Parameter, tuple[str, ...]], tuple[Limit, ...]]:
    """Return a callback that reads limits such as ``20/day``."""

    def read(_: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> tuple[Limit, ...]:
        try:
            return tuple(parse_limit(each, unit) for each in values)
        except ValueError as exc:
            raise click.BadParameter(str(exc), param=parameter) from None

    return read


def _limit_options(command: F) -> F:
    more = "may be repeated."
    options = (
        _limit_option("--budget", "budgets", "usd", f"USD, such as 20/day; {more}"),
        _limit_option("--tokens", "tokens", "tokens", f"Tokens, such as 2m/month; {more}"),
        _limit_option("--calls", "calls", "calls", f"Calls, such as 500/day; {more}"),
        click.option("--rpm", type=click.IntRange(1, 1_000_000), metavar="N", help="Calls a minute."),
        click.option("--streams", type=click.IntRange(1, 100_000), metavar="N", help="Calls in flight."),
    )
    for option in reversed(options):
        command = option(command)
    return command


def _limit_option(flag: str, name: str, unit: str, help_: str) -> Any:
    return click.option(
        flag, name, multiple=True, metavar="AMOUNT/PERIOD", callback=_read_limits(unit), help=help_
    )


def _limits(*given: Sequence[Limit], rpm: int | None) -> tuple[Limit, ...]:
    found = [each for group in given for each in group]
    if rpm is not None:
        found.append(Limit(float(rpm), "calls", "minute"))
    kinds = [(each.unit, each.period) for each in found]
    for unit, period in kinds:
        if kinds.count((unit, period)) > 1:
            raise click.UsageError(f"there are two limits on {unit} a {period}; keep one")
    return tuple(found)


@click.group(
    "keys",
    cls=CommandGroup,
    invoke_without_command=True,
    epilog="Example: claude-proxy keys add alice --models 'claude-*,kimi' --budget 20/day --rpm 60 --expires 90d",
)
@click.pass_context
def keys_command(context: click.Context) -> None:
    """Make, list, revoke and rotate keys for the people who use this proxy (settings: auth: keys)."""
    if context.invoked_subcommand is None:
        context.invoke(list_command)


@keys_command.command("add", epilog="Example: claude-proxy keys add alice --budget 20/day --budget 300/month")
@click.argument("name")
@click.option(
    "--models",
    default="",
    metavar="GLOBS",
    help="Models that it may use, such as 'claude-*,kimi'; all if left out.",
)
@_limit_options
@click.option("--expires", metavar="WHEN", help="After 90d, 12h, 4w, or at the end of 2027-03-31.")
@click.option("--team", metavar="TEAM", help="A team, whose limits hold as well.")
@json_option
def add_command(
    name: str,
    models: str,
    budgets: tuple[Limit, ...],
    tokens: tuple[Limit, ...],
    calls: tuple[Limit, ...],
    rpm: int | None,
    streams: int | None,
    expires: str | None,
    team: str | None,
    as_json: bool,
) -> None:
    """Make a key. It is printed once, and only a hash of it is kept."""
    _check_name(name)
    now = time.time()
    try:
        expires_at = None if expires is None else parse_expiry(expires, now)
    except ValueError as exc:
        raise click.UsageError(f"--expires: {exc}") from None
    patterns = tuple(dict.fromkeys(each.strip() for each in models.split(",") if each.strip()))
    secret = new_secret()
    key = VirtualKey(
        id=secrets.token_hex(8),
        name=name,
        digest=digest_of(secret),
        created_at=now,
        models=patterns,
        limits=_limits(budgets, tokens, calls, rpm=rpm),
        streams=streams,
        team=team,
        expires_at=expires_at,
    )

    teams: list[Team] = []

    def add(store: KeyStore, directory: Directory) -> None:
        before = directory.key(name)
        if before is not None and before.revoked_at is None:
            raise CommandFailed(
                f"there is a key {name!r}; 'claude-proxy keys rotate {name}' replaces its secret, 'revoke' ends it",
                EXIT_USAGE,
            )
        if team is not None and directory.team(team) is None:
            known = hint(team, [each.name for each in directory.teams])
            raise CommandFailed(
                f"there is no team {team!r}; {known}; 'claude-proxy keys team' makes one", EXIT_USAGE
            )
        store.put_key(key)
        teams.extend(each for each in directory.teams if each.name == team)

    _change(add)
    _show_secret(key, secret, as_json=as_json)
    _warn_of_prices(key, *teams)


@keys_command.command("rotate", epilog="Example: claude-proxy keys rotate alice")
@click.argument("name")
@json_option
def rotate_command(name: str, as_json: bool) -> None:
    """Give a key a new secret, which is printed once. The old one ends within a second; limits and usage stay."""
    secret = new_secret()
    rotated: list[VirtualKey] = []

    def rotate(store: KeyStore, directory: Directory) -> None:
        key = _existing(directory, name)
        if key.revoked_at is not None:
            raise CommandFailed(
                f"the key {name!r} was revoked; 'claude-proxy keys add {name}' makes a new one", EXIT_USAGE
            )
        rotated.append(replace(key, digest=digest_of(secret)))
        store.put_key(rotated[0])

    _change(rotate)
    _show_secret(rotated[0], secret, as_json=as_json)


@keys_command.command("revoke", epilog="Example: claude-proxy keys revoke alice")
@click.argument("name")
def revoke_command(name: str) -> None:
    """End a key. New calls are refused within a second; those in flight go on."""

    def revoke(store: KeyStore, directory: Directory) -> None:
        key = _existing(directory, name)
        if key.revoked_at is None:
            store.put_key(replace(key, revoked_at=time.time()))

    _change(revoke)
    click.echo(f"the key {name!r} is revoked")


@keys_command.command(
    "team", epilog="Example: claude-proxy keys team research --budget 500/month --streams 20"
)
@click.argument("name")
@_limit_options
@click.option("--remove", is_flag=True, help="Remove the team; no key may belong to it.")
def team_command(
    name: str,
    budgets: tuple[Limit, ...],
    tokens: tuple[Limit, ...],
    calls: tuple[Limit, ...],
    rpm: int | None,
    streams: int | None,
    remove: bool,
) -> None:
    """Make a team, or replace its limits, which all its keys share."""
    _check_name(name)
    team = Team(name, _limits(budgets, tokens, calls, rpm=rpm), streams)
    if remove and (team.limits or streams is not None):
        raise click.UsageError("--remove takes no limits")

    def change(store: KeyStore, directory: Directory) -> None:
        if not remove:
            store.put_team(team)
            return
        if directory.team(name) is None:
            raise CommandFailed(
                f"there is no team {name!r}; {hint(name, [each.name for each in directory.teams])}",
                EXIT_USAGE,
            )
        members = [each.name for each in directory.keys if each.team == name and each.revoked_at is None]
        if members:
            raise CommandFailed(f"these keys belong to the team {name!r}: {', '.join(members)}", EXIT_USAGE)
        store.remove_team(name)

    _change(change)
    limits = ", ".join(_words(team)) or "without limits"
    click.echo(f"the team {name!r} is removed" if remove else f"the team {name!r}: {limits}")
    _warn_of_prices(team)


@keys_command.command("list", epilog="Example: claude-proxy keys list --json")
@json_option
def list_command(as_json: bool = False) -> None:
    """List keys and teams with their limits and what of them is used."""
    now = time.time()
    store = open_configured_store()
    try:
        directory = store.directory()
        usage = store.usage((period, start_of(period, now)) for period in PERIODS)
    except StoreFailed as exc:
        raise CommandFailed(exc.message, EXIT_CONFIG) from None
    finally:
        store.close()
    rows = []
    holders: list[VirtualKey | Team] = [*directory.keys, *directory.teams]
    for holder in holders:
        key = holder if isinstance(holder, VirtualKey) else None
        rows.append(
            {
                "name": holder.name,
                "is_team": key is None,
                "state": "active" if key is None else key.state_at(now),
                "team": None if key is None else key.team,
                "models": [] if key is None else list(key.models),
                "streams": holder.streams,
                "expires_at": None if key is None else key.expires_at,
                "limits": list(described_limits(holder, usage, now)),
            }
        )
    if as_json:
        click.echo(json.dumps(rows, indent=2))
    elif not rows:
        click.echo("there are no keys; 'claude-proxy keys add NAME' makes one")
    else:
        show_columns(
            [["NAME", "KIND", "STATE", "TEAM", "MODELS", "STREAMS", "UNTIL", "LIMITS"], *map(_cells, rows)]
        )


def _cells(row: dict[str, Any]) -> list[str]:
    until = row["expires_at"]
    return [
        row["name"],
        "team" if row["is_team"] else "key",
        row["state"],
        row["team"] or "-",
        ", ".join(row["models"]) or "-",
        str(row["streams"] or "-"),
        "-" if until is None else time.strftime("%Y-%m-%d %H:%M", time.localtime(until)),
        ", ".join(f"{each['limit']} ({each['share']:.0%} used)" for each in row["limits"]) or "-",
    ]


def _change(change: Callable[[KeyStore, Directory], None]) -> None:
    store = open_configured_store()
    try:
        change(store, store.directory())
    except StoreFailed as exc:
        raise CommandFailed(exc.message, EXIT_CONFIG) from None
    finally:
        store.close()


def _warn_of_prices(*holders: VirtualKey | Team) -> None:
    """Name the entries without prices, where one of the holders has a budget in USD."""
    if not any(limit.unit == "usd" for holder in holders for limit in holder.limits):
        return
    from proxyd.providers.route_warnings import price_warnings

    key = next((each for each in holders if isinstance(each, VirtualKey)), None)
    routes = [
        route
        for route in configured_store()[1]
        if key is None or key.may_use((route.model_id, *route.aliases))
    ]
    for line in price_warnings(routes):
        click.echo(wrapped(f"warning: {line}", sys.stderr, indent="  "), err=True)


def _existing(directory: Directory, name: str) -> VirtualKey:
    key = directory.key(name)
    if key is None:
        known = hint(name, [each.name for each in directory.keys])
        raise CommandFailed(f"there is no key {name!r}; {known}", EXIT_USAGE)
    return key


def _check_name(name: str) -> None:
    if not _NAME.match(name):
        raise click.UsageError(
            "expected a name of at most 64 letters, digits and . _ @ -, that begins with a letter or digit"
        )


def _words(holder: VirtualKey | Team) -> list[str]:
    words = [str(each) for each in holder.limits]
    return words if holder.streams is None else [*words, f"{holder.streams} calls in flight"]


def _show_secret(key: VirtualKey, secret: str, *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps({"name": key.name, "key": secret, "expires_at": key.expires_at}))
        return
    click.echo(secret)
    click.echo(
        f"This is the key of {key.name!r}, and it is not shown again. Set ANTHROPIC_AUTH_TOKEN to it for Claude Code. "
        "The daemon asks for keys with 'auth: keys' under settings in models.yaml.",
        err=True,
    )
