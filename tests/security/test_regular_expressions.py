"""Every regular expression of the package takes linear time on untrusted text: steps are counted, not measured.

The patterns are found by walking the package: compiled patterns in the data of the modules, and patterns that are
passed to `re` in the source. `test_every_pattern_is_found` holds that none is left out: it compares them with those
that are compiled while the package is imported, and with the calls in its source.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import importlib
import json
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

import proxyd
from tests.security.regex_steps import MAX_COUNT, Counter, texts_for
from tests.support.rows import check_rows

PACKAGE = Path(proxyd.__file__).parent
#: Steps over twice the text, relative: a linear pattern needs twice as many plus a constant, a quadratic one four
#: times as many.
MAX_GROWTH = 2.6
SIZE = 100
#: Patterns that are not applied to texts of any length, and why.
BOUNDED_OTHERWISE = {
    "proxyd.codecs.openai.call_openings.FORMATS": "matched once an argument, where the one before has ended",
    "proxyd.codecs.upstream_errors.overflow_": "its callers cut what they judge to `MAX_MESSAGE` characters",
    "proxyd.providers.unparsed._NOT_SETTING": "only matched behind a name that was found",
    "proxyd.providers.unparsed._MEMBER": "only matched behind a name that was found",
    "proxyd.providers.unparsed._TEXT": "only matched behind a name that was found",
}
#: Functions that are given a pattern, and what it is.
GIVEN = {
    "proxyd.codecs.gemini.chunk_template._pattern_of": "the end of a chunk, escaped, with counts of a few digits",
    "proxyd.codecs.openai.tool_call_formats._tags": "of the module's data, where they are found",
    "proxyd.codecs.translation.schema_styles.fits_grammar_pattern": "a schema's: compiled, never matched",
    "proxyd.codecs.upstream_errors.context_overflow._wording": "of the module's data",
    "proxyd.codecs.upstream_errors.errors._cause": "of the module's data",
    "proxyd.config.routes.__post_init__": "an alias of models.yaml",
    "proxyd.providers.client_recovery._about": "of the module's data",
    "proxyd.providers.refusals.mentions": "the name of a field",
    "proxyd.providers.refusals.says": "in the calls of this method, which are found",
    "proxyd.providers.registry._dialect_of_model": "of a profile, for a model that models.yaml names",
    "proxyd.providers.registry._preferred": "of a profile, for a model that models.yaml names",
    "proxyd.replay.diff.stands_for": "the prefix of an id of ours",
}
#: Methods that match at one position only.
ANCHORED = ("match", "fullmatch")


@dataclasses.dataclass(frozen=True)
class Found:
    name: str
    pattern: re.Pattern[Any]
    is_search: bool = True


@dataclasses.dataclass
class Module:
    """A module of the package, and its source."""

    name: str
    source: str

    @functools.cached_property
    def data(self) -> Mapping[str, Any]:
        return vars(importlib.import_module(self.name))

    def nodes(self) -> Iterator[ast.AST]:
        """Parse the source; a tree that was kept would be half a million objects over all modules."""
        return ast.walk(ast.parse(self.source))

    @functools.cached_property
    def calls(self) -> list[ast.Call]:
        """The calls of methods and of functions of modules, with arguments."""
        if not re.search(r"\bre\.|\.says\(", self.source):
            return []  # of none that matters here; most modules are not parsed
        return [
            node
            for node in self.nodes()
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args
        ]

    @functools.cached_property
    def methods(self) -> Mapping[str, set[str]]:
        """The attributes that are used of each name."""
        found: dict[str, set[str]] = {}
        for node in self.nodes():
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                found.setdefault(node.value.id, set()).add(node.attr)
        return found


@functools.cache
def _modules() -> list[Module]:
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        name = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")
        if not name.endswith("__main__"):
            found.append(Module(name, path.read_text(encoding="utf-8")))
    return found


def _patterns_in(value: Any, depth: int = 4) -> Iterator[re.Pattern[Any]]:
    if isinstance(value, re.Pattern):
        yield value
    elif depth and isinstance(value, (list, tuple, set, frozenset)):
        for each in value:
            yield from _patterns_in(each, depth - 1)
    elif depth and isinstance(value, Mapping):
        yield from _patterns_in(list(value.values()), depth - 1)
    elif depth and dataclasses.is_dataclass(value) and not isinstance(value, type):
        for each in dataclasses.fields(value):
            yield from _patterns_in(getattr(value, each.name, None), depth - 1)


def _is_searched(name: str, module: Module) -> bool:
    """Return whether a pattern is used for anything but a match at one position."""
    methods = module.methods.get(name, set())
    return not methods or not methods <= {*ANCHORED, "pattern"}


def _source(node: ast.expr, data: Mapping[str, Any]) -> str | bytes | None:
    """Return the pattern of a call; fields of an f-string that are no constants are replaced by a word.

    Args:
        data: the names of the module.
    """
    if isinstance(node, ast.Constant) and isinstance(node.value, (str, bytes)):
        return node.value
    if isinstance(node, ast.Name) and isinstance(data.get(node.id), (str, bytes)):
        return data[node.id]
    if isinstance(node, ast.JoinedStr):
        values = (each.value if isinstance(each, ast.FormattedValue) else each for each in node.values)
        return "".join(str(_source(each, data) or "word") for each in values)
    return None


def _in_calls(module: Module) -> Iterator[Found]:
    for node in module.calls:
        assert isinstance(node.func, ast.Attribute)
        of = node.func.value
        is_re = isinstance(of, ast.Name) and of.id == "re" and node.func.attr not in ("compile", "escape")
        if is_re or node.func.attr == "says":
            source = _source(node.args[0], module.data)
            if source is not None:
                flags = 0 if isinstance(source, bytes) else re.IGNORECASE
                yield Found(
                    f"{module.name}:{node.lineno}",
                    re.compile(source, flags),
                    node.func.attr not in ANCHORED,
                )


def _all() -> list[Found]:
    found: dict[tuple[Any, int], Found] = {}
    for module in _modules():
        for name, value in module.data.items():
            for number, pattern in enumerate(_patterns_in(value)):
                is_search = _is_searched(name, module)
                label = f"{module.name}.{name}" + (f"[{number}]" if number else "")
                known = found.get((pattern.pattern, pattern.flags))
                if known is None or (is_search and not known.is_search):
                    found[pattern.pattern, pattern.flags] = Found(label, pattern, is_search)
        for each in _in_calls(module):
            found.setdefault((each.pattern.pattern, each.pattern.flags), each)
    return list(found.values())


FOUND = _all()
UNBOUNDED = [each for each in FOUND if not each.name.startswith(tuple(BOUNDED_OTHERWISE))]

#: Prints each pattern that a module of the package compiles when it is imported, with the name of the module.
_COMPILED = """
import importlib, json, re, sys
found, original = [], re.compile
def compiled(pattern, flags=0):
    module = sys._getframe(1).f_globals["__name__"]
    result = original(pattern, flags)
    if module.startswith("proxyd"):
        found.append([module, str(result.pattern), result.flags])
    return result
