"""References to documents resolve, and only developers see those to the specification."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import click
import pytest

from proxyd.cli.main import cli

ROOT = next(parent for parent in Path(__file__).resolve().parents if (parent / "pyproject.toml").is_file())
SPECIFICATION = ROOT / "docs" / "spec"

TEXT_FILE = re.compile(
    r"\.(?:cfg|conf|css|html|js|json|md|plist|py|service|sh|socket|toml|yaml)$|^(?:Makefile|README|run)$"
)
#: Folders that are not the project's; hidden ones but .ci are skipped too.
FOREIGN = {"__pycache__", "build", "dist", "node_modules"}
#: Texts of other people, whose tokens are counted.
RECORDED = Path("tests", "transcripts", "tokens")
#: Where users see each text.
SHIPPED = ("config", "hooks", "launchd", "systemd", "proxyd/api/dashboard")
#: Documents of users' projects and of llama.cpp, which texts speak about.
OF_OTHERS = {"CLAUDE.md", "AGENTS.md", "tools/server/README.md"}

GAP = r"(?:,|\s+and|\s+to)\s+(?:#:?\s+)?"
CITATION = re.compile(rf"(?<![\w/])(docs/[\w./-]+\.md)((?:#[\w-]+)?(?:{GAP}#[\w-]+\b)*)")
#: A whole text that says where a value comes from: data for developers, no message.
SOURCE = re.compile(rf"{CITATION.pattern}(?:, {CITATION.pattern})*(?:: .*)?")
LINK = re.compile(r"(?<!`)\]\(([^)\s?]+)\)")
DOCUMENT = re.compile(r"(?<![\w/.*{])[\w./-]*\w\.md\b")
TICKET = re.compile(r"\bissues?\s+\d+|\bitem\s+\d+", re.IGNORECASE)


def files() -> Iterator[Path]:
    """The project's text files, relative to its root."""
    folders = [ROOT]
    while folders:
        for path in sorted(folders.pop().iterdir()):
            name = path.relative_to(ROOT)
            if path.is_dir():
                hidden = path.name.startswith(".") and path.name != ".ci"
                if not (hidden or path.is_symlink() or path.name in FOREIGN or path.suffix == ".egg-info"):
                    folders.append(path)
            elif TEXT_FILE.search(path.name) and RECORDED not in name.parents:
                yield name


@cache
def anchors(page: Path) -> Counter[str]:
    """The anchors of a page: its explicit ones and those that a viewer makes of its headings."""
    text = page.read_text("utf-8")
    headings = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE)
    slugs = {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}
    explicit = Counter(re.findall(r'<a id="([^"]+)"></a>', text))
    return explicit + Counter(slugs - explicit.keys())


def unresolved_citations(text: str) -> list[str]:
    """Citations ``docs/PAGE.md#anchor`` whose page or anchor does not exist."""
    faults = []
    for page, rest in CITATION.findall(text):
        if not (ROOT / page).is_file():
            faults.append(page)
        else:
            cited = re.findall(r"#([\w-]+)", rest)
            faults += [f"{page}#{anchor}" for anchor in cited if anchor not in anchors(ROOT / page)]
    return faults


def unresolved_links(text: str, folder: Path) -> list[str]:
    """Links of a Markdown page in `folder` whose file or anchor does not exist."""
    faults = []
    for target in LINK.findall(text):
        if re.match(r"[a-z]+:", target) or target.startswith("#"):
            continue
        path, _, anchor = target.partition("#")
        page = folder / path
        if not page.exists() or (anchor and anchor not in anchors(page)):
            faults.append(target)
    return faults


def foreign_references(text: str, folder: Path) -> list[str]:
    """Documents that are not in the repository, and tickets."""
    named = {name for name in DOCUMENT.findall(text) if name not in OF_OTHERS}
    places = (ROOT, folder, ROOT / "docs")
    missing = sorted(name for name in named if not any((place / name).is_file() for place in places))
    return missing + TICKET.findall(text)


def prose(source: str) -> str:
    """Comments and docstrings of a Python module; its other texts may be data."""
    texts = [
        token.string
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
    ]
    return "\n".join(texts + [node.value for node in docstrings(ast.parse(source))])


def docstrings(tree: ast.AST) -> Iterator[ast.Constant]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and node.body:
            first = node.body[0]
            match first:
                case ast.Expr(value=ast.Constant(value=str()) as text):
                    yield text


def citing_messages(source: str) -> list[str]:
    """Texts of a module that cite the specification, but for docstrings and texts that are sources as a whole."""
    if "docs/spec" not in source:
        return []
    tree = ast.parse(source)
    documentation = {id(node) for node in docstrings(tree)}
    return [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and "docs/spec" in node.value
        and id(node) not in documentation
        and not SOURCE.fullmatch(node.value)
    ]


