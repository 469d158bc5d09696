"""Which files are run or obeyed: those that nobody else can change or exchange, whatever umask they were made with."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from proxyd.config.trust import Untrusted, read_trusted
from proxyd.daemon.configuration import load_configuration
from proxyd.errors import UnsafePermissions
from proxyd.hooks.loader import load_hooks

IS_ROOT = os.geteuid() == 0
OTHER, GROUP = 12345, 12346
needs_root = pytest.mark.skipif(not IS_ROOT, reason="only root can give files away")


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A folder with models.yaml and a hook, all of it ours."""
    folder = tmp_path / "conf"
    (folder / "hooks").mkdir(parents=True, mode=0o755)
    for name, text in (
        ("models.yaml", "- model_id: m\n  api_base: http://127.0.0.1:1/v1\n"),
        ("hooks/h.py", RAN),
    ):
        (folder / name).write_text(text)
    for path in (folder, folder / "hooks"):
        path.chmod(0o755)
    for path in (folder / "models.yaml", folder / "hooks/h.py"):
        path.chmod(0o644)
    return folder


RAN = "def request_hook(p):\n return p\n"

#: What is done to the folder, and what of it may be read after that.
CASES: dict[str, tuple[Callable[[Path], None], bool]] = {
    "as it is": (lambda folder: None, True),
    "everybody may write the file": (lambda folder: (folder / "hooks/h.py").chmod(0o646), False),
    "everybody may write its folder": (lambda folder: (folder / "hooks").chmod(0o757), False),
    "everybody may write the folder above": (lambda folder: folder.chmod(0o777), False),
    "everybody may write a folder further up": (lambda folder: folder.parent.chmod(0o777), False),
    "a sticky folder with our own file": (lambda folder: (folder / "hooks").chmod(0o1777), True),
}
OF_OTHERS: dict[str, tuple[Callable[[Path], None], bool]] = {
    "the file is another user's": (lambda folder: os.chown(folder / "hooks/h.py", OTHER, GROUP), False),
    "its folder is another user's": (lambda folder: os.chown(folder / "hooks", OTHER, GROUP), False),
    "the folder above is another user's": (lambda folder: os.chown(folder, OTHER, GROUP), False),
    "a group may write its folder": (lambda folder: _group_may_write(folder / "hooks"), False),
    "a group may write the file": (lambda folder: _group_may_write(folder / "hooks/h.py"), False),
    "another user's file in a sticky folder": (
        lambda folder: ((folder / "hooks").chmod(0o1777), os.chown(folder / "hooks/h.py", OTHER, GROUP))[0],
        False,
    ),
    "another user's link in a sticky folder": (lambda folder: _link_of_another(folder), False),
}


def _group_may_write(path: Path) -> None:
    os.chown(path, 0, GROUP)
    path.chmod(path.stat().st_mode | 0o020)


def _link_of_another(folder: Path) -> None:
    (folder / "hooks").chmod(0o1777)
    (folder / "hooks/h.py").rename(folder / "elsewhere.py")
    (folder / "hooks/h.py").symlink_to(folder / "elsewhere.py")
    os.chown(folder / "hooks/h.py", OTHER, GROUP, follow_symlinks=False)


@pytest.mark.statement("E11")
@pytest.mark.parametrize("case", [*CASES, *(pytest.param(name, marks=needs_root) for name in OF_OTHERS)])
def test_a_hook_that_others_may_change_or_exchange_is_not_run(config: Path, case: str) -> None:
    change, is_run = {**CASES, **OF_OTHERS}[case]
    change(config)
    hooks = load_hooks(config / "hooks")
    assert [file.name for file in hooks.files] == (["h"] if is_run else [])
    if not is_run:
        assert "run '" in hooks.faults["h"], "the remedy is missing"
        assert "others may change it" in hooks.faults["h"]


