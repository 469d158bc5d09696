"""YAML parser that keeps the position of every value.

ruamel.yaml composes the node graph. The values are built here instead of by its constructors to get positions, only
the types of JSON (no dates, sets or Python objects), faults with both lines for duplicate keys, and a limit on the
expansion of anchors.

Limits: `MAX_BYTES` for the file, `MAX_VALUES` after the expansion of anchors, `MAX_DEPTH` levels.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, ScalarNode, SequenceNode
from ruamel.yaml.nodes import Node as RawNode
from ruamel.yaml.reader import ReaderError

from proxyd.config.faults import Faults, short

__all__ = ["MAX_BYTES", "MAX_DEPTH", "MAX_VALUES", "Node", "compose", "read_tree"]

#: Largest file. ruamel.yaml's pure reader takes about 10 s for a megabyte (measured), too long for a reload; an entry
#: with comments is some 300 bytes, so this is enough for more than a thousand.
MAX_BYTES = 512 * 1024
#: Most values after the expansion of anchors: ten lines of ``&a [*b, *b]`` would become gigabytes in a request.
MAX_VALUES = 50_000
#: Deepest nesting; a request may nest 256 levels (docs/spec/operations.md#c3), of which ``extra_body`` is a part.
MAX_DEPTH = 64

#: ``${NAME}`` and ``${file:PATH}``, of which braces would end a text within ``[…]`` and ``{…}``. They are replaced by
#: characters of the same width for the parser, so that references need no quotes there.
_REFERENCE = re.compile(r"\$\{([^{}\[\],'\"#\n]*)\}")
_OPEN, _CLOSE = "\U000f0000", "\U000f0001"
_REPLACED = re.compile(rf"\${_OPEN}([^{_OPEN}{_CLOSE}]*){_CLOSE}")

_INT = re.compile(r"[-+]?(?:0o[0-7]+|0x[0-9a-fA-F]+|[0-9]+(?:_[0-9]+)*)")
_TRUE = frozenset({"true", "yes", "on", "y"})
_FALSE = frozenset({"false", "no", "off", "n"})


@dataclass(frozen=True, slots=True)
class Node:
    """One value and its position (line and column from 1).

    ``value`` is None, bool, int, float, str, a list of `Node`, or a dict of `Node` by key; ``keys`` holds the
    positions of a dict's keys.
    """

    line: int
    column: int
    value: Any
    keys: dict[str, tuple[int, int]] = field(default_factory=dict)
    #: Number of values in it, itself included, with anchors expanded.
    size: int = 1
    #: This value or one in it could not be read. The fault is reported already; readers do not report it again.
    is_broken: bool = False

    def plain(self) -> Any:
        """Return the value without positions, as JSON types."""
        if isinstance(self.value, list):
            return [item.plain() for item in self.value]
        if isinstance(self.value, dict):
            return {key: item.plain() for key, item in self.value.items()}
        return self.value

    def place(self, path: Sequence[str | int], *, on_key: bool = False) -> tuple[int, int]:
        """Return line and column of the value at `path`, or of its key; of the nearest ancestor that exists."""
        node = self
        for depth, step in enumerate(path):
            if isinstance(node.value, dict) and step in node.value:
                if on_key and depth == len(path) - 1:
                    return node.keys[str(step)]
                node = node.value[step]
            elif isinstance(node.value, list) and isinstance(step, int) and step < len(node.value):
                node = node.value[step]
            else:
                break
        return node.line, node.column


def compose(text: str, faults: Faults) -> RawNode | None:
    """Return the node graph of `text`, or None for an empty document or after a reported syntax fault."""
    yaml = YAML(typ="safe", pure=True)
    # An anchor may be redefined (YAML 1.2.2, 7.1); ruamel.yaml would issue a Python warning.
    yaml.composer.warn_double_anchors = False
    text = _REFERENCE.sub(rf"${_OPEN}\1{_CLOSE}", text)
    try:
        node: RawNode | None = yaml.compose(text)
    except MarkedYAMLError as exc:
        mark = exc.problem_mark or exc.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark is not None else (1, 1)
        problem = (exc.problem or exc.context or "cannot be understood").strip()
        if r"'\t'" in problem:
            problem = "a tab, where YAML wants blanks"
        faults.add(line, column, "", f"not valid YAML: {problem}; repair this line or the one above it")
    except ReaderError as exc:
        before = text[: exc.position]
        line, column = before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1
        faults.add(line, column, "", "not valid YAML: a control character, which YAML forbids; remove it")
    except RecursionError:
        faults.add(1, 1, "", f"nested deeper than {MAX_DEPTH} levels; flatten it")
    except (YAMLError, ValueError, LookupError, AssertionError):
        # ruamel.yaml 0.19.1 raises Python's own errors for an unknown version ("%YAML 1.9") and an escape beyond
        # Unicode ("\\U00110000"); found by random texts, 2026-11.
        problem = "a directive or an escape that cannot be understood"
        faults.add(1, 1, "", f"not valid YAML: {problem}; remove '%YAML' and check backslashes")
    else:
        return node
    return None


def _text_of(raw: RawNode) -> str:
    """Return the text of a scalar as it is in the file."""
    return _REPLACED.sub(r"${\1}", str(raw.value))


def read_tree(text: str, faults: Faults) -> Node | None:
    """Return the tree of `text`; None if it is empty or not YAML. Faults are reported to `faults`."""
    if len(text.encode("utf-8", "surrogatepass")) > MAX_BYTES:
        faults.add(0, 0, "", f"larger than {MAX_BYTES // 1024} KiB; a models.yaml is a few")
        return None
    raw = compose(text, faults)
    return None if raw is None else _Builder(faults).build(raw, 0)


class _Builder:
    def __init__(self, faults: Faults) -> None:
        self._faults = faults
        self._done: dict[int, Node] = {}
        self._open: set[int] = set()
        self._has_overflowed = False

    def build(self, raw: RawNode, depth: int) -> Node:
        """Return `raw` as a `Node`; a value that cannot be built is reported and becomes a null."""
        if id(raw) in self._done:
            return self._done[id(raw)]
        if id(raw) in self._open:
            return self._fault(raw, "an anchor that contains itself; write the value out")
        if depth > MAX_DEPTH:
            return self._fault(raw, f"nested deeper than {MAX_DEPTH} levels; flatten it")
        self._open.add(id(raw))
        if isinstance(raw, MappingNode):
            node = self._mapping(raw, depth)
        elif isinstance(raw, SequenceNode):
            items = [self.build(child, depth + 1) for child in raw.value]
            node = self._node(raw, items)
            if not str(raw.tag).endswith(":seq"):
                node = self._fault(raw, f"the tag {_short_tag(raw)} is not supported; remove it")
        else:
            node = self._scalar(raw)
        self._open.discard(id(raw))
        if node.size > MAX_VALUES:
            if not self._has_overflowed:
                self._has_overflowed = True
                self._faults.add(
                    node.line, node.column, "", f"anchors expand to more than {MAX_VALUES} values"
                )
            node = replace(node, value=None, size=1, is_broken=True)
        self._done[id(raw)] = node
        return node

    def _mapping(self, raw: MappingNode, depth: int) -> Node:
        if not str(raw.tag).endswith(":map"):
            return self._fault(raw, f"the tag {_short_tag(raw)} is not supported; remove it")
        own: dict[str, Node] = {}
        merged: dict[str, Node] = {}
        keys: dict[str, tuple[int, int]] = {}
        for raw_key, raw_value in raw.value:
            line, column = _mark(raw_key)
            if str(raw_key.tag).endswith(":merge"):
                for source in self._merge_sources(raw_value, depth):
                    for name, value in source.value.items():
                        merged.setdefault(name, value)
                        keys.setdefault(name, source.keys[name])
                continue
            if not isinstance(raw_key, ScalarNode):
                self._faults.add(line, column, "", "a list or mapping as a key; keys are texts")
                continue
            name = _text_of(raw_key)
            if name in own:
                first = keys[name][0]
                self._faults.add(
                    line, column, "", f"the key '{short(name)}' stands here and on line {first}; keep one"
                )
                continue
            value = self.build(raw_value, depth + 1)
            if value.value is None and raw_value.start_mark.index == raw_value.end_mark.index:
                # An empty value has no position of its own: the parser reports that of the next token.
                value = replace(value, line=line, column=column)
            own[name] = value
            keys[name] = (line, column)
        values = {**merged, **own}
        return self._node(raw, values, keys)

    def _merge_sources(self, raw: RawNode, depth: int) -> Iterator[Node]:
        """Yield the mappings after ``<<:``, one or a list of them."""
        for child in raw.value if isinstance(raw, SequenceNode) else [raw]:
            node = self.build(child, depth + 1)
            if isinstance(node.value, dict):
                yield node
            else:
                self._faults.add(node.line, node.column, "", "'<<' takes a mapping or a list of mappings")

    def _scalar(self, raw: RawNode) -> Node:
        text = _text_of(raw)
        kind = str(raw.tag).rpartition(":")[2]
        if not str(raw.tag).startswith("tag:yaml.org,2002:"):
            kind = "unknown"
        value: Any = None
        # JSON has no dates: 2020-01-01 stays a text.
        if kind in ("str", "timestamp", "value", "merge"):
            value = text
        elif kind == "bool":
            value = _bool(text)
        elif kind == "int":
            value = _int(text)
        elif kind == "float":
            value = _float(text)
        elif kind != "null":
            return self._fault(raw, f"the tag {_short_tag(raw)} is not supported; remove it")
        if value is None and kind != "null":
            return self._fault(
                raw, f"not a number, or not true or false, although YAML reads it as {kind}; quote it"
            )
        return self._node(raw, value)

    def _node(self, raw: RawNode, value: Any, keys: dict[str, tuple[int, int]] | None = None) -> Node:
        line, column = _mark(raw)
        children: list[Node] = value if isinstance(value, list) else []
        if isinstance(value, dict):
            children = list(value.values())
        size = 1 + sum(child.size for child in children)
        is_broken = any(child.is_broken for child in children)
        return Node(line, column, value, keys or {}, size, is_broken)

    def _fault(self, raw: RawNode, text: str) -> Node:
        line, column = _mark(raw)
        self._faults.add(line, column, "", text)
        return Node(line, column, None, is_broken=True)


def _mark(raw: RawNode) -> tuple[int, int]:
    return raw.start_mark.line + 1, raw.start_mark.column + 1


def _short_tag(raw: RawNode) -> str:
    return str(raw.tag).replace("tag:yaml.org,2002:", "!!")[:40]


def _bool(text: str) -> bool | None:
    folded = text.lower()
    return True if folded in _TRUE else False if folded in _FALSE else None


def _int(text: str) -> int | None:
    # int() raises for thousands of digits.
    if len(text) > 40 or not _INT.fullmatch(text):
        return None
    digits = text.lstrip("+-").replace("_", "")
    # YAML 1.2: a leading zero does not make a number octal.
    number = int(digits, 0) if digits[:2] in ("0o", "0x") else int(digits)
    return -number if text.startswith("-") else number


def _float(text: str) -> float | None:
    try:
        number = float(text.replace("_", ""))
    except ValueError:
        return None
    return number if math.isfinite(number) else None
