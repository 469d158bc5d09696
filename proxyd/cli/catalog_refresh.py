"""``claude-proxy models refresh``: write catalog.yaml from OpenRouter's list and LiteLLM's table."""

from __future__ import annotations

import asyncio
import datetime
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from proxyd import jsonio
from proxyd.cli.exit_codes import EXIT_UPSTREAM, EXIT_USAGE, CommandFailed
from proxyd.config.catalog import CATALOG_FILE, Catalog, KnownModel, catalog_text, read_catalog
from proxyd.config.edit import save_atomic
from proxyd.config.paths import make_private_folder, resolve_state_folder
from proxyd.onboarding.catalog_sources import LITELLM_URL, OPENROUTER_URL, read_table
from proxyd.onboarding.fetching import FetchFailed, fetch_json, http_session

__all__ = ["refresh"]

#: LiteLLM's table has 3 MB and some 90 000 values.
_MAX_BYTES = 32 << 20
_MAX_VALUES = 4_000_000


def refresh(sources: Sequence[str], date: str | None, output: str | None) -> None:
    """Read the sources, and write their models over those of the catalog that is there.

    Raises:
        CommandFailed: no source could be read; nothing was written.
    """
    day = _day(date)
    found: list[KnownModel] = []
    failures: list[str] = []
    for source in sources or (LITELLM_URL, OPENROUTER_URL):
        try:
            models = read_table(_payload(source), day)
        except (FetchFailed, ValueError) as exc:
            failures.append(f"{source}: {exc}" if isinstance(exc, ValueError) else exc.message)
            continue
        click.echo(f"{len(models)} models from {source}")
        found += models
    if not found:
        raise CommandFailed(f"{'; '.join(failures)}; the catalog is unchanged", EXIT_UPSTREAM)
    for failure in failures:
        click.echo(f"warning: {failure}", err=True)
    path = Path(output) if output else resolve_state_folder(os.environ) / CATALOG_FILE
    before = read_catalog(path) if path.exists() else Catalog()
    after = before.merged(found)
    if output is None:
        make_private_folder(path.parent)
    save_atomic(path, catalog_text(after.models))
    click.echo(
        f"{path}: {len(after)} models, {len(found)} of them of {day}. It is read at the next start or reload."
    )


def _day(date: str | None) -> str:
    if date is None:
        return datetime.date.today().isoformat()
    try:
        return datetime.date.fromisoformat(date).isoformat()
    except ValueError:
        raise CommandFailed("--date: expected YYYY-MM-DD", EXIT_USAGE) from None


def _payload(source: str) -> Any:
    """Return the JSON of a URL or a file.

    Raises:
        FetchFailed, ValueError: there is none.
    """
    if "://" in source:
        return asyncio.run(_fetch(source))
    try:
        data = Path(source).read_bytes()
    except OSError as exc:
        raise ValueError(f"cannot be read ({(exc.strerror or 'unknown reason').lower()})") from None
    try:
        return jsonio.loads(data, max_values=_MAX_VALUES)
    except jsonio.JSONError as exc:
        raise ValueError(f"expected JSON; {exc}") from None


async def _fetch(url: str) -> Any:
    async with http_session() as session:
        return await fetch_json(session, url, max_bytes=_MAX_BYTES, max_values=_MAX_VALUES)
