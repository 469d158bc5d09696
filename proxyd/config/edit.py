"""Adding and removing entries of models.yaml without changing anything else in it.

The text is edited at the positions that the YAML parser reports and never dumped again: comments, order, quoting and
indentation of all other entries stay byte for byte. Each result is parsed and compared with the expected content, so
that unforeseen YAML leads to an error instead of a damaged file.
"""

from __future__ import annotations

import errno
import io
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from proxyd.config.faults import Faults, hint, shown
from proxyd.config.yaml import compose, read_tree
from proxyd.errors import ConfigError
from proxyd.jsonio import dump_text

__all__ = ["add_entry", "remove_entry", "save_atomic"]

#: Indentation of a new list below ``models:``, as in the example file.
_INDENT = 2
#: Name of the file in messages; the text has no path yet.
_FILE = "models.yaml"


def add_entry(text: str, entry: Mapping[str, Any], comment: Sequence[str] = ()) -> str:
    """Return `text` with `entry` after the last one; an empty text becomes a list of one.

    The caller validates the result with `proxyd.config.models.load_text` before it is saved.

    Args:
        comment: lines above the entry, without their ``#``; a list in flow style has no room for them.

    Raises:
        ConfigError: the text is not YAML, has no list of entries, or has one that cannot be extended.
    """
    new = dict(entry)
    newline = "\r\n" if "\r\n" in text else "\n"
    before = _plain(text)
    if before is None:
        return _checked(_with_line_end(text) + _block(new, 0, newline, comment), [new])
    models = _models(text)
    if models is None or not isinstance(_entries(before), (list, type(None))):
        raise ConfigError("the file has no list of entries; write 'models:' and one entry into it by hand")
    expected = _replaced(before, [*(_entries(before) or []), new])
    if not isinstance(models, SequenceNode):  # ``models:`` with nothing below it
        end = _line_end(text, _models_key_end(text))
        return _checked(
            _with_line_end(text[:end]) + _block(new, _INDENT, newline, comment) + text[end:], expected
        )
    if models.flow_style:
        closing = models.end_mark.index - 1
        head = text[:closing].rstrip().rstrip(",")
        comma = ", " if models.value else ""
        return _checked(head + comma + dump_text(new) + text[closing:], expected)
    end = _item_end(text, models, len(models.value) - 1)
    # Entries separated by blank lines stay separated.
    gap = newline if _has_gap(text, models) else ""
    return _checked(
        _with_line_end(text[:end])
        + gap
        + _block(new, models.start_mark.column, newline, comment)
        + text[end:],
        expected,
    )


def remove_entry(text: str, model_id: str) -> str:
    """Return `text` without the entry of that id and the comment lines directly above it.

    Raises:
        ConfigError: there is no such entry, it is the only one, or others use its anchors.
    """
    before = _plain(text)
    models = _models(text)
    entries = _entries(before)
    listed = entries if isinstance(entries, list) else []
    ids = [item.get("model_id") if isinstance(item, dict) else None for item in listed]
    if not isinstance(models, SequenceNode) or model_id not in ids:
        known = [name for name in ids if isinstance(name, str)]
        raise ConfigError(f"no entry has the model_id {shown(model_id)}; {hint(model_id, known)}")
    if len(ids) == 1:
        raise ConfigError(
            f"{shown(model_id)} is the only entry, and a models.yaml needs one; add another first"
        )
    index, last = ids.index(model_id), len(ids) - 1
    if models.flow_style:
        if index < last:
            start, end = models.value[index].start_mark.index, models.value[index + 1].start_mark.index
        else:
            start, end = models.value[index - 1].end_mark.index, models.value[index].end_mark.index
    else:
        floor = _item_end(text, models, index - 1) if index else 0
        start = _with_comments(text, _dash_line(text, models, index), floor)
        end = _item_end(text, models, index)
        if index < last:
            end = _skip_blank_lines(text, end)
        else:
            start = max(floor, len(_with_line_end(text[:start].rstrip())))
    return _checked(text[:start] + text[end:], _replaced(before, listed[:index] + listed[index + 1 :]))


def save_atomic(path: Path, text: str, *, is_private: bool = False) -> None:
    """Replace `path` atomically, so that a daemon that reloads sees the old file or the new one.

    The mode is kept; a new file has mode 0600, because it may hold keys. A symbolic link is kept, and the file it leads
    to is replaced.

    Args:
        is_private: the mode becomes 0600 in any case.

    Raises:
        ConfigError: the file cannot be written; the old file is unchanged.
    """
    real = Path(os.path.realpath(path))
    temporary: str | None = None
    try:
        mode = real.stat().st_mode & 0o7777 if real.exists() and not is_private else 0o600
        handle, temporary = tempfile.mkstemp(prefix=f".{real.name}.", dir=real.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, mode)
        os.replace(temporary, real)
        temporary = None
    except OSError as exc:
        reason = (exc.strerror or "unknown reason").lower()
        remedy = ""
        if exc.errno == errno.EBUSY:  # a file that is a mount point, as in a container, cannot be replaced
            remedy = "; mount its folder instead of the file alone"
        raise ConfigError(
            f"{path}: cannot be written ({reason}); the old file is unchanged{remedy}"
        ) from None
    finally:  # after Ctrl-C too
        if temporary is not None and os.path.exists(temporary):
            os.unlink(temporary)


