"""``claude-proxy replay``: run a recorded call again, offline, with the installed code."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import MISSING, fields, replace
from itertools import islice
from pathlib import Path
from typing import Any

import click

from proxyd.cli.exit_codes import EXIT_DIFFERS, EXIT_USAGE, CommandFailed
from proxyd.cli.options import json_option
from proxyd.config.paths import resolve_state_folder
from proxyd.config.routes import ModelRoute
from proxyd.recording import store as record_files
from proxyd.recording.store import BadRecord, Record, summary_of
from proxyd.replay.diff import Difference, FreshIds, differences, one_line
from proxyd.secret import MASK, Secret

__all__ = ["find_record", "read_entry", "replay_command"]

#: Differences between two requests that are shown.
_MAX_SHOWN = 30
_PIPE_CELLS = 500
_BAD = "a record that cannot be read"


@click.command("replay", epilog="Example: claude-proxy replay --list; claude-proxy replay req_AbCd")
@click.argument("record", metavar="FOLDER", required=False)
@click.option("--list", "is_list", is_flag=True, help="List what is recorded, the newest first.")
@click.option("--against", metavar="MODEL", help="Show how the request would differ for another model.")
@click.option("--models", metavar="FILE", type=click.Path(), help="The models.yaml to use, with --against.")
@json_option
def replay_command(
    record: str | None, is_list: bool, against: str | None, models: str | None, as_json: bool
) -> None:
    """Run a recorded call again, offline, and show the first difference.

    FOLDER is a record's folder, or the request id of one that the daemon has kept. The request is translated and the
    recorded chunks are decoded again, by the installed code and the recorded entry of models.yaml. Nothing is called,
    and hooks are not run.

    Exit code 0: no difference; 4: it differs.
    """
    if is_list:
        if record is not None or against is not None:
            raise click.UsageError("--list stands alone")
        _list(as_json)
        return
    if record is None:
        raise click.UsageError("give the folder of a record or its request id; --list shows what there is")
    if models is not None and against is None:
        raise click.UsageError("--models goes with --against; a record brings its own entry along")
    try:
        loaded = record_files.load(find_record(record))
        has_differences = (
            _replay(loaded, as_json) if against is None else _compare(loaded, against, models, as_json)
        )
    except BadRecord as exc:
        raise CommandFailed(str(exc), EXIT_USAGE) from None
    if has_differences:
        sys.exit(EXIT_DIFFERS)


def find_record(name: str) -> Path:
    """Find the folder of a record by its path, its request id or the beginning of one.

    Raises:
        CommandFailed: there is none, or more than one.
    """
    path = Path(name)
    if path.is_dir():
        return path
    root = resolve_state_folder(os.environ) / record_files.FOLDER
    found = [path for path in record_files.folders(root) if path.name.partition("-")[2].startswith(name)]
    if len(found) == 1:
        return found[0]
    what = "is the beginning of more than one" if found else "is neither a folder nor a request id of one"
    raise CommandFailed(
        f"{name[:100]!r} {what} of the records in {root}; 'claude-proxy replay --list' shows them",
        EXIT_USAGE,
    )


def read_entry(entry: Mapping[str, Any]) -> ModelRoute:
    """Validate a recorded entry like one of models.yaml.

    Raises:
        ConfigError: it is not valid.
    """
    from proxyd.config.models import load_text
    from proxyd.daemon.configuration import checks

    given = {}
    for each in fields(ModelRoute):
        default = each.default_factory() if each.default_factory is not MISSING else each.default
        if each.name in entry and each.name not in ("fallback", "hooks", "missing_key"):
            value = entry[each.name]
            if value != (list(default) if isinstance(default, tuple) else default):
                given[each.name] = value
    config = load_text(json.dumps([given]), Path("call.json"), {}, checks=checks())
    missing = entry.get("missing_key")
    return replace(
        config.table.routes[0],
        api_key=Secret(MASK) if entry.get("has_key") is True else None,
        missing_key=missing if isinstance(missing, str) else None,
    )


# -- the list


def _list(as_json: bool) -> None:
    root = resolve_state_folder(os.environ) / record_files.FOLDER
    found = []
    for path in reversed(record_files.folders(root)):
        try:
            found.append(summary_of(path))
        except BadRecord:
            found.append({"request_id": path.name.partition("-")[2], "folder": str(path), "cause": _BAD})
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    if not found:
        click.echo(f"No records in {root}: no call has failed since there are any, or 'record' is off.")
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("request id", "time (UTC)", "model", "status", "outcome", "bodies"):
        table.add_column(name, no_wrap=True)
    table.add_column("cause", overflow="fold")
    for each in found:
        started = str(each.get("started") or "")
        cells = (
            each["request_id"],
            f"{started[:10]} {started[11:19]}",
            each.get("model"),
            each.get("status"),
            each.get("outcome"),
            "yes" if each.get("has_bodies") else "no",
            _cause(each),
        )
        table.add_row(*(Text("" if cell is None else one_line(str(cell))) for cell in cells))
    # One line per record if the output is a pipe.
    Console(highlight=False, width=None if sys.stdout.isatty() else _PIPE_CELLS).print(table)


def _cause(summary: Mapping[str, Any]) -> str:
    """Return why a call failed, with the address that was called."""
    cause, address = str(summary.get("cause") or ""), str(summary.get("address") or "")
    return cause if address in cause else f"{cause} ({address})".strip()


# -- a replay


def _replay(record: Record, as_json: bool) -> bool:
    from proxyd.replay.replay import Replay

    replay = Replay(record, read_entry)
    found = replay.run()
    if as_json:
        parts = [
            {"part": each.part, "difference": None if each.difference is None else _plain(each.difference)}
            for each in found
        ]
        _print_json(record, parts=parts, notes=replay.notes)
    else:
        click.echo(_title(record))
        for each in found:
            if each.difference is None:
                click.echo(f"{each.part}: no difference")
            else:
                click.echo(f"{each.part}: differs")
                _show(each.difference)
        for note in replay.notes:
            click.echo(one_line(f"note: {note}"))
    return any(each.difference is not None for each in found)


def _compare(record: Record, model: str, models: str | None, as_json: bool) -> bool:
    """Compare the recorded request with that for another model."""
    from proxyd.daemon.configuration import load_configuration
    from proxyd.errors import ProxyError
    from proxyd.recording.key_masking import shown_headers, shown_url
    from proxyd.replay.replay import request_for

    if record.body is None or not record.attempts or record.attempts[-1].body is None:
        raise BadRecord(
            f"{record.path} does not hold the request: set 'record_bodies: true' under 'settings' in "
            "models.yaml and make the call again"
        )
    loaded = load_configuration({}, models, os.environ)
    loaded.hooks.close()
    route = loaded.config.table.resolve(model)
    if route is None:
        known = ", ".join(loaded.config.table.ids())
        raise CommandFailed(f"no model {model[:100]!r} in models.yaml; there are: {known}", EXIT_USAGE)
    route = replace(route, api_key=Secret(MASK), missing_key=None)  # nothing is called
    sent = record.attempts[-1]
    assert sent.body is not None, "checked above"
    try:
        _, request = request_for(record, route, FreshIds(), model=model)
    except ProxyError as exc:
        found = [Difference("", "a request", f"refused: {exc.message}")]
    else:
        recorded = {name: sent.request.get(name) for name in ("url", "headers")}
        now = {"url": shown_url(request.url), "headers": shown_headers(request.headers.items())}
        recorded["body"], now["body"] = _parsed(sent.body), _parsed(request.body)
        found = list(islice(differences(recorded, now), _MAX_SHOWN + 1))
    if as_json:
        _print_json(record, against=model, differences=[_plain(each) for each in found[:_MAX_SHOWN]])
        return bool(found)
    click.echo(_title(record))
    click.echo(f"sent to {sent.request.get('route')}, and as it would be for {model}:")
    for each in found[:_MAX_SHOWN]:
        _show(each)
    if len(found) > _MAX_SHOWN:
        click.echo("  … and more")
    if not found:
        click.echo("  no difference")
    return bool(found)


def _parsed(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return body.decode("utf-8", "replace")


def _plain(difference: Difference) -> dict[str, str]:
    return {name: getattr(difference, name) for name in ("place", "recorded", "now")}


def _print_json(record: Record, **found: Any) -> None:
    click.echo(
        json.dumps(
            {"request_id": record.facts.get("request_id"), "folder": str(record.path), **found}, indent=2
        )
    )


def _title(record: Record) -> str:
    facts = record.facts
    route = facts.get("route")
    via = f" via {route}" if route and route != facts.get("model") else ""
    result = f"{facts.get('status')} {facts.get('outcome')}"
    cause = facts.get("error")
    title = f"{facts.get('request_id')}, {record.call.get('started')}: {facts.get('model')}{via}, {result}"
    return one_line(f"{title}: {cause}" if cause else title)


def _show(difference: Difference) -> None:
    if difference.place:
        click.echo(f"  {one_line(difference.place)}")
    click.echo(f"    recorded: {one_line(difference.recorded)}")
    click.echo(f"    now:      {one_line(difference.now)}")
