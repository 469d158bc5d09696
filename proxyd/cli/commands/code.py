"""``claude-proxy env`` and ``claude-proxy code``: run Claude Code on a model of models.yaml."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from proxyd.cli.claude_code import (
    auto_mode_of,
    claude_arguments,
    claude_variables,
    client_classifier_variables,
    diverting_variables,
    missing_key_message,
    needs_client_key,
    read_user_settings,
    telemetry_variables,
)
from proxyd.cli.daemon_client import ask, find_target
from proxyd.cli.exit_codes import EXIT_NO_COMMAND, EXIT_USAGE, CommandFailed
from proxyd.cli.options import address_options, complete_model, long_address_options

if TYPE_CHECKING:
    from proxyd.config.routes import ModelRoute
    from proxyd.daemon.configuration import LoadedConfig

__all__ = ["claude_variables", "code_command", "env_command", "needs_client_key"]

_SHELLS = ("sh", "fish", "powershell", "json")


_client_classifier_option = click.option(
    "--client-classifier",
    metavar="MODEL",
    help="Let Claude Code check the actions of auto mode itself, by calls of MODEL.",
)


@click.command("env", epilog='Example: eval "$(claude-proxy env deepseek)"')
@click.argument("model", required=False, shell_complete=complete_model)
@click.option(
    "--shell", type=click.Choice(_SHELLS), help="Whose syntax (that of $SHELL); json is for settings.json."
)
@_client_classifier_option
@address_options
def env_command(
    model: str | None,
    shell: str | None,
    client_classifier: str | None,
    port: int | None,
    host: str | None,
    models: str | None,
) -> None:
    """Print the variables that Claude Code needs for MODEL; the first of models.yaml if left out."""
    loaded = _load(models)
    route, name = _route(loaded, model)
    url = find_target(port, host, models).url
    variables = _variables(loaded, route, name, url)
    variables |= _client_classifier(loaded, client_classifier)
    unwanted = _unwanted_variables(os.environ)
    note = missing_key_message(route, variables, os.environ, needs_virtual_key=loaded.settings.auth == "keys")
    shell = shell or _shell_of(os.environ.get("SHELL", ""))
    if shell == "json":
        click.echo(json.dumps({"env": variables}, indent=2))
        for line in (note, *(f"unset {key}: {why}" for key, why in unwanted.items())):
            if line:
                click.echo(line, err=True)
        return
    for key in unwanted:
        click.echo(_UNSET[shell](key))
    for key, value in variables.items():
        click.echo(_SET[shell](key, value))
    if note:
        click.echo(f"# {note}")


def _unwanted_variables(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that Claude Code must not get, each with the reason."""
    return {
        **dict.fromkeys(diverting_variables(environ), "it leads Claude Code past the proxy"),
        **dict.fromkeys(telemetry_variables(environ), "it reports to a server that is not the model's"),
    }


#: The daemon looks at its files twice a second.
_TAKEOVER_S = 5.0

_UNSET = {
    "sh": lambda key: f"unset {key}",
    "fish": lambda key: f"set -e {key}",
    "powershell": lambda key: f"Remove-Item Env:{key}",
}
_SET = {
    "sh": lambda key, value: f"export {key}={shlex.quote(value)}",
    "fish": lambda key, value: "set -gx {} '{}'".format(key, value.replace("\\", "\\\\").replace("'", "\\'")),
    "powershell": lambda key, value: "$env:{} = '{}'".format(key, value.replace("'", "''")),
}


def _shell_of(path: str) -> str:
    name = os.path.basename(path)
    return {"fish": "fish", "pwsh": "powershell"}.get(name, "sh")


