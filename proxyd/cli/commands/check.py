"""``claude-proxy check``: validate the configuration and print the effective one; with ``--probe``, call the upstreams.

Warnings go to stderr, the effective configuration to stdout. A probe is a client's call through a temporary daemon on a
free port, so that its result is what Claude Code would get.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import click

from proxyd.cli.exit_codes import EXIT_UPSTREAM
from proxyd.cli.wrapping import wrapped
from proxyd.config.database_url import DatabaseUrl
from proxyd.config.paths import resolve_models_path, resolve_state_folder
from proxyd.config.route_rules import RouteRule
from proxyd.config.routes import ModelRoute, Pricing
from proxyd.secret import Secret
from proxyd.urls import address_of, host_of

if TYPE_CHECKING:
    from proxyd.config.catalog import Catalog

__all__ = ["check_command", "describe_key", "show_columns"]


@click.command("check", epilog="Example: claude-proxy check --probe")
@click.option("--models", metavar="FILE", help="The models.yaml to check.")
@click.option("--probe", is_flag=True, help="Call each upstream once (this costs a few tokens).")
@click.option("--strict", is_flag=True, help="Refuse key files that others can read.")
@click.option(
    "--all",
    "shows_all",
    is_flag=True,
    help="Print the settings that have their defaults, and all figures of models, too.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def check_command(models: str | None, probe: bool, strict: bool, shows_all: bool, as_json: bool) -> None:
    """Validate models.yaml and hooks; print what is in force."""
    from proxyd.config.catalog import load_catalog
    from proxyd.daemon.configuration import load_configuration

    path, why = resolve_models_path(models, os.environ)
    loaded = load_configuration({}, models, os.environ, strict=strict)
    warnings = [*loaded.config.warnings, *loaded.settings.warnings]
    for line in warnings:
        click.echo(wrapped(f"warning: {line}", sys.stderr, indent="  "), err=True)
    for name, fault in loaded.hooks.faults.items():
        click.echo(wrapped(f"warning: hook {name}: {fault}", sys.stderr, indent="  "), err=True)
    catalog, _ = load_catalog(resolve_state_folder(os.environ))
    report: dict[str, Any] = {
        "models_yaml": str(path),
        "chosen_by": why,
        "models": [_model(route, catalog) for route in loaded.config.table.routes],
        "routes": [_rule(rule) for rule in loaded.config.table.rules],
        "hooks": [each["name"] for each in loaded.hooks.describe() if "error" not in each],
        "settings": _settings(loaded.settings),
        "learned": _learned(loaded.config.table.routes),
    }
    if probe:
        import asyncio

        from proxyd.cli.upstream_probe import probe_upstreams
        from proxyd.logs.setup import configure

        configure("error", loaded.settings.log_format)
        report["probes"] = asyncio.run(probe_upstreams(loaded))
    loaded.hooks.close()
    if as_json:
        click.echo(json.dumps(report, indent=2, ensure_ascii=False))
    else:
        _show(report, shows_all=shows_all)
    failed = [each["model_id"] for each in report.get("probes", ()) if each["ok"] is False]
    if failed:
        click.echo(f"these upstreams did not respond: {', '.join(failed)}; see above", err=True)
        sys.exit(EXIT_UPSTREAM)


def describe_key(route: ModelRoute) -> str:
    """Describe the origin of the key of `route`; never return the key."""
    if route.is_demo:
        return "none needed"
    if route.missing_key is not None:
        return f"missing: {route.key_origin}"
    if route.has_own_key:
        return "models.yaml" if route.key_origin == "literal" else str(route.key_origin)
    return "from the request"


def _model(route: ModelRoute, catalog: Catalog) -> dict[str, Any]:
    from proxyd.providers.registry import format_for, profile_for

    chosen, why = (None, None) if route.direct else format_for(route)
    return {
        "model_id": route.model_id,
        "mode": "direct" if route.direct else "translated",
        "format": "anthropic" if chosen is None else chosen.name,
        "format_chosen_because": why,
        "model_name": route.model_name,
        "upstream": host_of(route.api_base),
        "address": address_of(route.api_base),
        "provider": profile_for(route.api_base, route.provider).name,
        "key": describe_key(route),
        "max_input_tokens": route.max_input_tokens or route.known_window,
        "figures": _figures(route, catalog),
        "max_tokens": route.max_tokens,
        "aliases": list(route.aliases),
        "targets": [each.use for each in route.targets],
        "fallback": list(route.fallback),
        "routes": [_rule(rule) for rule in route.routes],
    }


def _figures(route: ModelRoute, catalog: Catalog) -> list[dict[str, Any]]:
    """Return the window, output limit, prices and images of `route`, each with its origin.

    What models.yaml does not say is not in force, but for the window; it is shown as known where the catalog has it.
    """
    from proxyd.providers.known_models import known_model

    known = known_model(route, catalog)
    origin = "" if known is None else f"catalog.yaml: {known.origin}"
    rows: list[dict[str, Any]] = []
    pairs = (
        ("window", route.max_input_tokens, None if known is None else known.max_input_tokens),
        ("output", route.max_tokens, None if known is None else known.max_tokens),
        ("prices", _priced(route.pricing), None if known is None else _priced(known.pricing)),
        ("vision", route.vision, None if known is None else known.vision),
    )
    for name, ours, theirs in pairs:
        if ours is not None:
            rows.append({"figure": name, "value": ours, "in_force": True, "from": "models.yaml"})
        elif theirs is not None:
            rows.append({"figure": name, "value": theirs, "in_force": name == "window", "from": origin})
    return rows


def _priced(pricing: Pricing | None) -> dict[str, float] | None:
    if pricing is None:
        return None
    names = ("input", "output", "cache_read", "cache_write")
    return {name: price for name in names if (price := getattr(pricing, name)) is not None}


def _rule(rule: RouteRule) -> dict[str, str]:
    return {"rule": rule.name, "when": rule.describe(), "use": rule.use}


def _learned(routes: Iterable[ModelRoute]) -> list[dict[str, Any]]:
    """What refusals of upstreams have taught the daemon, and the lines that make it permanent."""
    from datetime import datetime, timezone
    from time import time

    from proxyd.proxy.learned_file import FILE, read_learned

    store, now = read_learned(resolve_state_folder(os.environ) / FILE), time()
    rows: list[dict[str, Any]] = []

    def add(route: ModelRoute, at: float, lines: Iterable[str], **kind: bool | None) -> None:
        since = datetime.fromtimestamp(at, timezone.utc).date().isoformat()
        rows.append({"model_id": route.model_id, **kind, "since": since, "models_yaml": list(lines)})

    for route in routes:
        for kept in store.kept(route, now):
            add(route, kept.at, kept.quirks.lines, tools=kept.kind.has_tools, thinking=kept.kind.thinks)
        sizes = store.sizes.of(route, now)
        if sizes.window is not None and route.max_input_tokens is None:
            add(route, sizes.at, [f"max_input_tokens: {sizes.window}"], tools=None, thinking=None)
    return rows


def _settings(settings: Any) -> dict[str, dict[str, Any]]:
    from proxyd.config.settings import TABLE

    return {
        name: {"value": _plain(getattr(settings, name)), "from": settings.origin_of(name)} for name in TABLE
    }


def _plain(value: Any) -> Any:
    if isinstance(value, (Secret, DatabaseUrl)):
        return repr(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    return list(value) if isinstance(value, tuple) else value


# -- printing


def _show(report: Mapping[str, Any], *, shows_all: bool) -> None:
    count = len(report["models"])
    models = "1 model" if count == 1 else f"{count} models"
    if os.path.exists(report["models_yaml"]):
        click.echo(f"{report['models_yaml']} is valid ({report['chosen_by']}): {models}\n")
    else:
        click.echo(f"There is no {report['models_yaml']} ({report['chosen_by']}); in force without it:\n")
    rows = [
        [
            "MODEL",
            "MODE",
            "FORMAT",
            "UPSTREAM MODEL",
            "AT",
            "PROFILE",
            "KEY",
            "WINDOW",
            "ALSO",
            "OVER",
            "THEN",
        ]
    ]
    rows += [
        [
            each["model_id"],
            each["mode"],
            each["format"],
            "-" if each["model_name"] == each["model_id"] else each["model_name"],
            each["address"].removeprefix("https://"),
            each["provider"],
            each["key"],
            str(each["max_input_tokens"] or "-"),
            ", ".join(each["aliases"]) or "-",
            ", ".join(each["targets"]) or "-",
            ", ".join(each["fallback"]) or "-",
        ]
        for each in report["models"]
    ]
    show_columns(rows)
    rules = [(each["model_id"], rule) for each in report["models"] for rule in each["routes"]]
    rules += [("all", rule) for rule in report["routes"]]
    if rules:
        click.echo("")
        rows = [["REQUESTS FOR", "OF THESE", "GO TO", "RULE"]]
        show_columns(rows + [[model, rule["when"], rule["use"], rule["rule"]] for model, rule in rules])
    for each in report["models"]:
        if each["format_chosen_because"]:
            click.echo(f"\n{each['model_id']} goes over {each['format']}: {each['format_chosen_because']}")
    rows = [
        [each["model_id"], row["figure"], _shown(row), row["from"]]
        for each in report["models"]
        for row in each["figures"]
        if shows_all or (row["in_force"] and row["from"] != "models.yaml")
    ]
    if rows:
        click.echo("")
        show_columns([["FIGURES OF", "WHAT", "VALUE", "FROM"], *rows])
    click.echo(f"\nhooks: {', '.join(report['hooks']) or 'none'}\n")
    if report["learned"]:
        rows = [["LEARNED FOR", "CALLS", "SINCE", "LINE FOR MODELS.YAML"]]
        for each in report["learned"]:
            calls = "all"
            if each["tools"] is not None:
                tools, thinking = ("with" if each[kind] else "no" for kind in ("tools", "thinking"))
                calls = f"{tools} tools, {thinking} thinking"
            rows += [[each["model_id"], calls, each["since"], line] for line in each["models_yaml"]]
        show_columns(rows)
        click.echo("")
    _show_settings(report["settings"], shows_all=shows_all)
    if "probes" in report:
        click.echo("")
        for each in report["probes"]:
            mark = {True: "ok  ", False: "FAIL", None: "-   "}[each["ok"]]
            took = f"{each['ms']} ms" if "ms" in each else ""
            click.echo(f"{mark} {each['model_id']} at {each['upstream']} {took} {each['said']}".rstrip())


def _shown(row: Mapping[str, Any]) -> str:
    value = row["value"]
    text = ", ".join(f"{k} {v:g}" for k, v in value.items()) if isinstance(value, dict) else json.dumps(value)
    return text if row["in_force"] else f"({text}, not in force)"


def _show_settings(settings: Mapping[str, Mapping[str, Any]], *, shows_all: bool) -> None:
    """Print the changed settings, then the others or how many they are."""
    changed = {name: row for name, row in settings.items() if row["from"] != "default"}
    shown = {**changed, **settings} if shows_all else changed
    if shown:
        rows = [["SETTING", "VALUE", "FROM"]]
        for name, row in shown.items():
            rows.append([name, json.dumps(row["value"], ensure_ascii=False), row["from"]])
        show_columns(rows)
    if not shows_all:
        others = f"the other {len(settings) - len(changed)}" if changed else f"all {len(settings)}"
        click.echo(f"{others} settings have their defaults; --all prints them")


def show_columns(rows: list[list[str]]) -> None:
    """Print `rows` in columns; the first row is the heading. A column in which nothing stands is left out.

    On a terminal that is too narrow, each row is a paragraph with the headings in front of the values.
    """
    columns = [list(column) for column in zip(*rows, strict=True) if set(column[1:]) != {"-"}]
    rows = [list(row) for row in zip(*columns, strict=True)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    if sys.stdout.isatty() and sum(widths) + 2 * len(widths) - 2 > shutil.get_terminal_size().columns:
        for row in rows[1:]:
            click.echo(row[0])
            values = zip(rows[0][1:], row[1:], strict=True)
            parts = [f"{heading.lower()} {value}" for heading, value in values if value != "-"]
            if parts:
                click.echo("  " + wrapped("; ".join(parts), sys.stdout, indent="  ", used=2))
        return
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        click.echo("  ".join(cells).rstrip())
