"""The code blocks of the documents, by their language."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.support.paths import ROOT

__all__ = ["Block", "blocks", "commands_in", "documents"]

_FENCE = re.compile(r"^( *)```([a-z]*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block: where it begins, its language and its text."""

    page: str
    line: int
    language: str
    text: str

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}"


def documents() -> list[Path]:
    """The documents for users and contributors; the specification is prose about protocols."""
    return [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]


def blocks(*languages: str) -> list[Block]:
    """All blocks of these languages."""
    found = []
    for path in documents():
        text = path.read_text(encoding="utf-8")
        for match in _FENCE.finditer(text):
            if match[2] in languages:
                body = "".join(line.removeprefix(match[1]) for line in match[3].splitlines(keepends=True))
                found.append(
                    Block(str(path.relative_to(ROOT)), text.count("\n", 0, match.start()) + 1, match[2], body)
                )
    return found


def commands_in(text: str) -> Iterator[list[str]]:
    """The simple commands of a shell script, as words: lines, pipes, lists and substitutions are taken apart."""
    lexer = shlex.shlex(re.sub(r"\\\n", " ", text), posix=True, punctuation_chars="|&;()<>\n")
    lexer.whitespace = " \t"
    lexer.whitespace_split = True
    lexer.commenters = ""
    words: list[str] = []
    is_comment = False
    for word in [*lexer, "\n"]:
        if set(word) <= set("|&;()\n"):
            if is_comment and "\n" not in word:
                continue
            if words:
                yield _without_variables(words)
            is_comment, words = False, []
        elif word.startswith("#") or is_comment:
            is_comment = True
        else:
            words.append(word)


def _without_variables(words: list[str]) -> list[str]:
    """Without ``NAME=value`` in front, and redirections at the end."""
    while words and re.match(r"[A-Za-z_]\w*=", words[0]):
        words = words[1:]
    for index, word in enumerate(words):
        if set(word) <= set("<>"):
            return words[:index]
    return words
