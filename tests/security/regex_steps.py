"""Count the steps of a backtracking search, which says how a pattern's time grows without a clock.

`re` does not tell its steps, so this is a matcher of the same kind over the same syntax tree: leftmost start first,
greedy repeats first, back to the last choice on failure. `test_regular_expressions.py` holds its matches equal to those
of `re`. Upper counts are cut to `MAX_COUNT`: a bounded repeat costs a constant, and the question is growth.
"""

from __future__ import annotations

import functools
import re
import sys
from collections.abc import Callable, Iterator
from typing import Any

if sys.version_info >= (3, 11):
    from re import _constants as codes
    from re import _parser as parser
else:
    import sre_constants as codes
    import sre_parse as parser

MAX_COUNT = 8
_BREAK = "\x01"  # in no class that a key, a number or a word is made of

Next = Callable[[int], "int | None"]


class Counter:
    """One pattern over one text."""

    def __init__(self, pattern: re.Pattern[Any], text: str, limit: int = 200_000) -> None:
        self.tree = _tree(pattern)
        self.flags = pattern.flags
        self.is_bytes = isinstance(pattern.pattern, bytes)
        self.text, self.steps, self.limit = text, 0, limit
        self.groups: dict[int, tuple[int, int]] = {}
        self.has_cut = False  # an upper count

    def match(self, start: int) -> int | None:
        self.groups = {}
        return self._run(self.tree, 0, start, lambda at: at)

    def find_all(self) -> list[tuple[int, int]]:
        """As `finditer`, so that failed starts and what lies behind a match count, too."""
        found, at = [], 0
        while at <= len(self.text):
            self._step()
            end = self.match(at)
            if end is None:
                at += 1
                continue
            found.append((at, end))
            at = max(end, at + 1)
        return found

    def _step(self) -> None:
        self.steps += 1
        if self.steps > self.limit:
            raise OverflowError("too many steps")

    def _run(self, nodes: list[Any], index: int, at: int, then: Next) -> int | None:
        if index == len(nodes):
            return then(at)
        self._step()
        op, arg = nodes[index]
        following: Next = lambda end: self._run(nodes, index + 1, end, then)  # noqa: E731
        if op in (codes.MAX_REPEAT, codes.MIN_REPEAT):
            return self._repeat(op is codes.MAX_REPEAT, arg, at, following)
        if op is codes.BRANCH:
            for branch in arg[1]:
                end = self._run(list(branch), 0, at, following)
                if end is not None:
                    return end
            return None
        if op is codes.SUBPATTERN:
            group, added, removed, inner = arg
            before = self.flags
            self.flags = (self.flags | added) & ~removed

            def closed(end: int) -> int | None:
                if group is not None:
                    self.groups[group] = (at, end)
                inside, self.flags = self.flags, before
                result = following(end)
                self.flags = inside
                return result

            result = self._run(list(inner), 0, at, closed)
            self.flags = before
            return result
        if op in (codes.ASSERT, codes.ASSERT_NOT):
            direction, inner = arg
            if direction > 0:
                is_there = self._run(list(inner), 0, at, lambda end: end) is not None
            else:
                width = inner.getwidth()[0]
                is_there = (
                    at >= width
                    and self._run(list(inner), 0, at - width, lambda end: end if end == at else None)
                    is not None
                )
            return following(at) if is_there == (op is codes.ASSERT) else None
        if op is codes.AT:
            return following(at) if self._is_at(arg, at) else None
        if op is codes.GROUPREF:
            start, stop = self.groups.get(arg, (0, 0))
            word = self.text[start:stop]
            return following(at + len(word)) if self.text.startswith(word, at) else None
        return following(at + 1) if self._is_one(op, arg, at) else None

    def _repeat(self, is_greedy: bool, arg: Any, at: int, then: Next) -> int | None:
        least, most, inner = arg
        if most is codes.MAXREPEAT:
            most = None
        elif most > max(least, MAX_COUNT):
            most, self.has_cut = max(least, MAX_COUNT), True
        body = list(inner)
        if len(body) == 1 and body[0][0] in (codes.LITERAL, codes.NOT_LITERAL, codes.IN, codes.ANY):
            end = at
            while (most is None or end - at < most) and self._is_one(*body[0], end):
                self._step()
                end += 1
            ends = range(end, at + least - 1, -1) if is_greedy else range(at + least, end + 1)
            for each in ends:
                self._step()
                found = then(each)
                if found is not None:
                    return found
            return None

        def more(count: int, here: int) -> int | None:
            if most is not None and count >= most:
                return None
            return self._run(body, 0, here, lambda end: None if end == here else again(count + 1, end))

        def again(count: int, here: int) -> int | None:
            self._step()
            if count < least:
                return self._run(body, 0, here, lambda end: again(count + 1, end))
            for way in (more, lambda _, end: then(end)) if is_greedy else (lambda _, end: then(end), more):
                found = way(count, here)
                if found is not None:
                    return found
            return None

        return again(0, at)

    def _is_one(self, op: Any, arg: Any, at: int) -> bool:
        """Whether one item that is one character wide matches at `at`."""
        if at >= len(self.text):
            return False
        return _one(op, arg, self.flags, self.text[at])

    def _is_at(self, where: Any, at: int) -> bool:
        name, text = str(where), self.text
        if name == "AT_BEGINNING":
            return at == 0 or (bool(self.flags & re.MULTILINE) and text[at - 1] == "\n")
        if name == "AT_BEGINNING_STRING":
            return at == 0
        if name == "AT_END_STRING":
            return at == len(text)
        if name == "AT_END":
            return (
                at == len(text)
                or (at == len(text) - 1 and text[at] == "\n")
                or (bool(self.flags & re.MULTILINE) and text[at] == "\n")
            )
        is_word = [
            0 <= each < len(text) and (text[each].isalnum() or text[each] == "_") for each in (at - 1, at)
        ]
        return (is_word[0] != is_word[1]) == (name == "AT_BOUNDARY")


