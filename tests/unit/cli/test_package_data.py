"""Packaged files, and the command of this installation."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from proxyd.cli.exit_codes import CommandFailed
from proxyd.cli.package_data import below_folder, own_command, own_words, packaged_path
from proxyd.config import package_files
from tests.support.paths import ROOT


def test_checkout_has_the_files_at_its_root() -> None:
    assert packaged_path("config", "models.yaml") == ROOT / "config" / "models.yaml"


def test_installation_has_the_files_under_share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "lib" / "proxyd"
    shared = tmp_path / "share" / "claude-proxy" / "config"
    shared.mkdir(parents=True)
    (shared / "models.yaml").write_text("[]\n")
    monkeypatch.setattr(package_files.proxyd, "__file__", str(package / "__init__.py"))
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    monkeypatch.setattr(package_files.sysconfig, "get_path", lambda name: str(tmp_path))
    assert packaged_path("config", "models.yaml") == shared / "models.yaml"
    with pytest.raises(CommandFailed, match="this installation lacks hooks; install claude-proxy again"):
        packaged_path("hooks")


@pytest.mark.parametrize("has_script", [True, False])
def test_own_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_script: bool) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    if has_script:
        (tmp_path / "claude-proxy").touch()
        assert own_command() == [str(tmp_path / "claude-proxy")]
    else:
        assert own_command() == [str(tmp_path / "python"), "-m", "proxyd"]


def test_own_words_are_those_that_a_person_copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "bin" / "claude-proxy"
    script.parent.mkdir()
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script.parent / "python"))
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.chdir(tmp_path)
    assert own_words() == ["bin/claude-proxy"]
    monkeypatch.chdir("/")
    assert own_words() == [str(script).removeprefix("/")]
    monkeypatch.setenv("PATH", str(script.parent))
    assert own_words() == ["claude-proxy"]
    monkeypatch.chdir(tmp_path)
    assert below_folder(Path("/elsewhere/x")) == "/elsewhere/x"
