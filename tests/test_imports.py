"""Imports point one way (style.md 2), and the core does no I/O: read from the syntax trees, not from a run."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "proxyd"

#: From the bottom to the top: a module may import from its own layer and those before it.
LAYERS = (
    {"errors", "jsonio", "secret"},
    {"codecs"},
    {"hookapi", "pipeline"},
    {
        "config",
        "models",
        "routes",
        "locations",
        "settings",
        "providers",
        "beginnings",
        "payloads",
        "request_kind",
        "ledger_schema",
        "stats",
    },
    {"calls", "notify", "cache_breaks", "quotes", "trace"},
    {
        "deadlines",
        "garbage",
        "reloading",
        "calibration",
        "logs",
        "log_queue",
        "finished",
        "log_file",
        "loop_watch",
        "selector",
        "histograms",
        "metrics",
        "ledger",
        "live",
        "masking",
        "record_contents",
        "record_files",
        "records",
        "differences",
        "json_text",
        "filler",
        "filled",
        "demo_reply",
        "demo",
    },
    {"hookworker", "hookrunner", "hookloader", "loaded"},
    {
        "client_request",
        "downlink",
        "uplink_protocol",
        "uplink",
        "upstream",
        "retries",
        "circuits",
        "exchange",
    },
    {"exchange_direct", "exchange_translated"},
    {"call"},
    {"relay", "replay", "replay_answers", "export"},
    {"bodies", "guard", "listener", "app", "app_status"},
    {"server"},
    {"cli"},
    {"__main__"},
)
#: No I/O, no clock, no chance, no environment here: these are parameters.
SANS_IO = {"errors", "jsonio", "secret", "codecs", "hookapi", "pipeline", "providers", "routes"}
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
#: Who may talk HTTP.
MAY_IMPORT_AIOHTTP = {
    "uplink",
    "uplink_protocol",
    "upstream",
    "client_request",
    "exchange",
    "downlink",
    "call",
    "relay",
    "bodies",
    "guard",
    "listener",
    "app",
    "app_status",
    "server",
    "demo",
    "cli",
}


def modules() -> dict[str, ast.Module]:
    return {
        ".".join(path.relative_to(ROOT).with_suffix("").parts): ast.parse(path.read_text(encoding="utf-8"))
        for path in sorted(PACKAGE.rglob("*.py"))
    }


MODULES = modules()


def part_of(module: str) -> str:
    """The first name below ``proxyd``; the package itself for its own module."""
    names = module.split(".")
    return names[1] if len(names) > 1 and names[1] != "__init__" else "proxyd"


def imports_of(tree: ast.Module) -> set[str]:
    """Full names of all modules that `tree` imports, lazily or not; for typing alone is no import."""
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
            found.add(node.module or "")
            if node.module == "proxyd":
                found.update(f"proxyd.{alias.name}" for alias in node.names)
    return found


def rank_of(part: str) -> int:
    for rank, layer in enumerate(LAYERS):
        if part in layer:
            return rank
    raise AssertionError(f"proxyd.{part} stands in no layer: add it to LAYERS, at the lowest place that fits")


@pytest.mark.parametrize("module", [name for name in MODULES if part_of(name) != "proxyd"])
def test_imports_point_one_way(module: str) -> None:
    rank = rank_of(part_of(module))
    for name in imports_of(MODULES[module]):
        if name.startswith("proxyd."):
            part = part_of(name)
            if part != "__version__":
                assert rank_of(part) <= rank, f"{module} imports {name}, which lies above it"


@pytest.mark.parametrize("module", [name for name in MODULES if part_of(name) in SANS_IO])
def test_the_core_does_no_io(module: str) -> None:
    tops = {name.split(".")[0] for name in imports_of(MODULES[module])}
    assert not tops & FORBIDDEN, f"{module} imports {tops & FORBIDDEN}"


def test_only_the_edge_talks_http() -> None:
    for module, tree in MODULES.items():
        if "aiohttp" in {name.split(".")[0] for name in imports_of(tree)}:
            assert part_of(module) in MAY_IMPORT_AIOHTTP, module


def test_one_module_imports_ujson() -> None:
    assert [m for m, tree in MODULES.items() if "ujson" in imports_of(tree)] == ["proxyd.jsonio"]


def test_only_the_command_line_prints() -> None:
    for module, tree in MODULES.items():
        calls = {
            node.func.id
            for node in ast.walk(tree)
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        }
        assert "print" not in calls or part_of(module) in ("cli", "config"), module
