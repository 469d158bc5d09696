"""``claude-proxy env`` and ``claude-proxy code``: Claude Code on a model of models.yaml.

What it must be told beside the address (docs/spec/claude-code.md#window, #switches): it takes every model it does not
know for one with a window of 1 000 000 tokens, and asks for its own small models by name for titles and subagents.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
from collections.abc import Mapping
from typing import TYPE_CHECKING

import click

from proxyd.cli.daemon_client import ask, find_target
from proxyd.cli.exit_codes import EXIT_NO_COMMAND, EXIT_USAGE, CommandFailed
from proxyd.cli.options import address_options

if TYPE_CHECKING:
    from proxyd.config.routes import ModelRoute
    from proxyd.daemon.configuration import LoadedConfig

__all__ = ["claude_variables", "code_command", "env_command"]

_MODEL_ID = re.compile(r"^[^#\n]*\bmodel_id:\s*['\"]?([^\s'\",}]+)", re.MULTILINE)
_SHELLS = ("sh", "fish", "powershell", "json")
#: Claude Code sends one of these or both; a daemon that needs no key takes any.
_KEYS = ("ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_API_KEY")


def claude_variables(
    route: ModelRoute, model: str, url: str, *, token: str | None, environ: Mapping[str, str]
) -> dict[str, str]:
    """The variables for Claude Code on `route`.

    Args:
        model: how the route is asked for.
        token: the daemon's own access token, if it wants one.
        environ: where the user's key may be; it is left alone where the upstream gets it.
    """
    found = {"ANTHROPIC_BASE_URL": url}
    if token is not None:
        found["ANTHROPIC_AUTH_TOKEN"] = token
    elif not needs_client_key(route):
        found["ANTHROPIC_AUTH_TOKEN"] = "any"  # noqa: S105 - it must not be empty, and goes nowhere
    found["ANTHROPIC_MODEL"] = model
    for kind in ("OPUS", "SONNET", "HAIKU"):
        found[f"ANTHROPIC_DEFAULT_{kind}_MODEL"] = model
    found["CLAUDE_CODE_SUBAGENT_MODEL"] = model
    if route.max_input_tokens is not None:
        found["CLAUDE_CODE_MAX_CONTEXT_TOKENS"] = str(route.max_input_tokens)
    if route.max_tokens is not None:
        found["CLAUDE_CODE_MAX_OUTPUT_TOKENS"] = str(route.max_tokens)
    found["CLAUDE_CODE_ENABLE_GATEWAY_MODEL_DISCOVERY"] = "1"
    if not route.direct:
        # The block names Claude Code's build: of no use to other models, and each update would spoil their caches.
        found["CLAUDE_CODE_ATTRIBUTION_HEADER"] = "0"
    return found


def needs_client_key(route: ModelRoute) -> bool:
    """Whether the upstream gets the key that Claude Code sends."""
    from proxyd.urls import is_loopback_url

    return not (
        route.is_demo or route.api_key is not None or route.missing_key or is_loopback_url(route.api_base)
    )


def _complete_model(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """The ids of models.yaml that begin so. Read by a pattern: a shell waits for this at each press of a key."""
    from proxyd.config.paths import resolve_models_path

    path, _ = resolve_models_path(context.params.get("models"), os.environ)
    try:
        found = _MODEL_ID.findall(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError):
        return []
    return [name for name in found if name.startswith(incomplete)]


@click.command("env", epilog='Example: eval "$(claude-proxy env deepseek)"')
@click.argument("model", required=False, shell_complete=_complete_model)
@click.option(
    "--shell", type=click.Choice(_SHELLS), help="Whose syntax (that of $SHELL); json is for settings.json."
)
@address_options
def env_command(
    model: str | None, shell: str | None, port: int | None, host: str | None, models: str | None
) -> None:
    """Print the variables that Claude Code needs for MODEL; the first of models.yaml if left out."""
    loaded = _load(models)
    route, name = _route(loaded, model)
    url = find_target(port, host, models).url
    variables = claude_variables(route, name, url, token=_token(loaded), environ=os.environ)
    note = ""
    if "ANTHROPIC_AUTH_TOKEN" not in variables and not any(os.environ.get(key) for key in _KEYS):
        note = f"ANTHROPIC_AUTH_TOKEN must be your key for {route.api_base}; it is not set"
    shell = shell or _shell_of(os.environ.get("SHELL", ""))
    if shell == "json":
        click.echo(json.dumps({"env": variables}, indent=2))
        if note:
            click.echo(note, err=True)
        return
    for key, value in variables.items():
        click.echo(_LINES[shell](key, value))
    if note:
        click.echo(f"# {note}")


_LINES = {
    "sh": lambda key, value: f"export {key}={shlex.quote(value)}",
    "fish": lambda key, value: "set -gx {} '{}'".format(key, value.replace("\\", "\\\\").replace("'", "\\'")),
    "powershell": lambda key, value: "$env:{} = '{}'".format(key, value.replace("'", "''")),
}


def _shell_of(path: str) -> str:
    name = os.path.basename(path)
    return {"fish": "fish", "pwsh": "powershell"}.get(name, "sh")


@click.command(
    "code",
    epilog='Example: claude-proxy code demo -- -p "say hi"',
    context_settings={"ignore_unknown_options": True},
)
@click.argument("model", required=False, shell_complete=_complete_model)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@address_options
def code_command(
    model: str | None, arguments: tuple[str, ...], port: int | None, host: str | None, models: str | None
) -> None:
    """Run Claude Code on MODEL; the first of models.yaml if left out.

    Starts the daemon where it does not run. What stands behind -- goes to `claude`, whose exit code is ours.
    """
    if model is not None and model.startswith("-"):
        arguments = (model, *arguments)
        model = None
    loaded = _load(models)
    route, name = _route(loaded, model)
    program = shutil.which("claude")
    if program is None:
        raise CommandFailed(
            "claude was not found on PATH; install it with 'npm install -g @anthropic-ai/claude-code'",
            EXIT_NO_COMMAND,
        )
    target = find_target(port, host, models)
    _ensure_served(route, port, host, models)
    variables = claude_variables(route, name, target.url, token=_token(loaded), environ=os.environ)
    environ = {**os.environ, **variables}
    if "ANTHROPIC_AUTH_TOKEN" in variables:
        environ.pop("ANTHROPIC_API_KEY", None)  # it would be sent as well, and Claude Code asks about it
    os.execve(program, (program, *arguments), environ)  # noqa: S606 - the user's own claude


def _ensure_served(route: ModelRoute, port: int | None, host: str | None, models: str | None) -> None:
    from proxyd.cli.commands import lifecycle

    target = find_target(port, host, models)
    was_running = ask(target).is_ours
    peer, where = lifecycle.ensure_running(target, port=port, host=host, models=models)
    if not was_running:
        click.echo(f"claude-proxy was started on {target.url}; its log: {where}", err=True)
    if route.model_id not in peer.about["models"]:
        raise CommandFailed(
            f"the daemon on {target.url} uses {peer.about['config']}, which has no model {route.model_id!r}; "
            "'claude-proxy restart' takes over another models.yaml"
        )


def _load(models: str | None) -> LoadedConfig:
    from proxyd.daemon.configuration import load_configuration

    return load_configuration({}, models, os.environ)


def _token(loaded: LoadedConfig) -> str | None:
    token = loaded.settings.auth_token
    return None if token is None else token.reveal()


def _route(loaded: LoadedConfig, model: str | None) -> tuple[ModelRoute, str]:
    """The entry, and the name under which to ask for it."""
    table = loaded.config.table
    name = table.ids()[0] if model is None else model
    route = table.resolve(name)
    if route is None:
        raise CommandFailed(
            f"there is no model {name!r} in {loaded.config.path}; there are: {', '.join(table.ids())}",
            EXIT_USAGE,
        )
    return route, name
