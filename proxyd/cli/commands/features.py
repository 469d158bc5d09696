"""``claude-proxy features``: what works on a model, who serves it, what to set; with ``--probe``, whether it does."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from proxyd.cli.exit_codes import EXIT_UPSTREAM, EXIT_USAGE, CommandFailed
from proxyd.cli.options import complete_model
from proxyd.cli.wrapping import wrapped
from proxyd.config.paths import resolve_state_folder

if TYPE_CHECKING:
    from proxyd.config.routes import ModelRoute
    from proxyd.providers.features import Feature

__all__ = ["features_command"]

_MARKS = {True: "ok", False: "FAIL", None: "-"}


@click.command("features", epilog="Example: claude-proxy features deepseek --probe")
@click.argument("model", shell_complete=complete_model)
@click.option("--models", metavar="FILE", type=click.Path(), help="The models.yaml to use.")
@click.option(
    "--probe", is_flag=True, help="Try each feature by a small call; this costs some thousand tokens at most."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def features_command(model: str, models: str | None, probe: bool, as_json: bool) -> None:
    """Show what of Claude Code works on MODEL, who serves it, and what to set for more.

    Without --probe nothing is called: it is what models.yaml, the profile of the vendor and earlier refusals say.
    """
    from proxyd.config.route_description import describe
    from proxyd.daemon.configuration import load_configuration
    from proxyd.providers.features import features_of
    from proxyd.proxy.pdf_pages import can_read_pdfs

    loaded = load_configuration({}, models, os.environ)
    loaded.hooks.close()
    table = loaded.config.table
    route = table.resolve(model)
    if route is None:
        raise CommandFailed(
            f"there is no model {model[:100]!r} in {loaded.config.path}; there are: {', '.join(table.ids())}",
            EXIT_USAGE,
        )
    features = features_of(_with_learned(route), loaded.settings, reads_pdfs=can_read_pdfs())
    report: dict[str, Any] = {
        "model": model,
        "entry": route.model_id,
        "mode": "direct" if route.direct else "translated",
        "features": [
            {"name": each.name, "served": each.served, "how": each.how, "set": each.remedy or None}
            for each in features
        ],
    }
    if probe:
        import asyncio

        from proxyd.cli.feature_probe import try_features
        from proxyd.logs.setup import configure

        configure("error", loaded.settings.log_format)
        tried = asyncio.run(try_features(loaded, route, features))
        for row in report["features"]:
            row["probe"] = tried[row["name"]]
    if as_json:
        click.echo(json.dumps(report, indent=2, ensure_ascii=False))
    else:
        click.echo(f"{route.model_id}: {report['mode']}, {describe(route)}\n")
        _show(features, [row.get("probe") for row in report["features"]])
    if any(row.get("probe", {}).get("ok") is False for row in report["features"]):
        click.echo("not everything worked; see above", err=True)
        sys.exit(EXIT_UPSTREAM)


def _with_learned(route: ModelRoute) -> ModelRoute:
    """Return the entry with what refusals of its upstream have taught the daemon."""
    from time import time

    from proxyd.proxy.learned_file import FILE, read_learned

    for kept in read_learned(resolve_state_folder(os.environ) / FILE).kept(route, time()):
        route = kept.quirks.applied_to(route)
    return route


def _show(features: Sequence[Feature], probes: Sequence[dict[str, Any] | None]) -> None:
    names = max(len(each.name) for each in features)
    served = max(len(each.served) for each in features)
    indent = " " * (names + served + 4)
    for each, tried in zip(features, probes, strict=True):
        line = f"{each.name:{names}}  {each.served:{served}}  {each.how}"
        click.echo(wrapped(line, sys.stdout, indent=indent))
        if each.remedy:
            click.echo(wrapped(f"{indent}set {each.remedy}", sys.stdout, indent=indent))
        if tried is not None:
            took = f" ({tried['ms']} ms)" if "ms" in tried else ""
            text = f"{indent}probe: {_MARKS[tried['ok']]} {tried['said']}{took}"
            click.echo(wrapped(text, sys.stdout, indent=indent))