def help_texts(command: click.Command) -> Iterator[str]:
    """What ``--help`` says of a command and of those below it."""
    with click.Context(command) as context:
        yield command.get_help(context)
        if isinstance(command, click.Group):
            for name in command.list_commands(context):
                below = command.get_command(context, name)
                assert below is not None
                yield from help_texts(below)


TEXTS = [name for name in files() if ROOT / name != Path(__file__).resolve()]


@cache
def read(name: Path) -> str:
    return (ROOT / name).read_text("utf-8")


def test_the_tree_is_searched() -> None:
    suffixes = {name.suffix for name in TEXTS}
    assert suffixes >= {".py", ".md", ".yaml", ".cfg", ".sh", ".json"}
    assert Path("Makefile") in TEXTS
    citing = [name for name in TEXTS if "docs/spec/" in read(name)]
    assert len(citing) > 100


def test_every_citation_resolves() -> None:
    faults = {str(name): found for name in TEXTS if (found := unresolved_citations(read(name)))}
    assert not faults


def test_every_link_resolves() -> None:
    pages = [name for name in TEXTS if name.suffix == ".md"]
    faults = {
        str(name): found for name in pages if (found := unresolved_links(read(name), (ROOT / name).parent))
    }
    assert not faults


def test_no_reference_leaves_the_repository() -> None:
    faults = {}
    for name in TEXTS:
        text, folder = read(name), (ROOT / name).parent
        found = foreign_references(text, folder)
        if found and name.suffix == ".py":
            found = foreign_references(prose(text), folder)
        if found:
            faults[str(name)] = found
    assert not faults


def test_no_message_cites_the_specification() -> None:
    modules = [name for name in TEXTS if name.suffix == ".py" and name.parts[0] == "proxyd"]
    faults = {str(name): found for name in modules if (found := citing_messages(read(name)))}
    assert not faults
    shipped = [name for name in TEXTS if str(name.as_posix()).startswith(SHIPPED)]
    assert shipped
    assert [name for name in shipped if "docs/spec" in read(name)] == []


def test_no_help_cites_the_specification() -> None:
    texts = list(help_texts(cli))
    assert len(texts) > 10
    assert [text for text in texts if "docs/spec" in text] == []


@pytest.mark.parametrize("page", sorted(SPECIFICATION.glob("*.md")), ids=lambda page: page.name)
def test_pages_can_be_cited(page: Path) -> None:
    assert [anchor for anchor, count in anchors(page).items() if count > 1] == []
    assert len(page.read_text("utf-8").splitlines()) <= 400
    index = (SPECIFICATION / "README.md").read_text("utf-8")
    assert page.name == "README.md" or f"]({page.name})" in index


@pytest.mark.parametrize(
    ("text", "faults"),
    [
        ("(docs/spec/operations.md#a8)", []),
        ("docs/spec/operations.md#a8, #c6 and #d2 to #d4, docs/spec/design.md#p2", []),
        ("docs/spec/operations.md#z9", ["docs/spec/operations.md#z9"]),
        ("docs/spec/operations.md#a8,\n#: #z9", ["docs/spec/operations.md#z9"]),
        ("docs/spec/missing.md#a8", ["docs/spec/missing.md"]),
    ],
)
def test_citations_are_found(text: str, faults: list[str]) -> None:
    assert unresolved_citations(text) == faults


@pytest.mark.parametrize(
    ("text", "faults"),
    [
        ("[a](operations.md#a8) [b](../keys.md) [c](https://example.com/x.md) [d](#top)", []),
        ("[a](operations.md#z9) [b](../missing.md)", ["operations.md#z9", "../missing.md"]),
    ],
)
def test_links_are_found(text: str, faults: list[str]) -> None:
    assert unresolved_links(text, SPECIFICATION) == faults


@pytest.mark.parametrize(
    ("text", "faults"),
    [
        ("see docs/keys.md, keys.md and README.md", []),
        ("see protocol.md 3.5 (issue 4, item 2)", ["protocol.md", "issue 4", "item 2"]),
    ],
)
def test_foreign_references_are_found(text: str, faults: list[str]) -> None:
    assert foreign_references(text, ROOT) == faults


@pytest.mark.parametrize(
    ("source", "faults"),
    [
        ('"""docs/spec/design.md."""\ndef f():\n    """docs/spec/design.md."""\n', []),
        ('x = "docs/spec/operations.md#b: Envoy 5, SDK 5"\n', []),
        ('x = "docs/spec/design.md#recording, docs/spec/operations.md#e7"\n', []),
        ('x = f"refused (docs/spec/operations.md#e1) {y}"\n', ["refused (docs/spec/operations.md#e1) "]),
    ],
)
def test_citing_messages_are_found(source: str, faults: list[str]) -> None:
    assert citing_messages(source) == faults
