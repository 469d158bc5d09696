"""Count the steps of a backtracking search, which says how a pattern's time grows without a clock.

`re` does not tell its steps, so this is a matcher of the same kind over the same syntax tree: leftmost start first,
greedy repeats first, back to the last choice on failure. `test_regular_expressions.py` holds its matches equal to those
of `re`. Upper counts are cut to `MAX_COUNT`: a bounded repeat costs a constant, and the question is growth.
"""

from __future__ import annotations

import functools
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

if sys.version_info >= (3, 11):
    from re import _constants as codes
    from re import _parser as parser
else:
    import sre_constants as codes
    import sre_parse as parser

MAX_COUNT = 8
_BREAK = "\x01"  # in no class that a key, a number or a word is made of

#: The rest of a pattern from a position: where the match ends, or None.
Next = Callable[[int], "int | None"]


class _State:
    """What the functions of one program share.

    Attributes:
        steps, limit: of the text that is matched now, and the most that are allowed.
        has_cut: an upper count was cut.
        groups: where each group has matched.
    """

    def __init__(self) -> None:
        self._stacks: list[list[Any]] = []
        self.begin("", 0)

    def begin(self, text: str, limit: int) -> None:
        self.text, self.size, self.limit = text, len(text), limit
        self.steps, self.has_cut = 0, False
        self.groups: dict[int, tuple[int, int]] = {}
        for each in self._stacks:
            each.clear()  # an overflow leaves them as they are

    def stack(self) -> list[Any]:
        """Make a stack for the groups that one node has open."""
        self._stacks.append([])
        return self._stacks[-1]

    def step(self, count: int = 1) -> None:
        """Count steps.

        Raises:
            OverflowError: there were more than the limit.
        """
        self.steps += count
        if self.steps > self.limit:
            raise OverflowError("too many steps")


class Counter:
    """One pattern over one text.

    Attributes:
        steps: that the last call took.
        has_cut: an upper count was cut in it.
    """

    def __init__(self, pattern: re.Pattern[Any], text: str, limit: int = 200_000) -> None:
        self._match, self._state = _program(pattern)
        self._text, self._limit = text, limit
        self.steps, self.has_cut = 0, False

    def match(self, start: int) -> int | None:
        """Return where the match ends that begins at `start`."""
        with self._counted():
            return self._match(start)

    def find_all(self) -> list[tuple[int, int]]:
        """As `finditer`, so that failed starts and what lies behind a match count, too."""
        found, at = [], 0
        with self._counted():
            first = _first(self._match)
            while at <= len(self._text):
                if first is not None and at < len(self._text) and not first[self._text[at]]:
                    self._state.step(2)
                    at += 1
                    continue
                self._state.step()
                end = self._match(at)
                if end is None:
                    at += 1
                    continue
                found.append((at, end))
                at = max(end, at + 1)
        return found

    @contextmanager
    def _counted(self) -> Iterator[None]:
        self._state.begin(self._text, self._limit)
        try:
            yield
        finally:
            self.steps, self.has_cut = self._state.steps, self._state.has_cut


@functools.cache
def _program(pattern: re.Pattern[Any]) -> tuple[Next, _State]:
    """Build the functions that match `pattern`, one for each node of its tree, and their state."""
    state = _State()
    return _sequence(_tree(pattern), pattern.flags, state, lambda at: at), state


_ONE = (codes.LITERAL, codes.NOT_LITERAL, codes.IN, codes.ANY)


def _sequence(nodes: Sequence[Any], flags: int, state: _State, then: Next) -> Next:
    """Match `nodes`, then the rest. Each node is a step."""
    nodes = list(nodes)
    while nodes:
        ones: list[_Characters] = []
        while nodes and nodes[-1][0] in _ONE:
            ones.insert(0, _Characters(*nodes.pop(), flags))
        then = _characters(ones, state, then) if ones else _node(*nodes.pop(), flags, state, then)
    return then


class _Characters(dict[str, bool]):
    """Whether a node that is one character wide matches a character."""

    def __init__(self, op: Any, arg: Any, flags: int) -> None:
        self._node = op, arg, flags

    def __missing__(self, character: str) -> bool:
        self[character] = found = _one(*self._node, character)
        return found


def _characters(ones: list[_Characters], state: _State, then: Next) -> Next:
    def match(at: int) -> int | None:
        text, size, steps = state.text, state.size, 0
        for one in ones:
            steps += 1
            if at >= size or not one[text[at]]:
                state.step(steps)
                return None
            at += 1
        state.step(steps)
        return then(at)

    match.first = ones[0]  # type: ignore[attr-defined]
    return match


def _first(match: Next) -> _Characters | None:
    """Return what the first character must be, where one must be: asking for it is cheaper than a call."""
    return getattr(match, "first", None)


