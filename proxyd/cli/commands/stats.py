"""``claude-proxy stats`` and ``statusline``: show usage from the ledger's file; no daemon is needed."""

from __future__ import annotations

import csv
import json
import os
import re
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from proxyd.config.paths import resolve_state_folder
from proxyd.telemetry import ledger_queries as stats
from proxyd.telemetry.ledger_schema import FILE

if TYPE_CHECKING:
    from proxyd.telemetry.shared_ledger import SharedLedger

__all__ = ["stats_command", "statusline_command"]

_SPAN = re.compile(r"(\d{1,5})([mhdw])\Z")
_SPAN_S = {"m": 60, "h": 3_600, "d": 86_400, "w": 7 * 86_400}
_BAR_CELLS = 16
#: Columns of ``--csv`` after the group, in this order.
_CSV = stats.SUMS


@click.command("stats", epilog="Example: claude-proxy stats --since 7d --by session")
@click.option(
    "--since", default="30d", metavar="SPAN", help="How far back: 90m, 12h, 7d, 4w, or today (30d)."
)
@click.option("--by", type=click.Choice(tuple(stats.GROUPS)), default="model", help="Group by this (model).")
@click.option("--session", metavar="ID", help="One session and its calls; the beginning of its id is enough.")
@click.option(
    "--shared", is_flag=True, help="Of all daemons that share a PostgreSQL database (settings: store)."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV.")
def stats_command(
    since: str, by: str, session: str | None, shared: bool, as_json: bool, as_csv: bool
) -> None:
    """Show tokens, cost, time and failures from the ledger."""
    if as_json and as_csv:
        raise click.UsageError("--json and --csv exclude each other; choose one")
    start = _start_of(since, time.time())
    database = _open_shared() if shared else stats.open_ledger(_path())
    try:
        if session is not None:
            session = _single_session(stats.sessions_like(database, session), session)
        rows = stats.sums(database, start, by=by, session=session)
        total = stats.sums(database, start, session=session)[0]
        calls = [] if session is None else stats.calls_of_session(database, session)
    finally:
        database.close()
    for damaged in () if shared else stats.damaged_files(_path()):
        click.echo(
            f"warning: {damaged} was damaged and is not counted; remove it when it is not needed", err=True
        )
    if as_json:
        found: dict[str, Any] = {"since": start, "by": by, "total": total, "rows": rows}
        if session is not None:
            found.update(session=session, calls=calls)
        click.echo(json.dumps(found, indent=2))
    elif as_csv:
        _write_csv(rows, by)
    else:
        _show(rows, total, by, since, session, calls)


@click.command(
    "statusline",
    epilog='Example, in ~/.claude/settings.json: {"statusLine": {"type": "command", '
    '"command": "claude-proxy statusline"}}',
)
def statusline_command() -> None:
    """One line for Claude Code's status line: the model and its routes, tokens and cost of this session.

    Reads the JSON that Claude Code gives to such a command on stdin.
    """
    try:
        given = json.loads(sys.stdin.read() or "{}")
    except ValueError:
        given = {}
    given = given if isinstance(given, dict) else {}
    model = given.get("model")
    model = model if isinstance(model, dict) else {}
    model_id = str(model.get("id") or "")
    name = str(model.get("display_name") or model_id or "?")
    session = given.get("session_id")
    click.echo(_statusline(name, model_id, session if isinstance(session, str) else ""))


def _statusline(name: str, model_id: str, session: str) -> str:
    if not session:
        return name
    try:
        database = stats.open_ledger(_path())
        try:
            calls = stats.calls_of_session(database, session)
            total = stats.sums(database, 0, session=session)[0]
            prompt = stats.last_prompt(database, session)
        finally:
            database.close()
    except stats.LedgerUnreadable:
        return name  # a status line has no room for an explanation; `claude-proxy stats` gives it
    if not total["calls"]:
        return name
    # Claude Code adds [1m] to an id, and does not send it.
    ids = {model_id, model_id.removesuffix("[1m]")}
    routes = dict.fromkeys(call["route"] for call in calls if call["model"] in ids and call["route"])
    is_known = all(route in ids or route == name for route in routes)
    parts = [name if is_known else f"{name} via {', '.join(routes)}", _tokens_of(total)]
    if total["unpriced_calls"] < total["calls"]:
        parts.append(_usd(total))
    if prompt is not None and prompt["calls"] > 1:
        cost = f", {_usd(prompt)}" if prompt["unpriced_calls"] < prompt["calls"] else ""
        parts.append(f"this prompt: {prompt['calls']} calls{cost}")
    parts += _near_limits(next((call for call in calls if call.get("caller")), None))
    return " · ".join(parts)


def _near_limits(call: Mapping[str, Any] | None) -> list[str]:
    """Return the limits that are nearly used up, of the virtual key of a call and of its team."""
    if call is None:
        return []
    from proxyd.proxy.near_limits import FILE as LIMITS_FILE
    from proxyd.proxy.near_limits import read_near_limits

    return read_near_limits(_path().with_name(LIMITS_FILE), call["caller"], call["team"], time.time())


def _open_shared() -> SharedLedger:
    from proxyd.cli.key_store import configured_url
    from proxyd.telemetry.shared_ledger import SharedLedger

    url = configured_url()
    if url is None:
        raise click.UsageError("--shared: 'store' under settings in models.yaml names no PostgreSQL database")
    return SharedLedger(url)


def _path() -> Path:
    return resolve_state_folder(os.environ) / FILE


def _start_of(since: str, now: float) -> float:
    if since == "today":
        return stats.midnight(now)
    found = _SPAN.match(since)
    if found is None:
        raise click.UsageError(f"--since: expected a span such as 90m, 12h, 7d, 4w, or today; got {since!r}")
    return max(0.0, now - int(found[1]) * _SPAN_S[found[2]])


def _single_session(found: list[str], prefix: str) -> str:
    if prefix in found or len(found) == 1:
        return prefix if prefix in found else found[0]
    what = (
        "is no session in the ledger" if not found else f"is the beginning of {len(found)} sessions or more"
    )
    raise click.UsageError(f"--session: {prefix!r} {what}; 'claude-proxy stats --by session' names them")


def _write_csv(rows: list[dict[str, Any]], by: str) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow((by, *_CSV))
    writer.writerows((row[by], *(row[name] for name in _CSV)) for row in rows)


# -- printing


def _show(
    rows: list[dict[str, Any]],
    total: dict[str, Any],
    by: str,
    since: str,
    session: str | None,
    calls: list[dict[str, Any]],
) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    what = f"session {session}, " if session else ""
    console.print(f"[bold]Usage[/], {what}{since if since == 'today' else f'last {since}'}")
    if not total["calls"]:
        console.print("No calls in that time.")
        return
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column(by)
    for name in ("calls", "in", "cached", "out", "first byte", "USD"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("tokens", no_wrap=True)
    most = max(map(_all_tokens, rows)) or 1
    for row in [*rows, total]:
        is_total = row is total
        cells = max(1, round(_BAR_CELLS * _all_tokens(row) / most)) if _all_tokens(row) else 0
        bar = "" if is_total else "█" * cells
        table.add_row(
            "total" if is_total else str(row[by] or "none"),
            f"{row['calls']:,}",
            _short(row["input_tokens"] + row["cache_read_tokens"] + row["cache_write_tokens"]),
            _cached(row),
            ("~" if row["estimated_calls"] else "") + _short(row["output_tokens"]),
            f"{row['ttfb_ms'] / row['ttfb_calls'] / 1000:.1f} s" if row["ttfb_calls"] else "",
            _usd(row) if row["unpriced_calls"] < row["calls"] else "",
            bar,
            style="bold" if is_total else None,
        )
    console.print(table)
    if calls:
        console.print(_table_of_calls(calls))
    if total["estimated_calls"]:
        console.print("[dim]~ includes responses that broke off, with estimated output[/]")
    if total["unpriced_calls"]:
        console.print("[dim]+ some calls have no price: add 'pricing' to their entry in models.yaml[/]")


def _table_of_calls(calls: list[dict[str, Any]]) -> Any:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="dim", title="Its last calls", title_justify="left")
    for name in ("time", "model", "kind", "outcome"):
        table.add_column(name)
    for name in ("in", "cached", "out", "seconds"):
        table.add_column(name, justify="right")
    for call in calls:
        table.add_row(
            time.strftime("%d %b %H:%M:%S", time.localtime(call["started_at"])),
            call["route"] or call["model"],
            call["kind"],
            _result_of(call),
            _short(call["input_tokens"] + call["cache_read_tokens"] + call["cache_write_tokens"]),
            _cached(call),
            ("~" if call["is_estimated"] else "") + _short(call["output_tokens"]),
            f"{call['duration_ms'] / 1000:.1f}",
        )
    return table


def _result_of(call: dict[str, Any]) -> str:
    result = call["error_type"] or call["stop_reason"] or call["outcome"]
    return f"{result}; cache lost: {call['cache_break']}" if call["cache_break"] else result


def _all_tokens(row: dict[str, Any]) -> int:
    return sum(
        int(row[name])
        for name in ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens")
    )


def _tokens_of(row: dict[str, Any]) -> str:
    input_tokens = row["input_tokens"] + row["cache_read_tokens"] + row["cache_write_tokens"]
    cached = f" ({_cached(row)} cached)" if row["cache_read_tokens"] else ""
    estimated = "~" if row["estimated_calls"] else ""
    return f"{_short(input_tokens)} in{cached}, {estimated}{_short(row['output_tokens'])} out"


def _cached(row: dict[str, Any]) -> str:
    input_tokens = row["input_tokens"] + row["cache_read_tokens"] + row["cache_write_tokens"]
    return f"{row['cache_read_tokens'] / input_tokens:.0%}" if row["cache_read_tokens"] else ""


def _usd(row: dict[str, Any]) -> str:
    return f"${row['cost_usd']:,.{4 if row['cost_usd'] < 0.1 else 2}f}{'+' if row['unpriced_calls'] else ''}"


def _short(count: int) -> str:
    """Format a count of tokens: 12345 as 12.3k."""
    for size, sign in ((1_000_000_000, "G"), (1_000_000, "M"), (1_000, "k")):
        if count >= size:
            return f"{count / size:.1f}{sign}" if count < 100 * size else f"{count / size:.0f}{sign}"
    return str(count)
