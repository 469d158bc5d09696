"""``claude-proxy export``: convert a record to an anonymised transcript for a bug report."""

from __future__ import annotations

import re
from pathlib import Path

import click

from proxyd.cli.commands.replay import find_record, read_entry
from proxyd.cli.exit_codes import EXIT_DIFFERS, EXIT_USAGE, CommandFailed
from proxyd.recording import store as record_files
from proxyd.recording.store import BadRecord

__all__ = ["export_command"]

_CASE = re.compile(r"[a-z][a-z0-9_]{0,60}\Z")


@click.command(
    "export", epilog="Example: claude-proxy export req_AbCd tests/transcripts --case cut_in_a_call"
)
@click.argument("record", metavar="FOLDER")
@click.argument("target", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--case", default="recorded", metavar="NAME", help="What the transcript is called (recorded).")
def export_command(record: str, target: Path, case: str) -> None:
    """Convert a recorded call to a transcript for the test suite, with filler in place of all words.

    FOLDER is a record's folder or its request id, DIR the folder to write to; tests/transcripts of a checkout makes it
    a test. Prompts, responses, tool arguments, names, paths, ids and model names become filler of the same shape.

    Exit code 4: the transcript was written, but its translation is no longer that of the recorded call.
    """
    from proxyd.replay.transcript import export

    if not _CASE.match(case):
        raise click.UsageError("--case: expected small letters, digits and underscores, with a letter first")
    try:
        found = export(record_files.load(find_record(record)), read_entry, case)
    except BadRecord as exc:
        raise CommandFailed(str(exc), EXIT_USAGE) from None
    paths = {target / name: data for name, data in found.files.items()}
    for path in paths:
        if path.exists():
            raise CommandFailed(f"{path} is there already; choose another name with --case", EXIT_USAGE)
    for path, data in paths.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        click.echo(str(path))
    if not found.is_faithful:
        raise CommandFailed(
            "the transcript does not produce the events of the call, so it may not show the bug: the bug depends on "
            "the words that were replaced",
            EXIT_DIFFERS,
        )
    click.echo(f"It produces the same {len(found.kinds)} events as the call. Read it before you pass it on.")
