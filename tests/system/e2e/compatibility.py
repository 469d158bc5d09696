"""The table of docs/compatibility.md that ``make e2e`` writes: versions of Claude Code that passed all scenarios."""

from __future__ import annotations

import re

from tests.support.paths import ROOT

__all__ = ["PAGE", "with_version"]

PAGE = ROOT / "docs" / "compatibility.md"
_BEGIN, _END = "<!-- written by make e2e -->\n", "<!-- end -->\n"
_HEAD = "| Claude Code | date | Python | scenarios |\n|---|---|---|---|\n"
_ROW = re.compile(r"\| ([0-9.]+) \|.*\n")


def with_version(page: str, version: str, date: str, python: str, scenarios: str) -> str:
    """Return the page with a row for this version, in place of an older one; the newest version is the first.

    Raises:
        ValueError: the page has no place for the table.
    """
    before, begin, rest = page.partition(_BEGIN)
    table, end, after = rest.partition(_END)
    if not begin or not end:
        raise ValueError(f"expected {_BEGIN.strip()} and {_END.strip()} in {PAGE.name}")
    rows = {match[1]: match[0] for match in _ROW.finditer(table)}
    rows[version] = f"| {version} | {date} | {python} | {scenarios} |\n"
    ordered = sorted(rows, key=lambda each: [int(part) for part in each.split(".") if part], reverse=True)
    return before + begin + _HEAD + "".join(rows[each] for each in ordered) + end + after