@functools.cache  # also so that the identities of its parts stay theirs
def _tree(pattern: re.Pattern[Any]) -> list[Any]:
    source = pattern.pattern
    return list(parser.parse(source if isinstance(source, str) else source.decode("latin-1"), pattern.flags))


_known: dict[tuple[Any, ...], bool] = {}


def _one(op: Any, arg: Any, flags: int, character: str) -> bool:
    """Asked of `re`, which knows all classes; `arg` is a part of a tree that is kept."""
    key = (op, arg if isinstance(arg, int) else id(arg), flags, character)
    if key not in _known:
        state = parser.State()
        state.flags = flags
        tree = parser.SubPattern(state, [(op, arg)])
        if sys.version_info >= (3, 11):
            from re import _compiler as compiler
        else:
            import sre_compile as compiler
        code = compiler._code(tree, flags)
        import _sre

        compiled = _sre.compile(None, flags, code, 0, {}, (None,))
        _known[key] = compiled.fullmatch(character) is not None
    return _known[key]


# -- worst inputs


def texts_for(pattern: re.Pattern[Any], size: int) -> Iterator[str]:
    """Texts in which each repeat of `pattern` goes on for long, begins often, and then does not find what follows."""
    seen: set[tuple[str, str]] = set()
    for before, unit in _repeats(_tree(pattern), ""):
        for repeated, ahead in ((unit, before), (before + unit, ""), (before, "")):
            if not repeated or (ahead, repeated) in seen:
                continue
            seen.add((ahead, repeated))
            pumped = ahead + (repeated * (size // len(repeated) + 1))[:size]
            yield pumped
            yield pumped + _BREAK


def _repeats(nodes: list[Any], before: str) -> Iterator[tuple[str, str]]:
    """What stands at least ahead of each repeat, or of the end, and one round of it."""
    for op, arg in nodes:
        if op in (codes.MAX_REPEAT, codes.MIN_REPEAT):
            for unit in _samples(list(arg[2])):
                yield before, unit
            yield from _repeats(list(arg[2]), before)
        elif op is codes.BRANCH:
            for branch in arg[1]:
                yield from _repeats(list(branch), before)
        elif op is codes.SUBPATTERN:
            yield from _repeats(list(arg[3]), before)
        elif op in (codes.ASSERT, codes.ASSERT_NOT):
            yield from _repeats(list(arg[1]), before)
            continue
        before += _samples([(op, arg)])[0]
    yield before, ""


def _samples(nodes: list[Any]) -> list[str]:
    """Texts that `nodes` match, short ones."""
    found = [""]
    for op, arg in nodes:
        if op is codes.LITERAL:
            ways = [chr(arg)]
        elif op is codes.NOT_LITERAL:
            ways = ["a" if arg != ord("a") else "b"]
        elif op is codes.ANY:
            ways = ["a", " "]
        elif op is codes.IN:
            ways = _of_class(arg)
        elif op in (codes.MAX_REPEAT, codes.MIN_REPEAT):
            ways = [each * max(1, arg[0]) for each in _samples(list(arg[2]))]
        elif op is codes.SUBPATTERN:
            ways = _samples(list(arg[3]))
        elif op is codes.BRANCH:
            ways = [each for branch in arg[1] for each in _samples(list(branch))[:1]]
        else:
            continue
        found = [start + way for start in found[:2] for way in ways[:6]] if ways else found
    return found[:12]


def _of_class(items: Any) -> list[str]:
    characters = "a1 -._/\"'<\\\x00"
    tests = [each for each in characters if _one(codes.IN, items, re.ASCII, each)]
    return tests or [chr(each[1]) for each in items if each[0] is codes.LITERAL][:2]
