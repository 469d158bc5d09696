"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

__all__ = ["address_options", "json_option", "long_address_options", "run_options"]

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
    click.option("--log-bodies", is_flag=True, help="Log prompts and answers; needs LOG_LEVEL=debug or -d."),
    click.option("--insecure", is_flag=True, help="Listen beyond loopback without an access token."),
)


def run_options(command: F) -> F:
    """The daemon's options, on the root command and on ``run`` alike."""
    for option in reversed(_RUN):
        command = option(command)
    return command


def address_options(command: F) -> F:
    """Which daemon is meant."""
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


#: For scripts.
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
