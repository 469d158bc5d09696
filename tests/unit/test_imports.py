"""Imports point one way and the core does no I/O: read from the syntax trees, without running anything."""

from __future__ import annotations

import ast
import functools

from tests.support.paths import ROOT
from tests.support.rows import check_rows

#: From the bottom to the top: a package imports only packages above it in this list.
PACKAGES = (
    "foundation",
    "codecs",
    "config",
    "providers",
    "server_tools",
    "logs",
    "store",
    "hooks",
    "prompt_cache",
    "telemetry",
    "transport",
    "recording",
    "proxy",
    "onboarding",
    "api",
    "replay",
    "daemon",
    "cli",
)
#: Modules at the top level and the package that each belongs to.
TOP_LEVEL = {
    "secret": "foundation",
    "errors": "foundation",
    "jsonio": "foundation",
    "urls": "foundation",
    "headers": "foundation",
    "terminal": "foundation",
    "redaction": "foundation",
    "hookapi": "hooks",
    "__main__": "cli",
}
#: Neighbours in the list that do not import each other either.
STRANGERS = {("replay", "api")}
#: Packages and modules without I/O, clock, randomness and environment: these are parameters there.
SANS_IO = ("foundation", "codecs", "providers", "server_tools", "proxyd.config.routes", "proxyd.hooks.api")
FORBIDDEN = {
    "aiohttp",
    "asyncio",
    "structlog",
    "os",
    "time",
    "random",
    "secrets",
    "socket",
    "threading",
    "ssl",
}
MAY_IMPORT_AIOHTTP = {"transport", "proxy", "api", "daemon", "onboarding", "cli"}


@functools.cache
def modules() -> dict[str, ast.Module]:
    return {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): ast.parse(
            path.read_text(encoding="utf-8")
        )
        for path in sorted((ROOT / "proxyd").rglob("*.py"))
    }


def package_of(module: str) -> str:
    name = module.split(".")[1]
    return TOP_LEVEL.get(name, name)


def imports_of(tree: ast.Module) -> set[str]:
    """Full names of all modules that `tree` imports, at any depth; imports for typing alone do not count."""
    guarded = {
        id(node)
        for test in ast.walk(tree)
        if isinstance(test, ast.If) and getattr(test.test, "id", "") == "TYPE_CHECKING"
        for node in ast.walk(test)
    }
    found: set[str] = set()
    for node in ast.walk(tree):
        if id(node) in guarded:
            continue
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found.update(names & modules().keys())
            if names - modules().keys():
                found.add(node.module or "")
    return found


@functools.cache
def imports() -> dict[str, set[str]]:
    return {module: imports_of(tree) for module, tree in modules().items()}


def internal_imports(module: str) -> set[str]:
    return {name for name in imports()[module] if name.startswith("proxyd.")}


def in_packages(*names: str) -> list[str]:
    return [m for m in modules() if m != "proxyd" and (package_of(m) in names or m in names)]


def test_a_package_imports_only_packages_above_it() -> None:
    def check(module: str) -> None:
        package = package_of(module)
        assert package in PACKAGES, (
            "it belongs to no package of the list: add it at the lowest place that fits"
        )
        for name in internal_imports(module):
            other = package_of(name)
            allowed = PACKAGES.index(other) <= PACKAGES.index(package) and (package, other) not in STRANGERS
            assert allowed, f"it imports {name}: {package} may not import {other}"

    check_rows([name for name in modules() if name != "proxyd"], check)


def test_modules_do_not_import_each_other_in_circles() -> None:
    finished: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, f"a circle: {' -> '.join((*path[path.index(module) :], module))}"
        if module not in finished:
            for name in sorted(internal_imports(module)):
                visit(name, (*path, module))
            finished.add(module)

    for module in modules():
        visit(module, ())


def test_the_core_does_no_io() -> None:
    def check(module: str) -> None:
        assert not {name.split(".")[0] for name in imports()[module]} & FORBIDDEN

    check_rows(in_packages(*SANS_IO), check)


def test_only_the_edge_imports_aiohttp() -> None:
    importers = [m for m in modules() if "aiohttp" in {name.split(".")[0] for name in imports()[m]}]
    assert [m for m in importers if package_of(m) not in MAY_IMPORT_AIOHTTP] == []


def test_one_module_imports_ujson() -> None:
    assert [m for m in modules() if "ujson" in imports()[m]] == ["proxyd.jsonio"]


def test_only_the_command_line_prints() -> None:
    for module, tree in modules().items():
        calls = {
            node.func.id
            for node in ast.walk(tree)
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        }
        assert "print" not in calls or package_of(module) in ("cli", "config"), module
