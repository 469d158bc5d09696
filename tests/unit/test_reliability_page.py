"""docs/reliability.md promises what tests show, and all of it."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from tests.support.paths import DOCS


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate_reliability", DOCS / "generate_reliability.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_statement_is_shown_and_every_marker_is_one(generator: ModuleType) -> None:
    assert generator.faults(generator.shown_by()) == []


def test_the_page_is_up_to_date(generator: ModuleType) -> None:
    assert (DOCS / "reliability.md").read_text("utf-8") == generator.page(), "run make docs"


def test_a_lie_is_noticed(generator: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_x.py").write_text(
        '@pytest.mark.statement("A2")\ndef test_a(): ...\n@pytest.mark.statement("Z9")\ndef test_z(): ...\n'
    )
    problems = generator.faults(generator.shown_by(tmp_path))
    assert "tests/test_x.py::test_z is marked with Z9, which is no statement" in problems
    assert "no test shows A1" in problems
    assert "no test shows A2" not in problems
