"""Edits of models.yaml: the expected content is there and everything else is unchanged, byte for byte."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxyd.config.edit import add_entry, remove_entry, save_atomic
from proxyd.config.models import load_text
from proxyd.errors import ConfigError
from tests.support.effort import examples
from tests.support.models_yaml import ALL_EXAMPLES

NEW = {
    "model_id": "new",
    "api_base": "https://new.example.com",
    "aliases": ["a*"],
    "extra_body": {"x": "1\n# 2"},
}


def ids(text: str) -> tuple[str, ...]:
    return load_text(text, Path("models.yaml"), {}).table.ids()


def test_an_entry_added_to_the_example_and_removed_again() -> None:
    added = add_entry(ALL_EXAMPLES, NEW)
    assert added.startswith(ALL_EXAMPLES)
    assert ids(added) == (*ids(ALL_EXAMPLES), "new")
    found = load_text(added, Path("models.yaml"), {}).table.resolve("new")
    assert found is not None
    assert (found.aliases, found.extra_body) == (("a*",), {"x": "1\n# 2"})
    assert remove_entry(added, "new") == ALL_EXAMPLES


@pytest.mark.parametrize("model_id", ids(ALL_EXAMPLES))
def test_removing_any_entry_of_the_example_leaves_the_lines_of_all_others(model_id: str) -> None:
    if model_id in (
        "openrouter/qwen3-coder",
        "local",
    ):  # fallbacks at the end name them, and the edit does not check that
        text = ALL_EXAMPLES.replace("    fallback: [openrouter/qwen3-coder, local]\n", "")
    else:
        text = ALL_EXAMPLES
    removed = remove_entry(text, model_id)
    assert ids(removed) == tuple(name for name in ids(text) if name != model_id)
    before, after = text.splitlines(), removed.splitlines()
    start = next(
        (n for n, (old, new) in enumerate(zip(before, after, strict=False)) if old != new), len(after)
    )
    gone = before[start : start + len(before) - len(after)]
    assert after == before[:start] + before[start + len(gone) :]
    # No heading of a part went with it.
    assert not any(line.startswith("  # --") for line in gone)


#: before, after adding ``{model_id: x}``; the way back gives the first again.
BOTH_WAYS = [
    ("- model_id: a\n", "- model_id: a\n- model_id: x\n"),
    ("models:\n- model_id: a\n# end\n", "models:\n- model_id: a\n- model_id: x\n# end\n"),
    ("models:\n  - model_id: a\nsettings: {}\n", "models:\n  - model_id: a\n  - model_id: x\nsettings: {}\n"),
    ("- model_id: a\n\n- model_id: b\n", "- model_id: a\n\n- model_id: b\n\n- model_id: x\n"),
    ("[{model_id: a}]\n", '[{model_id: a}, {"model_id":"x"}]\n'),
    ("models: [{model_id: a}] # c\n", 'models: [{model_id: a}, {"model_id":"x"}] # c\n'),
    (
        "- model_id: a\n  e: |\n    x\n    # y\n# z\n",
        "- model_id: a\n  e: |\n    x\n    # y\n- model_id: x\n# z\n",
    ),
    (
        "- &b\n  model_id: a\n- <<: *b\n  model_id: c\n# z\n",
        "- &b\n  model_id: a\n- <<: *b\n  model_id: c\n- model_id: x\n# z\n",
    ),
    ("- model_id: a\n  e: &q [1]\n  f: *q\n", "- model_id: a\n  e: &q [1]\n  f: *q\n- model_id: x\n"),
    ("-\n  # why - and how\n  model_id: a\n", "-\n  # why - and how\n  model_id: a\n- model_id: x\n"),
]  # fmt: skip

#: before, after adding; there is no way back, since the last entry stays, or a line end was missing.
ONE_WAY = [
    ("", "- model_id: x\n"),
    ("# only a comment", "# only a comment\n- model_id: x\n"),
    ("[]", '[{"model_id":"x"}]'),
    ("models: []\n", 'models: [{"model_id":"x"}]\n'),
    ("models:\n", "models:\n  - model_id: x\n"),
    ("models:\nsettings: {}\n", "models:\n  - model_id: x\nsettings: {}\n"),
    ("models: [\n  {model_id: a},\n]\n", 'models: [\n  {model_id: a}, {"model_id":"x"}]\n'),
    ("- model_id: a", "- model_id: a\n- model_id: x\n"),
]


@pytest.mark.parametrize(("before", "after"), BOTH_WAYS)
def test_add_and_remove(before: str, after: str) -> None:
    assert add_entry(before, {"model_id": "x"}) == after
    assert remove_entry(after, "x") == before


@pytest.mark.parametrize(("before", "after"), ONE_WAY)
def test_add(before: str, after: str) -> None:
    assert add_entry(before, {"model_id": "x"}) == after


def test_comments_above_an_entry_are_removed_with_it() -> None:
    text = (
        "# file\nmodels:\n  # part\n\n  # about a\n  - model_id: a\n    # inside\n\n"
        "  # about b\n  - model_id: b\n# end\n"
    )
    assert remove_entry(text, "a") == "# file\nmodels:\n  # part\n\n  # about b\n  - model_id: b\n# end\n"
    assert remove_entry(text, "b") == (
        "# file\nmodels:\n  # part\n\n  # about a\n  - model_id: a\n    # inside\n# end\n"
    )
    head = "# file\n- model_id: a\n- model_id: b\n"
    assert remove_entry(head, "a") == "# file\n- model_id: b\n"
    flow = "[{model_id: a}, {model_id: b}]"
    assert (remove_entry(flow, "a"), remove_entry(flow, "b")) == ("[{model_id: b}]", "[{model_id: a}]")


def test_windows_line_ends_are_kept() -> None:
    text = "- model_id: a\r\n- model_id: b\r\n"
    added = add_entry(text, {"model_id": "x", "direct": True})
    assert added == text + "- model_id: x\r\n  direct: true\r\n"
    assert remove_entry(added, "x") == text


@pytest.mark.parametrize(
    ("text", "model_id", "message"),
    [
        (
            "- model_id: kimi\n- model_id: b\n",
            "kimmi",
            "no entry has the model_id 'kimmi'; did you mean 'kimi'?",
        ),
        ("settings: {}\n", "a", "no entry has the model_id 'a'; there is none to name"),
        ("", "a", "no entry has the model_id 'a'; there is none to name"),
        ("- model_id: a\n", "a", "'a' is the only entry, and a models.yaml needs one; add another first"),
        (
            "- &b {model_id: a}\n- <<: *b\n  model_id: c\n",
            "a",
            "this file is written in a way that cannot be edited safely; edit it by hand",
        ),
        (
            "- [",
            "a",
            "models.yaml:1:4: not valid YAML: expected the node content, but found '<stream end>'; "
            "repair this line or the one above it",
        ),
    ],
)
def test_entries_that_cannot_be_removed(text: str, model_id: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        remove_entry(text, model_id)
    assert caught.value.message == message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("settings: {}\n", "the file has no list of entries; write 'models:' and one entry into it by hand"),
        ("models: text\n", "the file has no list of entries; write 'models:' and one entry into it by hand"),
        ("models: ~\n", "this file is written in a way that cannot be edited safely; edit it by hand"),
        (
            "x: [\n",
            "models.yaml:2:1: not valid YAML: expected the node content, but found '<stream end>'; "
            "repair this line or the one above it",
        ),
    ],
)
def test_files_that_cannot_be_extended(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        add_entry(text, {"model_id": "x"})
    assert caught.value.message == message


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(10**9), 10**9)
    | st.text("ab#:-'\"\n \\{}[]é|>%@!&*", max_size=12)
)
NAMES = st.text("ab#: -", min_size=1, max_size=4)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=examples(150), deadline=None)
@given(st.sampled_from([pair[0] for pair in BOTH_WAYS]), VALUES)
def test_any_entry_can_be_added_and_removed(text: str, value: object) -> None:
    entry = {"model_id": "x", "extra_body": {"v": value}}
    assert remove_entry(add_entry(text, entry), "x") == text


def test_save_replaces_the_file_and_keeps_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "models.yaml"
    save_atomic(path, "é\n")
    assert (path.read_bytes(), path.stat().st_mode & 0o777) == ("é\n".encode(), 0o600)
    path.chmod(0o640)
    link = tmp_path / "link.yaml"
    link.symlink_to(path)
    save_atomic(link, "two\n")
    assert link.is_symlink()
    assert (path.read_text(encoding="utf-8"), path.stat().st_mode & 0o777) == ("two\n", 0o640)
    assert sorted(os.listdir(tmp_path)) == ["link.yaml", "models.yaml"]


def test_a_failed_save_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / "models.yaml"
    folder.mkdir()
    with pytest.raises(ConfigError, match=r"cannot be written \(is a directory\); the old file is unchanged"):
        save_atomic(folder, "x")
    assert os.listdir(tmp_path) == ["models.yaml"]
    with pytest.raises(ConfigError, match="no such file or directory"):
        save_atomic(tmp_path / "none" / "models.yaml", "x")


def test_a_file_that_is_mounted_alone_cannot_be_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "models.yaml"
    path.write_text("old")

    def refuse(*paths: object) -> None:
        raise OSError(errno.EBUSY, "Device or resource busy")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(
        ConfigError, match=r"\(device or resource busy\); .* mount its folder instead of the file"
    ):
        save_atomic(path, "new")
    assert [each.read_text() for each in tmp_path.iterdir()] == ["old"]