@pytest.mark.statement("E11")
@pytest.mark.parametrize(
    ("change", "remedy"),
    [
        (lambda path: path.chmod(0o666), "chmod go-w {path}"),
        (lambda path: path.parent.chmod(0o777), "chmod go-w {path.parent}"),
        pytest.param(lambda path: os.chown(path, OTHER, GROUP), "chown -h root {path}", marks=needs_root),
        pytest.param(lambda path: _group_may_write(path), "chmod go-w {path}", marks=needs_root),
    ],
    ids=["everybody may write it", "everybody may exchange it", "another user's", "a group may write it"],
)
def test_a_models_yaml_that_others_may_change_is_refused(
    config: Path, change: Callable[[Path], None], remedy: str
) -> None:
    path = config / "models.yaml"
    change(path)
    with pytest.raises(UnsafePermissions) as caught:
        load_configuration({}, str(path), {})
    assert remedy.format(path=path) in caught.value.message
    assert len(caught.value.message.splitlines()) == 1


@pytest.mark.parametrize(
    ("members", "is_trusted"), [([], True), (["us"], True), (["root"], True), (["us", "neighbour"], False)]
)
@pytest.mark.parametrize("primary", [True, False])
def test_a_private_group_may_write(
    config: Path, monkeypatch: pytest.MonkeyPatch, members: list[str], is_trusted: bool, primary: bool
) -> None:
    """With umask 002, as where each user has a group of their own, files are 0664."""
    path = config / "models.yaml"
    path.chmod(0o664)
    config.chmod(0o775)
    gid, us = path.stat().st_gid, os.geteuid()
    accounts = {
        "us": SimpleNamespace(pw_name="us", pw_uid=us, pw_gid=gid),
        "root": SimpleNamespace(pw_name="root", pw_uid=0, pw_gid=0 if us else gid),
        "neighbour": SimpleNamespace(pw_name="neighbour", pw_uid=OTHER, pw_gid=gid if primary else GROUP),
    }
    if not primary:
        groups = members
    else:  # the neighbour's own group, of which the list of members says nothing
        groups = [name for name in members if name != "neighbour"]
    if "neighbour" not in members:
        del accounts["neighbour"]
    monkeypatch.setattr("grp.getgrgid", lambda _: SimpleNamespace(gr_name="us", gr_mem=groups))
    monkeypatch.setattr("pwd.getpwnam", accounts.__getitem__)
    monkeypatch.setattr("pwd.getpwall", lambda: list(accounts.values()))
    if is_trusted:
        assert read_trusted(path).startswith(b"- model_id")
    else:
        with pytest.raises(Untrusted, match="the group us may write"):
            read_trusted(path)


def test_a_group_of_no_name_may_have_any_members(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = config / "models.yaml"
    path.chmod(0o664)

    def no_group(_: int) -> None:
        raise KeyError

    monkeypatch.setattr("grp.getgrgid", no_group)
    with pytest.raises(Untrusted, match="the group"):
        read_trusted(path)


def test_a_fifo_is_not_waited_for(config: Path) -> None:
    os.mkfifo(config / "fifo", 0o600)
    with pytest.raises(Untrusted, match="no regular file"):
        read_trusted(config / "fifo")


def test_links_in_a_circle_end(config: Path) -> None:
    (config / "a").symlink_to(config / "b")
    (config / "b").symlink_to(config / "a")
    with pytest.raises(OSError, match="symbolic links"):
        read_trusted(config / "a")


def test_what_was_checked_is_what_is_read(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that takes the place of another after it was opened is not read."""
    path = config / "hooks/h.py"
    from proxyd.config import trust

    check_ancestors = trust._check_ancestors

    def exchange(checked: Path) -> None:
        check_ancestors(checked)
        (config / "new").write_text("exchanged")
        os.replace(config / "new", path)

    monkeypatch.setattr(trust, "_check_ancestors", exchange)
    assert read_trusted(path) == RAN.encode()
