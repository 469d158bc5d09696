"""The command line's root: ``claude-proxy`` alone is ``claude-proxy run``.

Commands are imported on use, so that ``--help`` and ``status`` start quickly. `COMMANDS` has the module and the
one-line help of each.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

import click

import proxyd
from proxyd.cli.exit_codes import (
    EXIT_ADDRESS_IN_USE,
    EXIT_BUG,
    EXIT_CONFIG,
    EXIT_PERMISSIONS,
    EXIT_USAGE,
    CommandFailed,
    failure_of_os,
)
from proxyd.cli.groups import CommandGroup
from proxyd.cli.options import run_options
from proxyd.errors import AddressInUse, ConfigError, ProxyError, UnsafePermissions

__all__ = ["COMMANDS", "main"]

#: name -> (module, attribute, one-line help), in the order in which a new user needs them
COMMANDS: dict[str, tuple[str, str, str]] = {
    "run": ("proxyd.cli.commands.run", "run_command", "Run the daemon in the foreground."),
    "start": ("proxyd.cli.commands.lifecycle", "start_command", "Start the daemon in the background."),
    "stop": ("proxyd.cli.commands.lifecycle", "stop_command", "Stop the daemon; open streams may finish."),
    "restart": (
        "proxyd.cli.commands.lifecycle",
        "restart_command",
        "Replace the daemon; open streams may finish.",
    ),
    "reload": ("proxyd.cli.commands.lifecycle", "reload_command", "Read models.yaml, env and hooks again."),
    "status": (
        "proxyd.cli.commands.lifecycle",
        "status_command",
        "Say whether the daemon runs, and how it does.",
    ),
    "logs": ("proxyd.cli.commands.logs", "logs_command", "Show the log of the background daemon."),
    "init": (
        "proxyd.cli.commands.init",
        "init_command",
        "Write a commented models.yaml, hooks and an env file.",
    ),
    "env": (
        "proxyd.cli.commands.code",
        "env_command",
        "Print the variables that Claude Code needs for a model.",
    ),
    "code": ("proxyd.cli.commands.code", "code_command", "Run Claude Code on a model."),
    "add": (
        "proxyd.cli.commands.add",
        "add_command",
        "Add models of a vendor or an address: choose, try, write.",
    ),
    "import": (
        "proxyd.cli.commands.import_",
        "import_command",
        "Write a models.yaml from the configuration of another proxy.",
    ),
    "check": (
        "proxyd.cli.commands.check",
        "check_command",
        "Validate models.yaml; with --probe, call the upstreams.",
    ),
    "models": ("proxyd.cli.commands.models", "models_command", "List, add or remove entries of models.yaml."),
    "keys": (
        "proxyd.cli.commands.keys",
        "keys_command",
        "Make, list and revoke keys for the people who use this proxy.",
    ),
    "store": ("proxyd.cli.commands.store", "store_command", "Copy keys and usage to PostgreSQL."),
    "doctor": (
        "proxyd.cli.commands.doctor",
        "doctor_command",
        "Check everything between Claude Code and the upstreams.",
    ),
    "translate": (
        "proxyd.cli.commands.translate",
        "translate_command",
        "Show what a route makes of a request or a response; calls nothing.",
    ),
    "route": (
        "proxyd.cli.commands.route",
        "route_command",
        "Show which entry serves a request, and by which rule; calls nothing.",
    ),
    "features": (
        "proxyd.cli.commands.features",
        "features_command",
        "Show what works on a model, and what to set; with --probe, try it.",
    ),
    "replay": ("proxyd.cli.commands.replay", "replay_command", "Run a recorded call again, offline."),
    "export": (
        "proxyd.cli.commands.export",
        "export_command",
        "Make a transcript of a recorded call, without its words.",
    ),
    "stats": (
        "proxyd.cli.commands.stats",
        "stats_command",
        "Show tokens, cost, time and failures from the ledger.",
    ),
    "top": ("proxyd.cli.commands.top", "top_command", "Show the calls in flight, live."),
    "statusline": (
        "proxyd.cli.commands.stats",
        "statusline_command",
        "One line for Claude Code's status line.",
    ),
    "service": ("proxyd.cli.commands.service", "service_command", "Run at login, by systemd or launchd."),
    "completion": (
        "proxyd.cli.commands.completion",
        "completion_command",
        "Print a completion script for a shell.",
    ),
}


#: What people type for a command of another name.
_SYNONYMS = {
    "config": "check",
    "down": "stop",
    "help": "--help",
    "install": "service install",
    "list": "models list",
    "log": "logs",
    "ls": "models list",
    "model": "models",
    "remove": "models remove",
    "serve": "run",
    "test": "doctor --probe",
    "uninstall": "service uninstall",
    "up": "start",
    "usage": "stats",
    "validate": "check",
    "version": "--version",
}


class _Commands(CommandGroup):
    """A group that imports a command on first use."""

    synonyms = _SYNONYMS

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, attribute, _ = COMMANDS[cmd_name]
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, _, line) in COMMANDS.items()])


@click.group(
    cls=_Commands,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Example: claude-proxy --port 8082 --models ~/my-models.yaml",
)
@run_options
@click.version_option(proxyd.__version__, prog_name="claude-proxy")
@click.pass_context
def cli(context: click.Context, /, **options: Any) -> None:
    """A light streaming proxy that lets Claude Code run on any model.

    Without a command it runs the daemon in the foreground.
    """
    if context.invoked_subcommand is None:
        command = cli.get_command(context, "run")
        assert command is not None
        context.invoke(command, **options)
    elif given := [name for name, value in options.items() if value not in (None, False)]:
        raise click.UsageError(_misplaced(context, context.invoked_subcommand, given[0], options[given[0]]))


def _misplaced(context: click.Context, name: str, option: str, value: Any) -> str:
    """Say what to write instead of an option in front of a command."""
    flag = f"--{option.replace('_', '-')}"
    command = cli.get_command(context, name)
    known = {parameter.name for parameter in command.params} if command is not None else set()
    words = flag if value is True else f"{flag} {value}"
    if option in known:
        return f"{flag} stands before {name!r}, where it has no effect; write 'claude-proxy {name} {words}'"
    if option == "dev" and name == "start":
        remedy = "write 'claude-proxy -d', or 'LOG_LEVEL=debug claude-proxy start' for debug logs in the background"
    else:
        remedy = f"leave it out, or write 'claude-proxy run {words}'"
    return f"{flag} is an option of 'run', and {name!r} has none; {remedy}"


def main() -> None:
    """Run the command line; errors are one sentence on stderr and an exit code."""
    # Any other exception is a bug; its traceback is shown with LOG_LEVEL=debug.
    try:
        cli.main(prog_name="claude-proxy", standalone_mode=False)
    except click.exceptions.Exit as exc:
        sys.exit(exc.exit_code)
    except click.ClickException as exc:
        exc.show()
        sys.exit(EXIT_USAGE)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    except CommandFailed as exc:
        _end(exc.message, exc.code)
    except ProxyError as exc:
        _end(exc.message, _code_of(exc))
    except BrokenPipeError:
        # The reader has closed the pipe, as `| head` does. Without this, Python's own flush would fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except OSError as exc:
        failure = failure_of_os(exc)
        _end(failure.message, failure.code)
    except Exception as exc:
        if os.environ.get("LOG_LEVEL", "").lower() == "debug":
            raise
        _end(
            f"a bug in claude-proxy: {type(exc).__name__}: {exc}; LOG_LEVEL=debug shows where, please report it",
            EXIT_BUG,
        )


def _code_of(exc: ProxyError) -> int:
    if isinstance(exc, AddressInUse):
        return EXIT_ADDRESS_IN_USE
    if isinstance(exc, UnsafePermissions):
        return EXIT_PERMISSIONS
    return EXIT_CONFIG if isinstance(exc, ConfigError) else EXIT_BUG


def _end(message: str, code: int) -> None:
    click.echo(message, err=True)
    sys.exit(code)
