"""``claude-proxy route``: which entry serves a request, and by which rule. A dry run: nothing is called."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import click

from proxyd import jsonio
from proxyd.cli.exit_codes import EXIT_USAGE, CommandFailed
from proxyd.codecs.translation.token_estimate import estimate_input_tokens
from proxyd.config.route_description import describe
from proxyd.daemon.configuration import load_configuration
from proxyd.providers.route_choice import Choice, choose_route, facts_of, rules_for
from proxyd.telemetry.request_kind import AGENT_TYPE_HEADER, CLASS_HEADER, classes_of, kind_of

__all__ = ["route_command"]

_AGENT_ID_HEADER = "x-claude-code-agent-id"


@click.command(
    "route", epilog="Example: claude-proxy route -H x-claude-code-request-class:subagent < request.json"
)
@click.option(
    "-H",
    "--header",
    "headers",
    multiple=True,
    metavar="NAME:VALUE",
    help="A header of the request, such as x-claude-code-request-class; may be repeated.",
)
@click.option("--models", metavar="FILE", type=click.Path(), help="The models.yaml to use.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def route_command(headers: tuple[str, ...], models: str | None, as_json: bool) -> None:
    """Show which entry serves the Messages request on standard input, and by which rule. Nothing is called."""
    loaded = load_configuration({}, models, os.environ)
    loaded.hooks.close()
    table = loaded.config.table
    payload = _parse(sys.stdin.buffer.read())
    given = dict(_split(header) for header in headers)
    model = payload.get("model")
    route = table.resolve(model) if isinstance(model, str) else None
    if route is None:
        raise CommandFailed(
            f"the request's model is {str(model)[:200]!r}, which {loaded.config.path} does not have; "
            f"it has: {', '.join(table.ids())}",
            EXIT_USAGE,
        )
    kind = kind_of(payload, is_subagent=_AGENT_ID_HEADER in given, request_class=given.get(CLASS_HEADER))
    tokens = estimate_input_tokens(payload)
    classes = classes_of(kind)
    facts = facts_of(payload, classes, given.get(AGENT_TYPE_HEADER, ""), lambda: tokens)
    choice = choose_route(table, route, facts)
    report: dict[str, Any] = {
        "model": model,
        "asked_for": route.model_id,
        "served_by": choice.route.model_id,
        "rule": None if choice.rule is None else choice.rule.name,
        "passed_over": [{"rule": rule.name, "why": why} for rule, why in choice.passed_over],
        "classes": sorted(classes),
        "agent_type": facts.agent_type or None,
        "tokens": tokens,
        "has_image": facts.has_image(),
        "thinking": facts.thinks,
        "web_search": facts.searches,
        "targets": [each.use for each in choice.route.targets],
        "fallbacks": [each.model_id for each in table.fallbacks(choice.route)],
    }
    if as_json:
        click.echo(json.dumps(report, indent=2, ensure_ascii=False))
        return
    _show(report, choice, len(rules_for(table, route)))


def _show(report: dict[str, Any], choice: Choice, count: int) -> None:
    with_what = [name for name in ("has_image", "thinking", "web_search") if report[name]]
    lines = [
        (
            "request",
            f"for {report['model']}, class {' '.join(report['classes'])}, about {report['tokens']:,} tokens",
        ),
        ("with", ", ".join(name.replace("has_", "").replace("_", " ") for name in with_what)),
        ("agent", report["agent_type"] or ""),
        ("served by", f"{report['served_by']} ({describe(choice.route)})"),
    ]
    if choice.rule is not None:
        lines.append(("by", f"{choice.rule.name}: {choice.rule.describe()}"))
    else:
        lines.append(
            (
                "by",
                f"its model, since none of {count} rules applies"
                if count
                else "its model; there are no rules",
            )
        )
    lines += [("passed over", f"{rule.name}: {why}") for rule, why in choice.passed_over]
    lines.append(("over", ", ".join(report["targets"])))
    lines.append(("then", ", ".join(report["fallbacks"])))
    for name, text in lines:
        if text:
            click.echo(f"{name:12} {text}")


def _parse(data: bytes) -> dict[str, Any]:
    try:
        value = jsonio.loads(data)
    except jsonio.JSONError as exc:
        raise CommandFailed(
            f"standard input: expected a Messages request as JSON ({exc})", EXIT_USAGE
        ) from None
    if not isinstance(value, dict):
        raise CommandFailed("standard input: expected a Messages request, a JSON object", EXIT_USAGE)
    return value


def _split(header: str) -> tuple[str, str]:
    name, colon, value = header.partition(":")
    if not colon or not name.strip():
        raise click.UsageError(f"--header: expected NAME:VALUE; got {header[:100]!r}")
    return name.strip().lower(), value.strip()
