"""What stands in the documents is true: commands exist, configurations are valid, generated pages are up to date.

Links and anchors are checked in ``test_spec_references.py``. Commands are run in
``tests/system/test_document_commands.py`` and, for the README's first conversation, in ``tests/system/test_readme.py``.
"""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import click
import pytest
from ruamel.yaml import YAML

from proxyd.cli.main import COMMANDS, cli
from proxyd.config.catalog import read_catalog
from proxyd.config.models import load_text
from proxyd.daemon.configuration import checks
from proxyd.hooks.loader import load_hooks
from proxyd.onboarding.vendors import VENDORS
from proxyd.providers.registry import PROFILES, profile_for
from proxyd.providers.route_warnings import route_warnings
from tests.support.documents import Block, blocks, commands_in
from tests.support.paths import ROOT

SHELL = blocks("sh")
#: Programs of others in our documents. What they are told is not checked.
FOREIGN = {
    "claude",
    "cp",
    "curl",
    "export",
    "eval",
    "git",
    "journalctl",
    "keyring",
    "launchctl",
    "loginctl",
    "mv",
    "openssl",
    "pip",
    "pipx",
    "source",
    "systemctl",
    "tail",
    "uv",
    "jq",
    "echo",
}
MAKE_TARGETS = set(
    re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
)
README = (ROOT / "README.md").read_text(encoding="utf-8")


def in_context(words: list[str]) -> click.Context:
    """Parse a command line of ours; nothing is run."""
    context = cli.make_context("claude-proxy", list(words), resilient_parsing=True)
    command: click.Command = cli
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        name, found, words = command.resolve_command(context, list(words))
        assert found is not None
        command = found
        # Groups and commands alike: the options of this level.
        rest = list(words)
        if isinstance(command, click.Group):
            continue
        context = command.make_context(name or "", rest)
    return context


@pytest.mark.parametrize("block", SHELL, ids=lambda block: block.place)
def test_commands_exist_with_their_options(block: Block) -> None:
    for words in commands_in(block.text):
        program = Path(words[0]).name
        if program == "claude-proxy":
            in_context(words[1:])
        elif program == "make":
            # Goals and variables; those behind `client-diff` are versions.
            goals = [word for word in words[1:] if "=" not in word]
            assert goals[0] in MAKE_TARGETS, words
            assert goals[0] == "client-diff" or set(goals) <= MAKE_TARGETS, words
        elif program.endswith(".sh"):
            assert (ROOT / program).is_file()
        else:
            assert program in FOREIGN, f"{words}: add the program to FOREIGN if the document means it"


def test_a_wrong_option_in_a_document_would_be_found() -> None:
    with pytest.raises(click.UsageError):
        in_context(["check", "--prob"])
    with pytest.raises(click.UsageError):
        in_context(["cheque"])


#: All but Prometheus's own.
CONFIGURATIONS = [block for block in blocks("yaml") if "scrape_configs:" not in block.text]


@pytest.mark.parametrize("block", CONFIGURATIONS, ids=lambda block: block.place)
def test_configurations_are_valid(block: Block, tmp_path: Path) -> None:
    document = YAML(typ="safe").load(block.text)
    if isinstance(document, list):
        document = {"models": document}
    models = document.setdefault("models", [{"model_id": "demo", "api_base": "builtin:demo"}])
    # Entries of other examples that fallbacks and rules name.
    others = _needs_others(json.dumps(document), tmp_path)
    models += [{"model_id": name, "api_base": "builtin:demo"} for name in sorted(others)]
    assert _faults(json.dumps(document), tmp_path) == ""


def _needs_others(text: str, folder: Path) -> set[str]:
    pattern = r"no entry (?:has the model_id|serves the model) '([^']+)'"
    return set(re.findall(pattern, _faults(text, folder)))


def _faults(text: str, folder: Path) -> str:
    from proxyd.errors import ConfigError

    for name in re.findall(r"(?:rules|auth_token|api_key): (?:\$\{file:)?([\w./-]+\.(?:txt|md))", text):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("x")
    try:
        load_text(text, folder / "models.yaml", {}, checks=checks())
    except ConfigError as exc:
        return exc.message
    return ""


