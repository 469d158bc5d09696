"""The distributions have everything: built without a network from the files of this checkout."""

from __future__ import annotations

import json
import re
import tarfile
import zipfile
from email import message_from_string
from importlib.metadata import version
from pathlib import Path

import pytest

import proxyd
from tests.support.paths import ROOT
from tests.system.distribution import build
from tests.system.sbom import bill_of_materials, licence_of, needed


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    found = build(tmp_path_factory.mktemp("dist"))
    wheel = next(path for path in found if path.suffix == ".whl")
    return wheel, next(path for path in found if path != wheel)


def test_the_wheel_has_all_that_runs(built: tuple[Path, Path]) -> None:
    with zipfile.ZipFile(built[0]) as archive:
        names = archive.namelist()
        meta = message_from_string(archive.read(next(n for n in names if n.endswith("/METADATA"))).decode())
    shared = {name.partition("/share/claude-proxy/")[2] for name in names}
    for folder in ("config", "hooks", "systemd", "launchd"):
        for path in (ROOT / folder).iterdir():
            if path.is_file():
                assert f"{folder}/{path.name}" in shared
    for each in ("man/man1/claude-proxy.1", "bash-completion/completions/claude-proxy",
                 "zsh/site-functions/_claude-proxy", "fish/vendor_completions.d/claude-proxy.fish",
                 "doc/claude-proxy/README.md", "doc/claude-proxy/docs/spec/README.md",
                 *(f"doc/claude-proxy/docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))):  # fmt: skip
        assert any(name.endswith(f".data/data/share/{each}") for name in names), each
    packaged = {name for name in names if name.startswith("proxyd/")}
    for path in (ROOT / "proxyd").rglob("*"):
        if path.is_file() and path.suffix != ".pyc":
            assert str(path.relative_to(ROOT)) in packaged
    assert (meta["Name"], meta["Version"]) == ("claude-proxyd", proxyd.__version__)
    assert any(name.endswith("/licenses/LICENSE") for name in names)
    entry = next(name for name in names if name.endswith("entry_points.txt"))
    with zipfile.ZipFile(built[0]) as archive:
        assert "claude-proxy = proxyd.__main__:main" in archive.read(entry).decode()


def test_the_source_distribution_has_all_that_is_tested_and_read(built: tuple[Path, Path]) -> None:
    with tarfile.open(built[1]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    for folder in (
        "docs",
        "tests",
        "bench",
        "config",
        "hooks",
        "systemd",
        "launchd",
        ".ci",
        "man",
        "completions",
    ):
        for path in (ROOT / folder).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                assert str(path.relative_to(ROOT)) in names
    assert {"Makefile", "README.md", "CHANGELOG.md", "constraints.txt", "install.sh", "uninstall.sh"} <= names


def test_the_version_has_one_place() -> None:
    found = [
        path.relative_to(ROOT)
        for path in [*(ROOT / "proxyd").rglob("*.py"), ROOT / "setup.cfg", ROOT / "pyproject.toml"]
        if re.search(rf"[\"'= ]{re.escape(proxyd.__version__)}[\"'\s]", path.read_text(encoding="utf-8"))
    ]
    assert found == [Path("proxyd/__init__.py")]
    assert proxyd.__version__ in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_no_text_recommends_the_distribution_of_somebody_else() -> None:
    """On the package index, claude-proxy is another project."""
    pattern = re.compile(r"(?:pipx?|uvx?|uv tool)\s+(?:install\s+|run\s+)?['\"]?claude-proxy(?!d)\b")
    texts = [
        *ROOT.glob("*.md"),
        *ROOT.glob("*.sh"),
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / "proxyd").rglob("*.py"),
    ]
    assert [str(path) for path in texts if pattern.search(path.read_text(encoding="utf-8"))] == []


def test_the_bill_of_materials_names_every_dependency() -> None:
    packages = needed("aiohttp")
    assert {"aiohttp", "yarl", "multidict"} <= {each.metadata["Name"] for each in packages}
    assert "aiodns" not in {each.metadata["Name"] for each in packages}, "an extra that is not asked for"
    assert [each.metadata["Name"] for each in packages if licence_of(each) == "not named"] == []
    lines = json.dumps(bill_of_materials(packages))
    assert all(f"pkg:pypi/{name}@{version(name)}" in lines for name in ("aiohttp", "yarl", "multidict"))
