"""Each module has a test module of its name, and test modules share code through tests/support only."""

from __future__ import annotations

import ast

import pytest

from tests.support.paths import ROOT

#: Modules without a test module of their name, and why.
WITHOUT_TEST_MODULE: dict[str, str] = {}

MODULES = sorted(
    path.relative_to(ROOT / "proxyd").with_suffix("")
    for path in (ROOT / "proxyd").rglob("*.py")
    if not path.name.startswith("__")
)
TEST_MODULES = sorted(path for path in (ROOT / "tests").rglob("*.py"))


def has_test_module(module: str) -> bool:
    package, _, name = module.rpartition("/")
    folder = f"{package}/" if package else ""
    return any(
        (ROOT / "tests" / kind / f"{folder}test_{name}.py").is_file() for kind in ("unit", "integration")
    )


@pytest.mark.parametrize("module", map(str, MODULES))
def test_a_module_has_a_test_module_of_its_name(module: str) -> None:
    assert has_test_module(module) != (module in WITHOUT_TEST_MODULE), (
        f"write tests/unit/{module.rpartition('/')[0]}/test_{module.rpartition('/')[2]}.py, or give the reason in "
        "WITHOUT_TEST_MODULE; remove a reason that no longer holds"
    )


def test_no_reason_is_given_for_a_module_that_is_gone() -> None:
    assert WITHOUT_TEST_MODULE.keys() <= {str(module) for module in MODULES}


def test_no_test_imports_from_another_test_module() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in TEST_MODULES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom)
        and (node.module or "").startswith("tests.")
        and (node.module or "").rpartition(".")[2].startswith("test_")
    ]
    assert found == []
