"""Options that several commands share."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import Any, TypeVar

import click

__all__ = [
    "LOG_FORMATS",
    "LOG_LEVELS",
    "address_options",
    "complete_model",
    "json_option",
    "long_address_options",
    "run_options",
]

#: Values of the settings log_level and log_format; importing those would slow every command down.
LOG_LEVELS = ("debug", "info", "warning", "error")
LOG_FORMATS = ("auto", "console", "json", "logfmt")

_MODEL_ID = re.compile(r"^[^#\n]*\bmodel_id:\s*['\"]?([^\s'\",}]+)", re.MULTILINE)

F = TypeVar("F", bound=Callable[..., Any])

_ADDRESS = (
    click.option(
        "-p", "--port", type=click.IntRange(0, 65535), metavar="N", help="Port to listen on (8082)."
    ),
    click.option("--host", metavar="H", help="Address to listen on (127.0.0.1)."),
    click.option("--models", metavar="FILE", type=click.Path(), help="The models.yaml to use."),
)
_RUN = (
    click.option("-d", "--dev", is_flag=True, help="Development: debug logs, restart on a changed file."),
    *_ADDRESS,
    click.option(
        "--log-bodies", is_flag=True, help="Log prompts and responses; needs --log-level debug or -d."
    ),
    click.option(
        "--log-level", type=click.Choice(LOG_LEVELS), help="Least severe lines that are logged (info)."
    ),
    click.option("--log-format", type=click.Choice(LOG_FORMATS), help="Form of the log's lines (auto)."),
    click.option(
        "--max-retries", type=click.IntRange(0, 10), metavar="N", help="Retries before the first byte (2)."
    ),
    click.option(
        "--workers", type=click.IntRange(1, 64), metavar="N", help="Processes that serve calls (1)."
    ),
    click.option("--insecure", is_flag=True, help="Listen beyond loopback without an access token."),
)


def run_options(command: F) -> F:
    """Add the daemon's options, for the root command and ``run``."""
    for option in reversed(_RUN):
        command = option(command)
    return command


def address_options(command: F) -> F:
    """Add the options that select a daemon."""
    for option in reversed(_ADDRESS):
        command = option(command)
    return command


def long_address_options(command: F) -> F:
    """As `address_options` without ``-p``, which is Claude Code's ``--print``."""
    port = click.option(
        "--port", type=click.IntRange(0, 65535), metavar="N", help="Port to listen on (8082)."
    )
    for option in (*reversed(_ADDRESS[1:]), port):
        command = option(command)
    return command


def complete_model(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """Return the ids of models.yaml with that prefix, read by a pattern: the shell waits at each press of a key."""
    from proxyd.config.paths import resolve_models_path

    path, _ = resolve_models_path(context.params.get("models"), os.environ)
    try:
        found = _MODEL_ID.findall(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError):
        return []
    return [name for name in found if name.startswith(incomplete)]


#: For scripts.
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