def _models(text: str) -> Node | None:
    """Return the node of the list of entries: the whole document, or the value of ``models``."""
    root = compose(text, Faults(_FILE))
    if not isinstance(root, MappingNode):
        return root
    for key, value in root.value:
        if isinstance(key, ScalarNode) and key.value == "models":
            found: Node = value
            return found
    return None


def _models_key_end(text: str) -> int:
    """Return the index after the key ``models``; an empty value has no position of its own."""
    root = compose(text, Faults(_FILE))
    pairs = root.value if isinstance(root, MappingNode) else []
    return next((key.end_mark.index for key, _ in pairs if key.value == "models"), len(text))


def _plain(text: str) -> Any:
    """Return the whole document as plain data; None if it is empty.

    Raises:
        ConfigError: it is not YAML, or has values that models.yaml cannot hold.
    """
    faults = Faults(_FILE)
    tree = read_tree(text, faults)
    faults.raise_if_any()
    return None if tree is None else tree.plain()


def _entries(document: Any) -> Any:
    return document.get("models") if isinstance(document, dict) else document


def _replaced(document: Any, entries: list[Any]) -> Any:
    return {**document, "models": entries} if isinstance(document, dict) else entries


def _checked(text: str, expected: Any) -> str:
    """Return `text` if its content is `expected`; otherwise raise `ConfigError`."""
    try:
        found = _plain(text)
    except ConfigError:
        found = None
    if found != expected:
        raise ConfigError("this file is written in a way that cannot be edited safely; edit it by hand")
    return text


def _block(entry: dict[str, Any], column: int, newline: str, comment: Sequence[str]) -> str:
    """Return `entry` as a list item in block style with its dash at `column`, below the lines of `comment`."""
    yaml = YAML()
    yaml.width = 1 << 16  # a folded line would need its own indentation
    out = io.StringIO()
    yaml.dump([entry], out)
    lines = [*(f"# {line}" for line in comment), *out.getvalue().removesuffix("\n").split("\n")]
    return "".join(" " * column + line + newline for line in lines)


def _line_start(text: str, index: int) -> int:
    return text.rfind("\n", 0, index) + 1


def _line_end(text: str, index: int) -> int:
    """Return the index after the next line break, or the end of the text."""
    found = text.find("\n", index)
    return len(text) if found < 0 else found + 1


def _with_line_end(text: str) -> str:
    return text if not text or text.endswith("\n") else text + "\n"


def _dash_line(text: str, models: SequenceNode, index: int) -> int:
    """Return the start of the line of an item's dash; comments may separate a dash from its item."""
    column = models.start_mark.column
    line = _line_start(text, models.value[index].start_mark.index)
    while line > 0 and text[line + column : line + column + 1] != "-":
        line = _line_start(text, line - 1)
    return line


def _item_end(text: str, models: SequenceNode, index: int) -> int:
    """Return the index after the last line that holds a value of an item.

    The end mark of a block is at the next token, after comments that belong to the next item. The search goes back from
    there, but not into a value, since a line of a literal text may look like a comment. The end of the last value is no
    substitute: for an alias the parser reports the position of its anchor.
    """
    node: Node = models.value[index]
    while isinstance(node, (SequenceNode, MappingNode)) and not node.flow_style and node.value:
        last = node.value[-1]
        node = last[1] if isinstance(last, tuple) else last
    floor = 0
    if node.end_mark.index > node.start_mark.index:  # an empty value has no position of its own
        floor = _line_end(text, len(text[: node.end_mark.index].rstrip()) - 1)
    if index + 1 < len(models.value):
        end = _dash_line(text, models, index + 1)
    else:
        end = models.end_mark.index
        end = _line_start(text, end) if end < len(text) else end
    while end > floor:
        above = _line_start(text, end - 1)
        line = text[above:end].strip()
        if line and not line.startswith("#"):
            break
        end = above
    end = max(end, floor)
    # Comments that are indented like the item belong to it.
    inside = " " * (models.start_mark.column + 1)
    while text.startswith(inside, end) and text[end : _line_end(text, end)].lstrip().startswith("#"):
        end = _line_end(text, end)
    return end


def _skip_blank_lines(text: str, start: int) -> int:
    while start < len(text) and not text[start : _line_end(text, start)].strip():
        start = _line_end(text, start)
    return start


def _with_comments(text: str, start: int, floor: int) -> int:
    """Return `start` moved up over the comment lines directly above it, at most to `floor`.

    Comments at the start of the file stay: they describe the file, even where no blank line follows them.
    """
    first = start
    while first > floor:
        above = _line_start(text, first - 1)
        if not text[above:first].lstrip().startswith("#"):
            return first
        first = above
    return first if floor else start


def _has_gap(text: str, models: SequenceNode) -> bool:
    """Whether a blank line separates the last two entries."""
    if len(models.value) < 2:
        return False
    last = len(models.value) - 1
    begin, end = _dash_line(text, models, last - 1), _dash_line(text, models, last)
    return any(not line.strip() for line in text[begin:end].splitlines())