@pytest.mark.parametrize("block", blocks("json"), ids=lambda block: block.place)
def test_json_is_json(block: Block) -> None:
    json.loads(block.text)


@pytest.mark.parametrize("block", blocks("python"), ids=lambda block: block.place)
def test_python_compiles(block: Block) -> None:
    text = re.sub(r",? …(?=[}\]])", "", block.text)  # "and so on" within a mapping or a list
    compile(text.replace("{…}", "{}").replace("…", "..."), block.place, "exec")


def test_hooks_load(tmp_path: Path) -> None:
    hooks = {
        block.text.splitlines()[0].removeprefix("# hooks/"): block.text
        for block in blocks("python")
        if block.text.startswith("# hooks/")
    }
    assert hooks
    for name, text in hooks.items():
        (tmp_path / name).write_text(text)
    assert {each.path.name for each in load_hooks(tmp_path).files} == set(hooks)


# -- the README's table of vendors


ROWS = re.findall(r"^\| `([\w.-]+)` \| ([^|]+) \| `(\{model_id: .*\})` \|$", README, re.MULTILINE)


def test_every_vendor_has_a_row() -> None:
    assert [(name, title.strip()) for name, title, _ in ROWS] == [(each.name, each.title) for each in VENDORS]
    assert f"{len(PROFILES) - 1} profiles" in README


@pytest.mark.parametrize(("name", "entry"), [(name, entry) for name, _, entry in ROWS])
def test_the_entry_of_a_vendor_works(name: str, entry: str) -> None:
    vendor = next(each for each in VENDORS if each.name == name)
    environ = {vendor.key_env: "sk-0123456789abcdef"}
    (route,) = load_text(f"- {entry}\n", Path("models.yaml"), environ, checks=checks()).table.routes
    assert (route.api_base, route.direct, route.key_origin) == (
        vendor.api_base, vendor.direct, f"${{{vendor.key_env}}}",
    )  # fmt: skip
    assert profile_for(route.api_base, route.provider).name == vendor.profile
    assert [line for line in route_warnings([route]) if "key" not in line] == []
    catalog = read_catalog(ROOT / "config" / "catalog.yaml")
    if any(each.vendor == vendor.profile for each in catalog.models):
        assert catalog.find(vendor.profile, route.model_name) is not None, "a model that the vendor has"


# -- pages


def _generator(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_of_formats_is_up_to_date() -> None:
    module = _generator("generate_formats")
    assert module.PAGE.read_text(encoding="utf-8") == module.page(), "run 'make docs'"


def test_the_manual_page_and_the_completions_are_up_to_date() -> None:
    for path, text in _generator("generate_man").files().items():
        assert path.read_text(encoding="utf-8") == text, f"{path.name}: run 'make docs'"


def test_the_manual_page_has_every_command_and_no_fault() -> None:
    page = ROOT / "man" / "claude-proxy.1"
    text = page.read_text(encoding="utf-8")
    for name in COMMANDS:
        assert f"\n.SS claude\\-proxy {name}" in text
    if shutil.which("groff") is None:
        return
    done = subprocess.run(
        ["groff", "-man", "-Tutf8", "-ww", str(page)], capture_output=True, text=True, timeout=30
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "--api-base URL" in re.sub(r".\x08|\x1b\[[0-9;]*m", "", done.stdout)


def test_the_tests_that_pages_name_are_there() -> None:
    for name in ("gateway-contract.md", "testing.md"):
        text = (ROOT / "docs" / name).read_text(encoding="utf-8")
        named = re.findall(r"`(tests/[a-z0-9_/]+(?:\.py)?)(?:::(test_\w+))?`", text)
        assert named
        assert [place for place, _ in named if not (ROOT / place).exists()] == []
        functions = [(place, test) for place, test in named if test]
        assert [each for each in functions if f"def {each[1]}(" not in (ROOT / each[0]).read_text()] == []


def test_the_readme_names_the_pages_of_docs() -> None:
    pages = {path.name for path in (ROOT / "docs").glob("*.md")} - {"reliability_prose.md"}
    assert pages == set(re.findall(r"\]\(docs/([\w-]+\.md)\)", README))


def test_make_is_what_the_first_commands_need() -> None:
    assert shutil.which("make") is None or "run" in MAKE_TARGETS
