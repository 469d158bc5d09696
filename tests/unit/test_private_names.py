"""No module uses a private name of a dependency or of the standard library: read from the syntax trees.

An attribute that begins with one underscore may belong to an object of our own only:

- after ``self``, ``cls``, or the name of a class of the same module: one that our classes define there;
- after ``other``, in a method that compares two objects of its class.

Where a class of ours derives from one that is not ours, none of its private names may be one of its base's.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from collections.abc import Iterator

import pytest

from tests.support.paths import ROOT
from tests.support.rows import check_rows

MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in (ROOT / "proxyd").rglob("*.py")
    if path.name not in ("__init__.py", "__main__.py")
)
_OWN = ("self", "cls")
#: Of every class of the kind; nobody wrote them.
_IMPLICIT = {"_abc_impl", "_is_protocol", "_is_runtime_protocol"}
#: The documented names of named tuples, private only to leave room for fields.
_NAMED_TUPLE = {"_replace", "_asdict", "_fields", "_make"}
_ACCESSORS = ("getattr", "setattr", "hasattr", "delattr")


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def faults_of(source: str) -> Iterator[str]:
    """The private names in a module that may not be its own, with their lines."""
    tree = ast.parse(source)
    classes = {node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and is_private(node.attr) and node.attr not in _NAMED_TUPLE:
            if not _is_own(node, classes):
                yield f"{node.lineno}: {ast.unparse(node)}"
        elif isinstance(node, ast.ImportFrom):
            parts = [*(node.module or "").split("."), *(alias.name for alias in node.names)]
            yield from (f"{node.lineno}: import of {part}" for part in parts if is_private(part))
        elif isinstance(node, ast.Import):
            parts = [part for alias in node.names for part in alias.name.split(".")]
            yield from (f"{node.lineno}: import of {part}" for part in parts if is_private(part))
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _ACCESSORS:
            given = [each.value for each in node.args[1:2] if isinstance(each, ast.Constant)]
            yield from (f"{node.lineno}: {node.func.id} of {name}" for name in given if is_private(str(name)))


def _is_own(node: ast.Attribute, classes: set[str]) -> bool:
    owner = node.value
    if not isinstance(owner, ast.Name):
        return False
    return owner.id in _OWN or owner.id in classes or owner.id == "other"


def test_no_private_name_of_others_is_used() -> None:
    def check(module: str) -> None:
        source = (ROOT / (module.replace(".", "/") + ".py")).read_text(encoding="utf-8")
        assert list(faults_of(source)) == []

    check_rows(MODULES, check)


@pytest.mark.parametrize(
    "source",
    [
        "request._task",
        "self.transport._sock",
        "import _socket",
        "from asyncio import _base",
        "from aiohttp._http_parser import X",
        "getattr(loop, '_selector')",
        "f(x)._y",
        "super()._parser",
    ],
)
def test_the_rule_finds_what_it_is_for(source: str) -> None:
    assert list(faults_of(source))


@pytest.mark.parametrize(
    "source", ["self._x", "class A: _f = 1\nA._f", "x.__class__", "other._value", "_x.y"]
)
def test_the_rule_allows_our_own(source: str) -> None:
    assert not list(faults_of(source))


def own_classes() -> Iterator[type]:
    for name in MODULES:
        module = importlib.import_module(name)
        for each in vars(module).values():
            if isinstance(each, type) and each.__module__ == name:
                yield each


def private_names(kind: type) -> set[str]:
    """The private names that a class sets: in its body, or on ``self`` in its source."""
    names = {name for name in vars(kind) if is_private(name)}
    try:
        source = inspect.getsource(kind)
    except (OSError, TypeError):  # it is written in C
        return names
    return names | set(re.findall(r"\bself\.(_[a-zA-Z]\w*)\s*(?::[^=\n]+)?=[^=]", source))


#: Bases whose names we don't meet: typing helpers, and what dataclasses and enums are made with.
_HARMLESS = ("builtins", "typing", "abc", "enum", "collections.abc")


def test_no_class_of_ours_uses_a_private_name_of_its_base() -> None:
    seen, found = 0, []
    for kind in own_classes():
        for base in kind.__mro__[1:]:
            if base.__module__.startswith("proxyd") or base.__module__ in _HARMLESS:
                continue
            seen += 1
            used = set(re.findall(r"\b(?:self|cls)\.(_[a-zA-Z]\w*)", inspect.getsource(kind)))
            common = (used | private_names(kind)) & private_names(base) - _IMPLICIT
            found += [f"{kind.__module__}.{kind.__name__}: {name} of {base.__name__}" for name in common]
    assert seen > 5
    assert found == []
