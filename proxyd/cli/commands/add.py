"""``claude-proxy add``: from a vendor's name or an address to tried entries in models.yaml.

Nothing is written before the models have responded (or the user wants them all the same); then each file is replaced
at once, so an interruption leaves the old ones.
"""

from __future__ import annotations

import asyncio
import datetime
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from proxyd.cli import add_dialog
from proxyd.cli.add_key import ask_for_key, find_key_of, keep_found_key
from proxyd.cli.add_target import AddRequest, find_target_of
from proxyd.cli.exit_codes import EXIT_PERMISSIONS, EXIT_UPSTREAM, EXIT_USAGE, CommandFailed
from proxyd.cli.package_data import own_words
from proxyd.config.envfile import ENV_FILE, with_env_file
from proxyd.config.paths import make_private_folder, resolve_models_path, resolve_state_folder

if TYPE_CHECKING:
    from proxyd.config.models import Config
    from proxyd.onboarding.entries import Target
    from proxyd.onboarding.found_key import FoundKey
    from proxyd.onboarding.model_list import ListedModel

__all__ = ["AddRequest", "add_command", "run_add"]


@click.command("add", epilog="Example: claude-proxy add kimi")
@click.argument("vendor", required=False)
@click.option("--api-base", metavar="URL", help="The upstream's address, instead of a vendor's name.")
@click.option("--provider", metavar="NAME", help="The vendor profile of that address.")
@click.option("--key-env", metavar="NAME", help="The variable that holds the key.")
@click.option("--model", "names", multiple=True, metavar="NAME", help="The upstream's name of a model.")
@click.option("--id", "model_id", metavar="MODEL_ID", help="The id of the new entry, with one --model.")
@click.option("--direct", is_flag=True, help="The address speaks the Anthropic API.")
@click.option("--no-test", is_flag=True, help="Write the entry without calling the model.")
@click.option("--models", metavar="FILE", help="The models.yaml to write.")
def add_command(
    vendor: str | None,
    api_base: str | None,
    provider: str | None,
    key_env: str | None,
    names: tuple[str, ...],
    model_id: str | None,
    direct: bool,
    no_test: bool,
    models: str | None,
) -> None:
    """Add models of VENDOR, or of an address: choose, try, write.

    On a terminal it asks for what is missing. Servers on this machine (Ollama, LM Studio, llama.cpp, vLLM, SGLang) are
    found by themselves. A pasted key is kept in the file env beside models.yaml, or in the system's keyring (extra
    keyring).
    """
    run_add(AddRequest(vendor, api_base, provider, key_env, names, model_id, direct, not no_test, models))


def run_add(request: AddRequest) -> None:
    """Do what the command says.

    Raises:
        CommandFailed: nothing was written.
        ConfigError: models.yaml or env has a fault, or cannot be written.
    """
    from proxyd.daemon.configuration import checks
    from proxyd.onboarding.models_file import read_models_file, save_models_file

    if request.model_id is not None and len(request.names) != 1:
        raise CommandFailed("--id names the entry of one model; give exactly one --model with it", EXIT_USAGE)
    path, _ = resolve_models_path(request.models, os.environ)
    environ = with_env_file(path.parent, os.environ)
    text, before = read_models_file(path, environ, checks())
    _check_writable(path)
    ca_file = _ca_file(before, path)
    target = find_target_of(request, ca_file)
    env_file = path.parent / ENV_FILE
    key, models = _find_models(request, target, environ, env_file, ca_file)
    chosen = _choose(request, target, models)
    if key.name:
        environ[key.name] = key.value
    # A key that is not kept yet is tried as a variable.
    tried, ids = _with_entries(request, target, chosen, text, before, key.variable)
    if request.tries:
        _try(tried, ids, path, environ)
    make_private_folder(path.parent)
    key = keep_found_key(key, env_file)
    text, _ = _with_entries(request, target, chosen, text, before, key.reference)
    save_models_file(text, path, environ, checks())
    click.echo(f"{path}: added {', '.join(ids)}. A running daemon takes it over.")
    if not key.is_pasted and not key.in_keyring and key.name in os.environ:
        click.echo(
            f"{key.name} comes from this shell's environment; where the daemon runs without it, as a service, write it "
            f"into {env_file}."
        )
    at = [] if request.models is None else ["--models", request.models]
    click.echo(f"Start Claude Code on it:  {shlex.join([*own_words(), 'code', *at, ids[0]])}")


# -- the files


def _check_writable(path: Path) -> None:
    """Refuse before anything is asked or called."""
    folder = Path(os.path.realpath(path)).parent
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    if not folder.is_dir():
        what = "is no folder"
        remedy = "move it"
    elif not os.access(folder, os.W_OK):
        what = "cannot be written"
        remedy = "check its owner, and whether its disk is read-only"
    else:
        return
    raise CommandFailed(
        f"{folder} {what}, and {path.name} goes there; {remedy}, or name another file with --models",
        EXIT_PERMISSIONS,
    )


def _ca_file(config: Config | None, path: Path) -> str:
    from proxyd.config.settings_loader import decide_settings

    if config is None:
        return decide_settings({}, os.environ).ca_file
    return decide_settings(
        {}, os.environ, file_values=config.settings, file_places=config.settings_at, folder=path.parent
    ).ca_file


