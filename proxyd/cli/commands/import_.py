"""``claude-proxy import FILE``: write a models.yaml from the configuration of another proxy."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path

import click

from proxyd.cli.exit_codes import EXIT_CONFIG, EXIT_USAGE, CommandFailed

__all__ = ["import_command"]

_MAX_BYTES = 4 << 20


@click.command(
    "import", epilog="Example: claude-proxy import ~/.claude-code-router/config.json -o models.yaml"
)
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), help="The models.yaml to write (stdout).")
def import_command(file: Path, output: Path | None) -> None:
    """Read the configuration of tizee/anthropic-proxy, claude-code-router or LiteLLM, and write a models.yaml.

    Keys that stand in the file are not copied: the entries name variables. What has no counterpart is said on stderr.
    """
    from ruamel.yaml import YAML

    from proxyd.config.edit import save_atomic
    from proxyd.config.faults import Faults
    from proxyd.config.models import load_text
    from proxyd.config.yaml import read_tree
    from proxyd.daemon.configuration import checks
    from proxyd.onboarding.foreign_files import import_configuration

    try:
        data = file.read_bytes()[: _MAX_BYTES + 1]
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise CommandFailed(f"{file}: expected UTF-8", EXIT_CONFIG) from None
    faults = Faults(str(file))
    tree = read_tree(text, faults)  # JSON is YAML
    faults.raise_if_any()
    try:
        done = import_configuration(None if tree is None else tree.plain())
    except ValueError as exc:
        raise CommandFailed(f"{file}: {exc}", EXIT_CONFIG) from None
    out = io.StringIO()
    yaml = YAML()
    yaml.width = 1 << 16
    yaml.dump(done.document, out)
    written = f"# From {file}, by 'claude-proxy import'.\n{out.getvalue()}"
    load_text(written, output or Path("models.yaml"), os.environ, checks=checks())
    for note in done.notes:
        click.echo(f"note: {note}", err=True)
    if output is None:
        sys.stdout.write(written)
        return
    if os.path.lexists(output):
        raise CommandFailed(f"{output} is there already; name a new file, and compare the two", EXIT_USAGE)
    save_atomic(output, written)
    click.echo(f"{output}: {len(done.entries)} entries; then: claude-proxy check --models {output}")
