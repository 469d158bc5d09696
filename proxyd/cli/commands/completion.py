"""``claude-proxy completion``: a script with which a shell completes commands, options and model ids."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

__all__ = ["completion_command"]


@click.command("completion", epilog='Example, in ~/.bashrc: eval "$(claude-proxy completion bash)"')
@click.argument("shell", type=click.Choice(("bash", "zsh", "fish")))
@click.pass_context
def completion_command(context: click.Context, shell: str) -> None:
    """Print a completion script for a shell.

    bash, zsh: eval it in ~/.bashrc or ~/.zshrc. fish: claude-proxy completion fish | source
    """
    completer = get_completion_class(shell)
    assert completer is not None, "click supports all of them"
    root = context.find_root().command
    click.echo(completer(root, {}, "claude-proxy", "_CLAUDE_PROXY_COMPLETE").source())
