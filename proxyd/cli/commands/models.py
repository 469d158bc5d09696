"""``claude-proxy models list|add|remove``: edit entries of models.yaml and leave the rest of the file unchanged.

A change is validated before it is saved atomically; a running daemon reloads the file.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import click

from proxyd.cli.commands.check import describe_key, show_columns
from proxyd.cli.groups import CommandGroup
from proxyd.cli.wrapping import wrapped
from proxyd.config.envfile import with_env_file
from proxyd.config.paths import make_private_folder, resolve_models_path
from proxyd.urls import address_of, host_of

__all__ = ["models_command"]

_models_option = click.option("--models", metavar="FILE", help="The models.yaml to read or edit.")


@click.group(
    "models",
    cls=CommandGroup,
    invoke_without_command=True,
    epilog="Example: claude-proxy models add kimi --api-base https://api.moonshot.ai/anthropic --direct",
)
@click.pass_context
def models_command(context: click.Context) -> None:
    """List, add or remove entries of models.yaml."""
    if context.invoked_subcommand is None:
        context.invoke(list_command)


@models_command.command("list", epilog="Example: claude-proxy models list --json")
@_models_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_command(models: str | None = None, as_json: bool = False) -> None:
    """List the models and their upstreams."""
    from proxyd.config.models import load
    from proxyd.daemon.configuration import checks

    path, _ = resolve_models_path(models, os.environ)
    routes = load(path, with_env_file(path.parent, os.environ), checks=checks()).table.routes
    rows = [
        {
            "model_id": route.model_id,
            "mode": "direct" if route.direct else "translated",
            "model_name": route.model_name,
            "upstream": host_of(route.api_base),
            "address": address_of(route.api_base),
            "key": describe_key(route),
            "aliases": list(route.aliases),
        }
        for route in routes
    ]
    if as_json:
        click.echo(json.dumps(rows, indent=2, ensure_ascii=False))
        return
    table = [["MODEL", "MODE", "UPSTREAM MODEL", "AT", "KEY"]]
    table += [
        [
            str(row["model_id"]),
            str(row["mode"]),
            "-" if row["model_name"] == row["model_id"] else str(row["model_name"]),
            str(row["address"]).removeprefix("https://"),
            str(row["key"]),
        ]
        for row in rows
    ]
    show_columns(table)


@models_command.command(
    "add",
    epilog="Example: claude-proxy models add coder --api-base https://openrouter.ai/api/v1 "
    "--model-name qwen/qwen3-coder --api-key '${OPENROUTER_API_KEY}' --set context=256k",
)
@click.argument("model_id", metavar="MODEL_ID|VENDOR")
@click.option("--api-base", metavar="URL", help="Base address of the upstream.")
@click.option("--model-name", metavar="NAME", help="What the upstream calls the model (MODEL_ID).")
@click.option("--direct", is_flag=True, help="The upstream speaks the Anthropic API.")
@click.option(
    "--api-key",
    metavar="KEY",
    help="${ENV_NAME}, ${file:PATH} or ${keyring:NAME}; without it, the client's key.",
)
@click.option(
    "--set",
    "others",
    multiple=True,
    metavar="KEY=VALUE",
    help="Any other key of an entry; the value is YAML.",
)
@_models_option
def add_command(
    model_id: str,
    api_base: str | None,
    model_name: str | None,
    direct: bool,
    api_key: str | None,
    others: tuple[str, ...],
    models: str | None,
) -> None:
    """Add an entry at the end of the list.

    Without --api-base the word is a vendor's name, and this is `claude-proxy add VENDOR`.
    """
    from proxyd.config.edit import add_entry

    if api_base is None:
        if model_name or direct or api_key or others:
            raise click.UsageError("--api-base is missing; an entry of your own needs its address")
        from proxyd.cli.add_target import AddRequest
        from proxyd.cli.commands.add import run_add

        run_add(AddRequest(vendor=model_id, models=models))
        return
    entry: dict[str, Any] = {"model_id": model_id}
    given = {"model_name": model_name, "api_base": api_base, "direct": direct or None, "api_key": api_key}
    entry |= {name: value for name, value in given.items() if value is not None}
    for assignment in others:
        name, value = _assignment(assignment)
        if name in entry:
            raise click.UsageError(f"--set {name}: {name} is given already; say it once")
        entry[name] = value
    path, _ = resolve_models_path(models, os.environ)
    text = _text_of(path)
    _save(path, add_entry(text, entry))
    click.echo(f"{path}: added {model_id}. A running daemon takes it over.")
    for line in _warnings_of_last(path):
        click.echo(wrapped(f"warning: {line}", sys.stderr, indent="  "), err=True)
    if api_key is not None and not api_key.startswith("${"):
        click.echo(
            "The key now stands in the file, and in your shell's history: ${ENV_NAME}, ${file:PATH} and "
            "${keyring:NAME} keep it out.",
            err=True,
        )


@models_command.command("remove", epilog="Example: claude-proxy models remove coder")
@click.argument("model_id")
@_models_option
def remove_command(model_id: str, models: str | None) -> None:
    """Remove an entry, and the comment lines directly above it."""
    from proxyd.config.edit import remove_entry
    from proxyd.config.models import read_text

    path, _ = resolve_models_path(models, os.environ)
    _save(path, remove_entry(read_text(path), model_id))
    click.echo(f"{path}: removed {model_id}. A running daemon takes it over.")


@models_command.command("refresh", epilog="Example: claude-proxy models refresh")
@click.option(
    "--from",
    "sources",
    multiple=True,
    metavar="URL|FILE",
    help="OpenRouter's list or LiteLLM's table; both from their addresses if left out.",
)
@click.option("--date", metavar="YYYY-MM-DD", help="Date of the sources (today).")
@click.option("--output", metavar="FILE", type=click.Path(), help="The catalog to write.")
def refresh_command(sources: tuple[str, ...], date: str | None, output: str | None) -> None:
    """Fetch the windows, limits and prices of the vendors' models into catalog.yaml.

    It goes into the state folder, over the one that came with this version.
    """
    from proxyd.cli.catalog_refresh import refresh

    refresh(sources, date, output)


def _warnings_of_last(path: Path) -> list[str]:
    """Return what is probably wrong with the last entry of the file."""
    from proxyd.config.models import load
    from proxyd.providers.route_warnings import route_warnings

    routes = load(path, with_env_file(path.parent, os.environ)).table.routes
    found = [line for line in route_warnings(routes) if line.startswith(f"models[{len(routes) - 1}].")]
    missing = routes[-1].missing_key
    return found if missing is None or any(missing in line for line in found) else [*found, missing]


def _assignment(text: str) -> tuple[str, Any]:
    """Parse ``KEY=VALUE``; the value is YAML: ``256k``, ``0.5``, ``[a, b]``, ``{input: 0.28}``."""
    from proxyd.config.faults import Faults
    from proxyd.config.yaml import read_tree
    from proxyd.errors import ConfigError

    name, sign, value = text.partition("=")
    faults = Faults(f"--set {name}")
    tree = read_tree(value, faults) if sign and name.strip() else None
    try:
        faults.raise_if_any()
    except ConfigError as exc:
        raise click.UsageError(exc.message) from None
    if tree is None:
        raise click.UsageError(f"--set: expected KEY=VALUE; got {text!r}")
    return name.strip(), tree.plain()


def _text_of(path: Path) -> str:
    """Return the file's text, or an empty one if there is no file yet."""
    from proxyd.config.models import read_text

    return read_text(path) if path.exists() else ""


def _save(path: Path, text: str) -> None:
    """Validate `text` and save it.

    Raises:
        ConfigError: it is not valid; nothing was written.
    """
    from proxyd.config.edit import save_atomic
    from proxyd.config.models import load_text
    from proxyd.daemon.configuration import checks

    load_text(text, path, with_env_file(path.parent, os.environ), checks=checks())
    make_private_folder(path.parent)
    save_atomic(path, text)
