"""``claude-proxy export``: a record as a transcript without anybody's words, to report a bug with."""

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
    """Make a transcript for the test suite of a recorded call, with filler in place of all words.

    FOLDER is a record's folder or its request id, DIR is where to write; tests/transcripts of a checkout makes it a
    test. Prompts, answers, tool arguments, names, paths, ids and model names become filler of the same shape.

    Exit code 4: the transcript was written, but what the translation makes of it is no longer what it made of the call.
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
            "the transcript no longer makes the events that the call made, so it may not show what went wrong: "
            "what mattered was in the words themselves",
            EXIT_DIFFERS,
        )
    click.echo(f"It makes the same {len(found.kinds)} events as the call. Read it before you pass it on.")
