"""The command line's root: ``claude-proxy`` alone is ``claude-proxy run``."""

from __future__ import annotations

import sys

import click

import proxyd
from proxyd.cli.run import run_command, run_options
from proxyd.cli.stats import stats_command, statusline_command
from proxyd.errors import ConfigError, ProxyError

__all__ = ["EXIT_ADDRESS_IN_USE", "EXIT_BUG", "EXIT_CONFIG", "EXIT_USAGE", "main"]

#: operations.md F5
EXIT_BUG, EXIT_USAGE, EXIT_ADDRESS_IN_USE, EXIT_CONFIG = 1, 64, 75, 78


@click.group(
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Example: claude-proxy --port 8082 --models ~/my-models.yaml",
)
@run_options
@click.version_option(proxyd.__version__, prog_name="claude-proxy")
@click.pass_context
def cli(context: click.Context, /, **options: object) -> None:
    """A light streaming proxy that lets Claude Code run on any model.

    Without a command it runs the daemon in the foreground.
    """
    if context.invoked_subcommand is None:
        context.invoke(run_command, **options)


cli.add_command(run_command)
cli.add_command(stats_command)
cli.add_command(statusline_command)


def main() -> None:
    """Run the command line; errors are one sentence on stderr and an exit code."""
    try:
        cli.main(standalone_mode=False)
    except click.exceptions.Exit as exc:
        sys.exit(exc.exit_code)
    except click.ClickException as exc:
        exc.show()
        sys.exit(EXIT_USAGE)
    except click.Abort:
        sys.exit(130)
    except ProxyError as exc:
        click.echo(exc.message, err=True)
        from proxyd.server import AddressInUse

        if isinstance(exc, AddressInUse):
            sys.exit(EXIT_ADDRESS_IN_USE)
        sys.exit(EXIT_CONFIG if isinstance(exc, ConfigError) else EXIT_BUG)
