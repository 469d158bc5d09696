"""Generate the tables of docs/configuration.md from the tables of keys and settings:
``python docs/generate_configuration.py``.

With ``--check`` nothing is written, and the exit code is 1 when the page is out of date.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "configuration.md"
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))  # run as a script from a checkout that is not installed

from proxyd.config.keys import ENTRY_KEYS, PRICING, TIMEOUTS  # noqa: E402
from proxyd.config.settings import TABLE  # noqa: E402


def page(text: str) -> str:
    """Return `text` with each generated part replaced."""
    for name, lines in {"keys": _keys(), "settings": _settings()}.items():
        begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
        pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
        assert pattern.search(text), f"{PAGE} has no part {name}"
        before, after = pattern.split(text, maxsplit=1)
        text = "\n".join([before + begin, *lines, end + after])
    return text


def _keys() -> list[str]:
    lines = ["| key | valid values | meaning |", "|---|---|---|"]
    for name, key in ENTRY_KEYS.items():
        only = f" Only for {key.mode} entries." if key.mode else ""
        lines.append(f"| `{name}` | {_cell(key.kind.expected)} | {_cell(key.help)}{only} |")
        for table, parts in (("timeouts", TIMEOUTS), ("pricing", PRICING)):
            if name == table:
                lines += [
                    f"| `{table}.{part}` | {_cell(kind.expected)} | {_cell(note)} |"
                    for part, (kind, note) in parts.items()
                ]
    return lines


def _settings() -> list[str]:
    lines = ["| setting | default | variable | flag | meaning |", "|---|---|---|---|---|"]
    for name, row in TABLE.items():
        flag = f"`{row.flag}`" if row.flag else ""
        restart = "" if row.is_live else " A change takes effect at a restart."
        lines.append(
            f"| `{name}` | {_default(row.default)} | `{row.env}` | {flag} | {_cell(row.help)}{restart} |"
        )
    return lines


def _default(value: Any) -> str:
    if value in (None, "", (), {}):
        return "none"
    return f"`{value if isinstance(value, str) else json.dumps(value)}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    before = PAGE.read_text("utf-8")
    after = page(before)
    if "--check" in sys.argv[1:]:
        sys.exit(before != after)
    PAGE.write_text(after, "utf-8")