@click.command(
    "code",
    epilog='Example: claude-proxy code demo -p "say hi"',
    context_settings={"ignore_unknown_options": True},
)
@click.argument("model", required=False, shell_complete=complete_model)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@_client_classifier_option
@long_address_options
def code_command(
    model: str | None,
    arguments: tuple[str, ...],
    client_classifier: str | None,
    port: int | None,
    host: str | None,
    models: str | None,
) -> None:
    """Run Claude Code on MODEL; the first of models.yaml if left out.

    Starts the daemon if it does not run. All other options and arguments go to `claude`, whose exit code is ours;
    those after -- go there in any case. Claude Code has the entries of models.yaml in its model picker, and starts in
    its default permission mode where nothing checks the actions of auto mode, unless its settings or arguments say
    otherwise.
    """
    if model is not None and model.startswith("-"):
        arguments = (model, *arguments)
        model = None
    loaded = _load(models)
    route, name = _route(loaded, model)
    target = find_target(port, host, models)
    variables = _variables(loaded, route, name, target.url)
    variables |= _client_classifier(loaded, client_classifier)
    settings = read_user_settings(os.environ, Path.cwd())
    missing = missing_key_message(
        route, variables, os.environ, settings, needs_virtual_key=loaded.settings.auth == "keys"
    )
    if missing:
        raise CommandFailed(missing, EXIT_USAGE)
    program = shutil.which("claude")
    if program is None:
        raise CommandFailed(
            "claude was not found on PATH; install it with 'npm install -g @anthropic-ai/claude-code'",
            EXIT_NO_COMMAND,
        )
    _ensure_served(loaded.config.path, route, port, host, models)
    environ = {**os.environ, **variables}
    if "ANTHROPIC_AUTH_TOKEN" in variables:
        environ.pop("ANTHROPIC_API_KEY", None)  # it would be sent as well, and Claude Code asks about it
    for key, why in _unwanted_variables(environ).items():
        del environ[key]
        click.echo(f"{key} is not passed on to Claude Code: {why}", err=True)
    added, notice = claude_arguments(
        loaded.config.table.routes,
        route,
        name,
        arguments,
        settings,
        is_checked=client_classifier is not None or bool(auto_mode_of(route, loaded.settings)),
    )
    if notice and not {"-p", "--print"} & set(arguments):
        click.echo(notice, err=True)
    os.execve(program, (program, *added, *arguments), environ)  # noqa: S606 - the user's own claude


def _ensure_served(
    path: Path, route: ModelRoute, port: int | None, host: str | None, models: str | None
) -> None:
    """Start the daemon if it does not run, and wait until it has taken over a models.yaml that was just saved."""
    from proxyd.cli.commands import lifecycle

    target = find_target(port, host, models)
    was_running = ask(target).is_ours
    peer, where = lifecycle.ensure_running(target, port=port, host=host, models=models)
    if not was_running:
        click.echo(f"claude-proxy was started on {target.url}; its log: {where}", err=True)
    deadline = time.monotonic() + _TAKEOVER_S
    while route.model_id not in peer.about["models"] and peer.about["config"] == str(path.resolve()):
        if time.monotonic() > deadline:
            fault = peer.about.get("config_error") or {}
            raise CommandFailed(
                f"the daemon on {target.url} has not taken over {path}, and has no model {route.model_id!r}; "
                + ("; ".join(fault.get("faults", ())) or "'claude-proxy reload' says why")
            )
        time.sleep(0.1)
        peer, _ = lifecycle.ensure_running(target, port=port, host=host, models=models)
    if route.model_id not in peer.about["models"]:
        raise CommandFailed(
            f"the daemon on {target.url} uses {peer.about['config']}, which has no model {route.model_id!r}; "
            "'claude-proxy restart' takes over another models.yaml"
        )


def _load(models: str | None) -> LoadedConfig:
    from proxyd.daemon.configuration import load_configuration

    return load_configuration({}, models, os.environ)


def _client_classifier(loaded: LoadedConfig, model: str | None) -> dict[str, str]:
    if model is None:
        return {}
    _route(loaded, model)  # it must be served
    return client_classifier_variables(model)


def _variables(loaded: LoadedConfig, route: ModelRoute, name: str, url: str) -> dict[str, str]:
    token = loaded.settings.auth_token
    return claude_variables(
        route,
        name,
        url,
        token=None if token is None else token.reveal(),
        environ=os.environ,
        needs_virtual_key=loaded.settings.auth == "keys",
    )


def _route(loaded: LoadedConfig, model: str | None) -> tuple[ModelRoute, str]:
    """Return the entry, and the name under which to request it."""
    table = loaded.config.table
    name = table.ids()[0] if model is None else model
    route = table.resolve(name)
    if route is None:
        raise CommandFailed(
            f"there is no model {name!r} in {loaded.config.path}; there are: {', '.join(table.ids())}",
            EXIT_USAGE,
        )
    return route, name
