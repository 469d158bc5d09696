"""Sentences at the width of the terminal."""

from __future__ import annotations

import io

import pytest

from proxyd.cli.wrapping import wrapped

TEXT = "warning: models[0].api_key: model 'a' has no key: A_KEY is not set; run `export A_KEY=KEY` and start it again"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_lines_fit_the_terminal(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    lines = wrapped(TEXT, Terminal(), indent="  ").split("\n")
    assert all(len(line) <= columns for line in lines)
    assert " ".join(line.strip() for line in lines) == TEXT
    assert all(line.startswith("  ") for line in lines[1:])


def test_long_word_stays_whole_and_other_streams_get_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    address = "https://api.example.com/v1/chat/completions"
    assert wrapped(f"see {address} there", Terminal()).split("\n") == ["see", address, "there"]
    assert wrapped(TEXT, io.StringIO()) == TEXT
