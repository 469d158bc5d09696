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
from proxyd.cli.add_target import AddRequest, find_target_of
from proxyd.cli.exit_codes import EXIT_PERMISSIONS, EXIT_UPSTREAM, EXIT_USAGE, CommandFailed
from proxyd.cli.package_data import own_words
from proxyd.config.envfile import ENV_FILE, save_variable, with_env_file
from proxyd.config.paths import make_private_folder, resolve_models_path, resolve_state_folder

if TYPE_CHECKING:
    from proxyd.config.models import Config
    from proxyd.onboarding.entries import Target
    from proxyd.onboarding.model_list import ListedModel

__all__ = ["AddRequest", "add_command", "run_add"]

#: The beginning of a new models.yaml.
_HEAD = """\
# The models that claude-proxy offers. 'claude-proxy add' adds one and 'claude-proxy models remove' takes one away;
# 'claude-proxy check' says what is in force. A running daemon takes over each change.

models:
"""


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
    found by themselves. A pasted key is kept in the file env beside models.yaml.
    """
    run_add(AddRequest(vendor, api_base, provider, key_env, names, model_id, direct, not no_test, models))


def run_add(request: AddRequest) -> None:
    """Do what the command says.

    Raises:
        CommandFailed: nothing was written.
        ConfigError: models.yaml or env has a fault, or cannot be written.
    """
    if request.model_id is not None and len(request.names) != 1:
        raise CommandFailed("--id names the entry of one model; give exactly one --model with it", EXIT_USAGE)
    path, _ = resolve_models_path(request.models, os.environ)
    text, before = _read(path)
    _check_writable(path)
    environ = with_env_file(path.parent, os.environ)
    ca_file = _ca_file(before, path)
    target = find_target_of(request, ca_file)
    key_env, pasted = _find_key(request, target, environ, path.parent / ENV_FILE)
    key = pasted or (environ.get(key_env, "").strip() if key_env else "")
    chosen = _choose(request, target, key, ca_file)
    text, ids = _with_entries(request, target, chosen, text, before, key_env)
    if pasted is not None:
        environ[key_env] = pasted
    if request.tries:
        _try(text, ids, path, environ)
    make_private_folder(path.parent)
    if pasted is not None:
        click.echo(f"{save_variable(path.parent, key_env, pasted)}: {key_env} is kept there.")
    elif key_env and key_env in os.environ:
        click.echo(
            f"{key_env} comes from this shell's environment; where the daemon runs without it, as a service, write it "
            f"into {path.parent / ENV_FILE}."
        )
    _save(text, path, environ)
    click.echo(f"{path}: added {', '.join(ids)}. A running daemon takes it over.")
    at = [] if request.models is None else ["--models", request.models]
    click.echo(f"Start Claude Code on it:  {shlex.join([*own_words(), 'code', *at, ids[0]])}")


# -- the files


def _read(path: Path) -> tuple[str, Config | None]:
    """Return the text of models.yaml and its content; an empty text and None if there is none."""
    from proxyd.config.models import load_text, read_text
    from proxyd.daemon.configuration import checks

    if not path.exists() and not path.is_symlink():
        return _HEAD, None
    if path.is_symlink() and not path.exists():
        raise CommandFailed(
            f"{path} is a link to {os.path.realpath(path)}, which does not exist; remove the link"
        )
    text = read_text(path)
    if not text.strip():
        return _HEAD, None
    environ = with_env_file(path.parent, os.environ)
    return text, load_text(text, path, environ, checks=checks())


def _check_writable(path: Path) -> None:
    """Refuse before anything is asked or called."""
    folder = Path(os.path.realpath(path)).parent
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise CommandFailed(
            f"{folder} cannot be written, and {path.name} goes there; check who owns it, or name another file with "
            "--models",
            EXIT_PERMISSIONS,
        )


def _ca_file(config: Config | None, path: Path) -> str:
    from proxyd.config.settings_loader import decide_settings

    if config is None:
        return decide_settings({}, os.environ).ca_file
    return decide_settings(
        {}, os.environ, file_values=config.settings, file_places=config.settings_at, folder=path.parent
    ).ca_file


def _save(text: str, path: Path, environ: Mapping[str, str]) -> None:
    from proxyd.config.edit import save_atomic
    from proxyd.config.models import load_text
    from proxyd.daemon.configuration import checks

    load_text(text, path, environ, checks=checks())
    save_atomic(path, text)


# -- the steps


def _find_key(
    request: AddRequest, target: Target, environ: Mapping[str, str], env_file: Path
) -> tuple[str, str | None]:
    """Return the variable of the key ("" for none), and a key that was pasted."""
    name = request.key_env or target.key_env
    if not name:
        return "", None
    if not name.isidentifier() or not name.isascii():
        raise CommandFailed(
            "--key-env: expected the name of a variable, such as MOONSHOT_API_KEY", EXIT_USAGE
        )
    if environ.get(name, "").strip():
        click.echo(f"The key of {target.title} is that of {name}.")
        return name, None
    if not sys.stdin.isatty():
        raise CommandFailed(
            f"{name} is not set here, nor in {env_file}; run 'export {name}=KEY', name another variable with "
            "--key-env, or run this on a terminal to paste the key",
            EXIT_USAGE,
        )
    return add_dialog.ask_for_key(replace(target, key_env=name), environ, env_file)


def _choose(request: AddRequest, target: Target, key: str, ca_file: str) -> list[ListedModel]:
    from proxyd.config.catalog import load_catalog
    from proxyd.onboarding.blocking import listed_models
    from proxyd.onboarding.fetching import FetchFailed
    from proxyd.onboarding.model_list import ListedModel, completed
    from proxyd.secret import Secret

    catalog, fault = load_catalog(resolve_state_folder(os.environ))
    if fault is not None:
        click.echo(f"warning: {fault}", err=True)
    models: Sequence[ListedModel] | None = target.models
    if models is None and not target.models_url:
        if not request.names and not sys.stdin.isatty():
            raise add_dialog.no_list(f"{target.title} has no list of models that can be read")
    elif models is None:
        try:
            models = listed_models(target, Secret(key) if key else None, ca_file)
        except FetchFailed as exc:
            if exc.status in (401, 403):
                raise CommandFailed(exc.message, EXIT_UPSTREAM) from None
            if not request.names and not sys.stdin.isatty():
                raise add_dialog.no_list(exc.message) from None
            click.echo(f"warning: {exc.message}", err=True)
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
    key_env: str,
) -> tuple[str, list[str]]:
    """Return the new text, and the ids of the new entries."""
    from proxyd.config.edit import add_entry
    from proxyd.onboarding.entries import build_entry, entry_comment, entry_id

    routes = () if before is None else before.table.routes
    taken = {route.model_id for route in routes}
    ids: list[str] = []
    date = datetime.date.today().isoformat()
    for model in chosen:
        same = next((r for r in routes if (r.api_base, r.model_name) == (target.api_base, model.name)), None)
        if same is not None and request.model_id is None:
            raise CommandFailed(
                f"{model.name} of {target.title} is there already, as {same.model_id}: claude-proxy code "
                f"{same.model_id}; --id gives it a second entry",
                EXIT_USAGE,
            )
        model_id = request.model_id or entry_id(target, model.name, taken)
        if model_id in taken:
            raise CommandFailed(f"there is an entry {model_id!r} already; choose another --id", EXIT_USAGE)
        taken.add(model_id)
        ids.append(model_id)
        entry = build_entry(target, model, model_id, f"${{{key_env}}}" if key_env else None)
        text = add_entry(text, entry, entry_comment(target, model, date))
    return text, ids


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
