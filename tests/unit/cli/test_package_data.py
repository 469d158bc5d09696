"""Packaged files, and the command of this installation."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from proxyd.cli.exit_codes import CommandFailed
from proxyd.cli.package_data import own_command, packaged_path
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