def _node(op: Any, arg: Any, flags: int, state: _State, then: Next) -> Next:
    """Match a node that is more than one character, or none."""
    if op in (codes.MAX_REPEAT, codes.MIN_REPEAT):
        least, most, inner = arg
        is_cut = most is not codes.MAXREPEAT and most > max(least, MAX_COUNT)
        bounds = least, None if most is codes.MAXREPEAT else max(least, MAX_COUNT) if is_cut else most
        is_one = len(inner) == 1 and inner[0][0] in _ONE
        return (_repeat_one if is_one else _repeat)(
            inner, bounds, op is codes.MAX_REPEAT, is_cut, flags, state, then
        )
    if op is codes.BRANCH:
        sequences = [_sequence(branch, flags, state, then) for branch in arg[1]]
        branches = [(branch, _first(branch)) for branch in sequences]

        def match(at: int) -> int | None:
            state.step()
            character = state.text[at] if at < state.size else ""
            for branch, first in branches:
                if first is not None and not (character and first[character]):
                    state.step()
                    continue
                end = branch(at)
                if end is not None:
                    return end
            return None

    elif op is codes.SUBPATTERN:
        group, added, removed, inner = arg
        starts: list[int] = state.stack()

        def close(end: int) -> int | None:
            start = starts.pop()
            if group is not None:
                state.groups[group] = start, end
            found = then(end)
            starts.append(start)
            return found

        body = _sequence(inner, (flags | added) & ~removed, state, close)

        def match(at: int) -> int | None:
            state.step()
            starts.append(at)
            found = body(at)
            starts.pop()
            return found

    elif op in (codes.ASSERT, codes.ASSERT_NOT):
        direction, inner = arg
        width = inner.getwidth()[0] if direction < 0 else 0
        is_there = _sequence(inner, flags, state, lambda end: end)

        def match(at: int) -> int | None:
            state.step()
            found = at >= width and is_there(at - width) is not None
            return then(at) if found == (op is codes.ASSERT) else None

    elif op is codes.AT:

        def match(at: int) -> int | None:
            state.step()
            return then(at) if _is_at(str(arg), at, state.text, flags) else None

    else:
        assert op is codes.GROUPREF, f"{op} is not counted yet"

        def match(at: int) -> int | None:
            state.step()
            start, stop = state.groups.get(arg, (0, 0))
            word = state.text[start:stop]
            return then(at + len(word)) if state.text.startswith(word, at) else None

    return match


def _repeat_one(
    inner: Any,
    bounds: tuple[int, int | None],
    is_greedy: bool,
    is_cut: bool,
    flags: int,
    state: _State,
    then: Next,
) -> Next:
    """Repeat a node that is one character wide."""
    one, first = _Characters(*inner[0], flags), _first(then)
    least, most = bounds

    def match(at: int) -> int | None:
        text, end = state.text, at
        stop = state.size if most is None else min(state.size, at + most)
        state.has_cut |= is_cut
        while end < stop and one[text[end]]:
            end += 1
        state.step(1 + end - at)
        for each in range(end, at + least - 1, -1) if is_greedy else range(at + least, end + 1):
            if first is not None and each < state.size and not first[text[each]]:
                state.step(2)
                continue
            state.step()
            found = then(each)
            if found is not None:
                return found
        return None

    return match


def _repeat(
    inner: Any,
    bounds: tuple[int, int | None],
    is_greedy: bool,
    is_cut: bool,
    flags: int,
    state: _State,
    then: Next,
) -> Next:
    """Repeat a group."""
    least, most = bounds
    rounds: list[tuple[int, int]] = state.stack()  # those that are open: their number and where they began

    def more(count: int, here: int) -> int | None:
        if most is not None and count >= most:
            return None
        rounds.append((count, here))
        found = body(here)
        rounds.pop()
        return found

    def end_round(end: int) -> int | None:
        count, here = rounds.pop()
        # A round that must be is allowed to be empty.
        found = None if end == here and count >= least else again(count + 1, end)
        rounds.append((count, here))
        return found

    body = _sequence(inner, flags, state, end_round)

    def again(count: int, here: int) -> int | None:
        state.step()
        if count < least:
            return more(count, here)
        if is_greedy:
            found = more(count, here)
            return then(here) if found is None else found
        found = then(here)
        return more(count, here) if found is None else found

    def match(at: int) -> int | None:
        state.has_cut |= is_cut
        state.step()
        return again(0, at)

    return match


def _is_at(name: str, at: int, text: str, flags: int) -> bool:
    if name == "AT_BEGINNING":
        return at == 0 or (bool(flags & re.MULTILINE) and text[at - 1] == "\n")
    if name == "AT_BEGINNING_STRING":
        return at == 0
    if name == "AT_END_STRING":
        return at == len(text)
    if name == "AT_END":
        return (
            at == len(text)
            or (at == len(text) - 1 and text[at] == "\n")
            or (bool(flags & re.MULTILINE) and text[at] == "\n")
        )
    is_word = [0 <= each < len(text) and (text[each].isalnum() or text[each] == "_") for each in (at - 1, at)]
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
