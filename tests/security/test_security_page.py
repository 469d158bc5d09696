"""docs/security.md names tests that there are."""

from __future__ import annotations

import ast
import re
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
PAGE = TESTS.parent / "docs" / "security.md"
_NAMED = re.compile(r"`([\w/]+\.py|…)::(\w+)`")


def _functions(path: Path) -> set[str]:
    tree = ast.parse(path.read_text("utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))}


def test_every_test_that_the_page_names_is_there() -> None:
    file, missing, count = "", [], 0
    for name, function in _NAMED.findall(PAGE.read_text("utf-8")):
        file = file if name == "…" else name
        count += 1
        if function not in _functions(TESTS / file):
            missing.append(f"{file}::{function}")
    assert missing == []
    assert count > 20
