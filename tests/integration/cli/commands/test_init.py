"""``claude-proxy init``: it writes the files of a first configuration."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

from tests.support.command_line import Home
from tests.support.models_yaml import ALL_EXAMPLES

DEMO = "- {model_id: demo, api_base: 'builtin:demo'}\n"


def test_files_are_valid_and_never_overwritten(home: Home) -> None:
    assert home.run("init").code == 0
    written = home.config / "models.yaml"
    assert stat.S_IMODE((home.config / "env").stat().st_mode) == 0o600
    assert stat.S_IMODE(written.stat().st_mode) == 0o600
    assert sorted(path.name for path in (home.config / "hooks").iterdir()) == [
        "_audit_log.py",
        "_filter_tools.py",
        "_redact.py",
        "_system_prompt.py",
    ]
    written.write_text(DEMO)
    assert "kept" in home.run("init").out
    assert written.read_text() == DEMO
    forced = home.run("init", "--force")
    assert f"(the old one is {written}.bak)" in forced.out
    assert (home.config / "models.yaml.bak").read_text() == DEMO
    checked = home.run("check")
    assert checked.code == 0, checked.err
    assert checked.err == ""
    assert "hooks: none\n" in checked.out
    hooks = home.config / "hooks"
    (hooks / "_filter_tools.py").rename(hooks / "filter_tools.py")
    assert "hooks: filter_tools\n" in home.run("check").out


def test_only_the_demo_is_on_and_every_example_is_valid(home: Home) -> None:
    home.run("init")
    path = home.config / "models.yaml"
    assert [each["model_id"] for each in json.loads(home.run("models", "list", "--json").out)] == ["demo"]
    path.write_text(ALL_EXAMPLES)
    checked = home.run("check", "--json")
    assert checked.code == 0, checked.err
    ids = [each["model_id"] for each in json.loads(checked.out)["models"]]
    assert {"demo", "kimi", "deepseek", "glm", "minimax", "local", "coder"} <= set(ids)
    assert " is not the " not in checked.err, "a price disagrees with the catalog"
    assert " is more than the " not in checked.err


def test_files_with_keys_are_private(home: Home) -> None:
    old = os.umask(0)
    try:
        home.run("init")
    finally:
        os.umask(old)
    for name in ("models.yaml", "env"):
        assert not stat.S_IMODE((home.config / name).stat().st_mode) & 0o077
    assert Path(home.config / "hooks").stat().st_mode & 0o002 == 0
