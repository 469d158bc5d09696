"""Which files of the hooks folder are loaded, and what is reported of those that are not."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from proxyd.config.routes import ModelRoute
from proxyd.errors import ConfigError
from proxyd.hooks.loader import load_hooks
from tests.support.hooked import write_hook


def test_an_unknown_hook_in_an_entry_is_a_fault(tmp_path: Path) -> None:
    write_hook(tmp_path, "filter_tools", "def request_hook(p):\n return p\n")
    hooks = load_hooks(tmp_path)
    route = ModelRoute("m", "http://x", "m", hooks=("filter_tool",))
    with pytest.raises(ConfigError, match=r"there is no hook 'filter_tool'; .*filter_tools"):
        hooks.check_names([route])


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("def request_hook(p):\n return (\n", "SyntaxError"),
        ("import nothing_of_that_name\n", "ModuleNotFoundError.*line 1"),
        ("x = 1\n", "defines none of"),
        ("def request_hook():\n pass\n", r"must take \(payload\) or \(payload, ctx\)"),
        ("request_hook = 3\n", "not a function"),
        ("raise SystemExit(3)\n", "SystemExit"),
        ("raise KeyboardInterrupt\n", "KeyboardInterrupt.*line 1"),
        ("raise GeneratorExit\n", "GeneratorExit"),
        ("import asyncio\nraise asyncio.CancelledError\n", "CancelledError.*line 2"),
        ("class Own(BaseException): pass\nraise Own('x')\n", "Own: x.*line 2"),
        (
            "class Mute(Exception):\n def __str__(self):\n  raise KeyboardInterrupt\nraise Mute\n",
            "Mute: an exception whose text cannot be read",
        ),
        ("def __getattr__(name):\n raise KeyboardInterrupt\n", "KeyboardInterrupt"),
        (
            "class Odd:\n def __call__(self, p):\n  pass\n @property\n def __signature__(self):\n"
            "  raise KeyboardInterrupt\nrequest_hook = Odd()\n",
            "KeyboardInterrupt",
        ),
    ],
)
def test_a_file_that_does_not_load_is_reported_and_the_others_run(
    tmp_path: Path, text: str, why: str
) -> None:
    write_hook(tmp_path, "bad", text)
    write_hook(tmp_path, "good", "def request_hook(p):\n return p\n")
    hooks = load_hooks(tmp_path)
    assert [file.name for file in hooks.files] == ["good"]
    described = hooks.describe()[-1]
    assert described["name"] == "bad"
    assert re.search(why, described["error"]), described["error"]


@pytest.mark.statement("E11")
@pytest.mark.parametrize("which", ["folder", "file"])
def test_a_hook_file_that_others_may_write_is_not_run(tmp_path: Path, which: str) -> None:
    folder = tmp_path / "hooks"
    path = write_hook(folder, "h", "raise SystemExit('it ran')\n")
    target = folder if which == "folder" else path
    target.chmod(0o777)
    hooks = load_hooks(folder)
    assert hooks.files == ()
    assert f"everybody may write {target}; run 'chmod go-w {target}'" in hooks.faults["h"]


@pytest.mark.statement("E11")
@pytest.mark.parametrize("case", ["file", "folder", "folder_of_the_file", "no_file"])
def test_a_link_is_checked_by_its_target(tmp_path: Path, case: str) -> None:
    """A file that others may change or replace is not run through a link either."""
    elsewhere = tmp_path / "elsewhere"
    target = write_hook(elsewhere, "h", "raise SystemExit('it ran')\n")
    folder = tmp_path / "hooks"
    if case == "folder":
        folder.symlink_to(elsewhere)
        elsewhere.chmod(0o777)
    else:
        folder.mkdir(mode=0o755)
        (folder / "h.py").symlink_to(target if case != "no_file" else elsewhere / "gone.py")
        (target if case == "file" else elsewhere).chmod(0o777)
    if case == "no_file":
        assert load_hooks(folder).files == ()
        return
    hooks = load_hooks(folder)
    assert hooks.files == ()
    assert re.search(r"everybody may write .*chmod go-w", hooks.faults["h"])


@pytest.mark.statement("E11")
def test_a_link_to_a_file_of_the_user_runs(tmp_path: Path) -> None:
    target = write_hook(tmp_path / "dotfiles", "h", "def request_hook(p):\n return p\n")
    folder = tmp_path / "hooks"
    folder.mkdir(mode=0o755)
    (folder / "h.py").symlink_to(target)
    assert [file.name for file in load_hooks(folder).files] == ["h"]


@pytest.mark.statement("E11")
def test_no_hooks_are_loaded_from_other_folders(tmp_path: Path) -> None:
    """Not from subfolders, the parent or the working directory; nor disabled files."""
    folder = tmp_path / "hooks"
    ran = "raise SystemExit('it ran')\n"
    for place, name in (
        (tmp_path, "beside"),
        (folder, "_off"),
        (folder / "below", "below"),
        (tmp_path / "x", "x"),
    ):
        place.mkdir(mode=0o755, exist_ok=True)
        write_hook(place, name, ran)
    (folder / "notes.txt").write_text(ran)
    (folder / "a_folder.py").mkdir()
    hooks = load_hooks(folder)
    assert (hooks.files, hooks.faults) == ((), {})


def test_without_a_folder_there_are_no_hooks(tmp_path: Path) -> None:
    hooks = load_hooks(tmp_path / "hooks")
    assert hooks.for_call(ModelRoute("m", "http://x", "m"), "req_1", "direct") is None
