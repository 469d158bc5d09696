"""Errors of the operating system as sentences with a remedy and an exit code."""

from __future__ import annotations

import errno

import pytest

from proxyd.cli.exit_codes import EXIT_BUG, EXIT_PERMISSIONS, failure_of_os


@pytest.mark.parametrize(
    ("number", "code", "remedy"),
    [
        (errno.EACCES, EXIT_PERMISSIONS, "check who owns it and its permissions"),
        (errno.EPERM, EXIT_PERMISSIONS, "check who owns it and its permissions"),
        (errno.EROFS, EXIT_PERMISSIONS, "set XDG_CONFIG_HOME and XDG_STATE_HOME"),
        (errno.ENOSPC, EXIT_BUG, "free some space"),
        (errno.EDQUOT, EXIT_BUG, "free some space"),
    ],
)
def test_remedies(number: int, code: int, remedy: str) -> None:
    failure = failure_of_os(OSError(number, "The Reason", "/some/file"))
    assert failure.code == code
    assert failure.message.startswith("/some/file: the reason; ")
    assert remedy in failure.message


def test_error_without_a_file_or_reason() -> None:
    assert failure_of_os(OSError(errno.EIO, "Input/output error")).message == "input/output error"
    assert failure_of_os(TimeoutError()).message == "timeouterror"