# -- the steps


def _find_models(
    request: AddRequest, target: Target, environ: Mapping[str, str], env_file: Path, ca_file: str
) -> tuple[FoundKey, Sequence[ListedModel] | None]:
    """Return the key, and the upstream's list of models, None where that cannot be read.

    A pasted key that the upstream refuses is asked for again.
    """
    from proxyd.onboarding.blocking import listed_models
    from proxyd.onboarding.fetching import FetchFailed
    from proxyd.secret import Secret

    key = find_key_of(target, request.key_env, environ, env_file)
    if target.models is not None:
        return key, target.models
    can_go_on = bool(request.names) or sys.stdin.isatty()
    if not target.models_url:
        if not can_go_on:
            raise add_dialog.no_list(f"{target.title} has no list of models that can be read", EXIT_USAGE)
        return key, None
    while True:
        try:
            return key, listed_models(target, Secret(key.value) if key.value else None, ca_file)
        except FetchFailed as exc:
            is_refused = exc.status in (401, 403)
            if is_refused and not key.is_pasted:
                raise CommandFailed(exc.message, EXIT_UPSTREAM) from None
            if not can_go_on:
                raise add_dialog.no_list(exc.message, EXIT_UPSTREAM) from None
            click.echo(f"warning: {exc.message}", err=True)
            if not is_refused:
                return key, None
        key = ask_for_key(target.title, key.name, environ, env_file)


def _choose(request: AddRequest, target: Target, models: Sequence[ListedModel] | None) -> list[ListedModel]:
    from proxyd.config.catalog import load_catalog
    from proxyd.onboarding.model_list import ListedModel, completed

    catalog, fault = load_catalog(resolve_state_folder(os.environ))
    if fault is not None:
        click.echo(f"warning: {fault}", err=True)
    if models is not None:
        models = [completed(each, catalog.find(target.profile, each.name)) for each in models]
    if request.names:
        chosen = add_dialog.models_named(request.names, models)
    elif models is None:
        answer = click.prompt("The upstream's name of the model", prompt_suffix=": ")
        chosen = [ListedModel(answer.strip())]
    elif not models:
        raise CommandFailed(
            f"{target.title} has no model yet; load one there, or name it with --model", EXIT_UPSTREAM
        )
    elif sys.stdin.isatty():
        chosen = add_dialog.ask_for_models(models)
    elif len(models) == 1:
        chosen = list(models)
    else:
        add_dialog.show_models(models)
        raise CommandFailed(f"{target.title} has {len(models)} models; name one with --model", EXIT_USAGE)
    return [completed(each, catalog.find(target.profile, each.name)) for each in chosen]


def _with_entries(
    request: AddRequest,
    target: Target,
    chosen: Sequence[ListedModel],
    text: str,
    before: Config | None,
    key: str | None,
) -> tuple[str, list[str]]:
    """Return the new text, and the ids of the new entries.

    Args:
        key: the reference to the key that they have.
    """
    from proxyd.onboarding.models_file import AlreadyThere, add_models

    routes = () if before is None else before.table.routes
    try:
        return add_models(
            text, routes, target, chosen, key, datetime.date.today().isoformat(), request.model_id
        )
    except AlreadyThere as exc:
        remedy = (
            "; choose another --id"
            if exc.model_id is None
            else f": claude-proxy code {exc.model_id}; --id gives it a second entry"
        )
        raise CommandFailed(f"{exc.message}{remedy}", EXIT_USAGE) from None


def _try(text: str, ids: Sequence[str], path: Path, environ: Mapping[str, str]) -> None:
    """Call each new model once; ask what to do where one does not respond."""
    from proxyd.cli.upstream_probe import probe_upstreams
    from proxyd.config.models import load_text
    from proxyd.config.routes import RouteTable
    from proxyd.config.settings_loader import decide_settings
    from proxyd.daemon.configuration import LoadedConfig, checks
    from proxyd.logs.setup import configure

    config = load_text(text, path, environ, checks=checks())
    settings = decide_settings(
        {"host": "127.0.0.1"}, environ, config.settings, config.settings_at, folder=path.parent
    )
    new = tuple(route for route in config.table.routes if route.model_id in ids)
    configure("error", settings.log_format)
    click.echo(f"Calling {', '.join(ids)} ...")
    results = asyncio.run(probe_upstreams(LoadedConfig(replace(config, table=RouteTable(new)), settings)))
    failed = [result for result in results if not result["ok"]]
    for result in results:
        took = f" in {result['ms'] / 1000:.1f} s" if "ms" in result else ""
        outcome = "responds" if result["ok"] else "FAILED"
        click.echo(f"  {result['model_id']}: {outcome}{took} {result['said']}".rstrip())
    if not failed:
        return
    if not sys.stdin.isatty():
        raise CommandFailed("nothing was written; --no-test writes the entry all the same", EXIT_UPSTREAM)
    if not click.confirm("Write it all the same?", default=False):
        raise CommandFailed("nothing was written", EXIT_UPSTREAM)