re.compile = compiled
for name in sys.argv[1:]:
    importlib.import_module(name)
print(json.dumps(found))
"""


def test_every_pattern_is_found() -> None:
    known = {(str(each.pattern.pattern), each.pattern.flags) for each in FOUND}
    modules = [each.name for each in _modules()]
    command = [sys.executable, "-c", _COMPILED, *modules]
    done = subprocess.run(
        command, cwd=PACKAGE.parent, capture_output=True, text=True, check=True, timeout=120
    )
    compiled = [tuple(each) for each in json.loads(done.stdout)]
    assert len(compiled) > 100
    assert [each for each in compiled if each[1:] not in known and each[0] in modules] == []
    assert {place for module in _modules() for place in _unread_calls(module)} == GIVEN.keys()


def test_every_exception_is_in_use() -> None:
    for name in BOUNDED_OTHERWISE:
        assert any(each.name.startswith(name) for each in FOUND), name


def _unread_calls(module: Module) -> Iterator[str]:
    """Yield the functions that call `re` with a pattern which is no constant."""
    if not module.calls:
        return
    for function in module.nodes():
        if not isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            continue
        for node in ast.walk(function):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args):
                continue
            of = node.func.value
            if not (isinstance(of, ast.Name) and of.id == "re") or node.func.attr == "escape":
                continue
            if node.func.attr == "compile" or _source(node.args[0], module.data) is None:
                yield f"{module.name}.{getattr(function, 'name', 'lambda')}"


@pytest.fixture(autouse=True)
def _deep() -> Iterator[None]:
    """Allow deep recursion: the counter calls itself for each repetition of a group."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(20_000)
    yield
    sys.setrecursionlimit(before)


def _steps(found: Found, text: str, limit: int = 200_000) -> int:
    counter = Counter(found.pattern, text, limit)
    try:
        if found.is_search:
            counter.find_all()
        else:
            counter.match(0)
    except OverflowError:
        pass  # more steps than the limit
    return counter.steps


def test_walk_finds_the_patterns() -> None:
    names = {each.name for each in FOUND}
    assert len(FOUND) > 120
    assert {"proxyd.redaction._KEY", "proxyd.codecs.upstream_errors.errors._PLAN_LIMIT"} <= names
    assert any(name.startswith("proxyd.codecs.upstream_errors.context_overflow.WORDINGS") for name in names)
    assert any(re.fullmatch(r"proxyd\.providers\.\w+_rules:\d+", name) for name in names)


@pytest.mark.parametrize("found", UNBOUNDED, ids=lambda each: each.name)
def test_pattern_is_linear(found: Found) -> None:
    for small, large in _pairs(found.pattern):
        few = _steps(found, small)
        allowed = int(MAX_GROWTH * few) + 200
        assert few < 200_000
        assert _steps(found, large, allowed) <= allowed, f"over {few} steps on {small[:60]!r}..."


def _pairs(pattern: re.Pattern[Any]) -> Iterable[tuple[str, str]]:
    return zip(texts_for(pattern, SIZE), texts_for(pattern, 2 * SIZE), strict=True)


def test_counter_matches_like_re() -> None:
    """Its steps are valid only then. It limits repetition counts, so the texts are short."""
    check_rows(FOUND, _matches_like_re)


def _matches_like_re(found: Found) -> None:
    texts = [text for text in texts_for(found.pattern, 6) if len(text) < 60]
    for text in texts[:12]:
        data: Any = text.encode("latin-1", "replace") if isinstance(found.pattern.pattern, bytes) else text
        wanted = found.pattern.match(data)
        counter = Counter(found.pattern, text)
        end = counter.match(0)
        if len(text) <= MAX_COUNT or not counter.has_cut:
            assert end == (None if wanted is None else wanted.end()), text


#: Former versions of patterns that were quadratic, and an exponential one.
@pytest.mark.parametrize(
    "pattern",
    [
        r"\beyJ[A-Za-z0-9_\-]{10,}\.[A-Za-z0-9_\-.]+",
        r"(?:weekly|\d+[ -]?hours?) (?:limit|quota)",
        r"(?:,?\s*\binput_value=|['\"]input['\"]\s*:\s*).*",
        r"(a+)+$",
    ],
)
def test_superlinear_pattern_is_detected(pattern: str) -> None:
    found = Found("before", re.compile(pattern))
    with pytest.raises(AssertionError):
        test_pattern_is_linear(found)
