"""Locations of models.yaml and the state folder."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest

from proxyd.config.paths import (
    make_private_folder,
    replace_private_file,
    resolve_models_path,
    resolve_state_folder,
)


def test_the_first_source_that_names_a_models_yaml_wins(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    environ = {"CLAUDE_PROXY_MODELS": "~/v.yaml", "CONFIGURATION_DIRECTORY": "/c:/d"}
    assert resolve_models_path("~no-such-user/f", {})[0] == Path("~no-such-user/f")
    assert resolve_models_path("~/f.yaml", environ) == (tmp_path / "f.yaml", "--models")
    assert resolve_models_path(None, environ) == (tmp_path / "v.yaml", "$CLAUDE_PROXY_MODELS")
    del environ["CLAUDE_PROXY_MODELS"]
    assert resolve_models_path(None, environ) == (Path("/c/models.yaml"), "$CONFIGURATION_DIRECTORY")
    config = tmp_path / ".config" / "claude-proxy" / "models.yaml"
    assert resolve_models_path(None, {}) == (config, "default")
    assert resolve_state_folder({}) == tmp_path / ".local" / "state" / "claude-proxy"
    assert resolve_state_folder({"STATE_DIRECTORY": "/s:/t"}) == Path("/s")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "xdg"))
    found = resolve_models_path(None, {"XDG_CONFIG_HOME": str(tmp_path / "xdg")})
    assert found == (tmp_path / "xdg" / "claude-proxy" / "models.yaml", "$XDG_CONFIG_HOME")


def test_private_folder_and_its_new_parents_are_for_the_owner_only(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    umask = os.umask(0)
    try:
        make_private_folder(tmp_path / "a" / "b")
        make_private_folder(tmp_path / "a" / "b")
    finally:
        os.umask(umask)
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (tmp_path, tmp_path / "a", tmp_path / "a" / "b")]
    assert modes == [0o755, 0o700, 0o700]


def test_private_folder_where_a_file_exists(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("x", encoding="utf-8")
    with pytest.raises(FileExistsError):
        make_private_folder(tmp_path / "f")


def test_two_that_replace_a_file_at_once_do_not_meet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path, replace = tmp_path / "f.json", os.replace

    def replace_after_another(source: Path, target: Path) -> None:
        monkeypatch.setattr(os, "replace", replace)
        other = threading.Thread(target=replace_private_file, args=(path, b"of the other"))
        other.start()
        other.join()
        assert path.read_bytes() == b"of the other"
        replace(source, target)

    monkeypatch.setattr(os, "replace", replace_after_another)
    replace_private_file(path, b"mine")
    assert (path.read_bytes(), os.listdir(tmp_path)) == (b"mine", ["f.json"])
    path.unlink()
    path.mkdir()
    with pytest.raises(OSError, match="directory"):
        replace_private_file(path, b"mine")
    assert os.listdir(tmp_path) == ["f.json"]
