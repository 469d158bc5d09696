"""Variables and permissions of the file ``env``."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxyd.config.envfile import fault_of_env_file, with_env_file
from proxyd.errors import ConfigError


def write(folder: Path, text: str | bytes, mode: int = 0o600) -> Path:
    path = folder / "env"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    path.chmod(mode)
    return path


def test_no_file(tmp_path: Path) -> None:
    assert with_env_file(tmp_path, {"A": "1"}) == {"A": "1"}
    assert fault_of_env_file(tmp_path) is None


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("A=1", {"A": "1"}),
        ("export A = 1", {"A": "1"}),
        ("A='x y'", {"A": "x y"}),
        ('A="x=y"', {"A": "x=y"}),
        ("A='", {"A": "'"}),
        ("A=", {"A": ""}),
        ("# A=1\n; B=2\n\n", {}),
    ],
)
def test_lines(tmp_path: Path, line: str, expected: dict[str, str]) -> None:
    write(tmp_path, line)
    assert with_env_file(tmp_path, {}) == expected


def test_environment_takes_precedence(tmp_path: Path) -> None:
    write(tmp_path, "A=1\nB=2\n")
    assert with_env_file(tmp_path, {"A": "0"}) == {"A": "0", "B": "2"}


def test_invalid_lines_are_named_without_their_text(tmp_path: Path) -> None:
    path = write(tmp_path, "sk-secret\nA=1\n9=x\n")
    with pytest.raises(ConfigError) as caught:
        with_env_file(tmp_path, {})
    assert caught.value.message == f"{path}:1: expected KEY=value\n{path}:3: expected KEY=value"


def test_file_that_is_not_utf8(tmp_path: Path) -> None:
    write(tmp_path, b"A=\xff\n")
    with pytest.raises(ConfigError, match="expected UTF-8"):
        with_env_file(tmp_path, {})


@pytest.mark.parametrize(
    ("mode", "verb"), [(0o600, None), (0o640, "read"), (0o604, "read"), (0o620, "change")]
)
def test_permissions(tmp_path: Path, mode: int, verb: str | None) -> None:
    path = write(tmp_path, "A=1", mode)
    expected = None if verb is None else f"{path}: others can {verb} this file; run 'chmod 600 {path}'"
    assert fault_of_env_file(tmp_path) == expected
