"""Compares what two versions of Claude Code sent, and words the differences.

Both versions held the same conversations. Headers, betas and fields are compared as sets of facts, each with the kinds
of calls that it was seen in; texts of the system prompt and tools are compared line by line.
"""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from proxyd.codecs.cache.tool_inputs import ToolInputs
from proxyd.codecs.openai.request import RequestOptions, to_openai_request
from proxyd.errors import ProxyError
from proxyd.providers.registry import PROFILES, dialect_for
from proxyd.replay.diff import differences
from proxyd.server_tools.context_edits import apply_edits
from tests.captures.filler import KEPT
from tests.client_diff.calls import Call, Calls

__all__ = ["report"]

#: Lines of a text that are shown, and characters of each.
_MAX_LINES, _MAX_CHARS = 12, 160
#: What varies from call to call and from run to run.
_UUID = (re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"), "<uuid>")
_VARYING_IN_HEADERS = (
    _UUID,
    (re.compile(r"\bclaude-cli/[\w.-]+"), "claude-cli/<version>"),
    (re.compile(r"=\d+\b"), "=<n>"),
    (re.compile(r"\b[0-9a-f]{16,64}\b"), "<hex>"),
)
_VARYING = (
    _UUID,
    (re.compile(r"\b\d+\.\d+\.\d+(?:\.\w+)?\b"), "<version>"),
    (re.compile(r"/[\w./-]*(?:client-diff|proxyd-e2e)[\w./-]*"), "<folder>"),
    (re.compile(r"\b\d{4}-\d\d-\d\d\b"), "<date>"),
    (re.compile(r"\b(?=[0-9a-f]*\d)[0-9a-f]{3,64}\b"), "<hex>"),
)
#: Beginning of an id that the recorder or the client makes up.
_ID = re.compile(r"(?:toolu|msg|call|req|srvtoolu)_\w+")
#: Headers whose values say nothing about the client.
_HEADERS_OF_THE_CALL = frozenset({"host", "content-length", "connection"})
#: A date in a beta is part of its name.
_BETAS = "anthropic-beta"

#: A fact -> the kinds of calls that it was seen in.
Facts = dict[str, set[str]]


def report(old: Calls, new: Calls) -> str:
    """Return the differences as text, a section for each subject."""
    both = {call.conversation for call in old.calls} & {call.conversation for call in new.calls}
    then = [call for call in old.calls if call.conversation in both]
    now = [call for call in new.calls if call.conversation in both]
    sections = {
        "headers": _compared(then, now, _headers),
        "betas": _compared(then, now, _betas),
        "fields": _compared(then, now, _fields),
        "tools": _tools(then, now),
        "system blocks": _texts(then, now, _system_blocks),
        "system messages": _texts(then, now, _system_messages),
        "side calls": _side_calls(then, now),
        "requests that the proxy has no endpoint for": [
            *(f"- {each}" for each in sorted(old.refused - new.refused)),
            *(f"+ {each}" for each in sorted(new.refused - old.refused)),
        ],
        "what translation drops or alters": _compared(then, now, _notes),
    }
    compared = {
        "headers": _facts(now, _headers),
        "betas": _facts(now, _betas),
        "fields": _facts(now, _fields),
        "tools": _definitions(now),
    }
    lines = [
        f"Claude Code {old.version} -> {new.version}: {len(then)} and {len(now)} calls in {len(both)} conversations",
        f"calls: {_shown(Counter(call.kind for call in now))}",
        "compared: " + ", ".join(f"{len(facts)} {name}" for name, facts in compared.items()),
        "",
    ]
    for name, found in sections.items():
        lines += [name, *(f"  {line}" for line in found or ["no change"]), ""]
    lines += [f"what translation drops or alters of {new.version}, all of it"]
    lines += [f"  {fact}" for fact in sorted(_facts(now, _notes))]
    lines += ["", *(f"! {failure}" for failure in (*old.failures, *new.failures))]
    return "\n".join(lines).rstrip() + "\n"


# -- facts


def _facts(calls: Iterable[Call], facts_of: Callable[[Call], Iterable[str]]) -> Facts:
    found: Facts = {}
    for call in calls:
        for fact in facts_of(call):
            found.setdefault(fact, set()).add(call.kind)
    return found


def _compared(
    then: Sequence[Call], now: Sequence[Call], facts_of: Callable[[Call], Iterable[str]]
) -> list[str]:
    before, after = _facts(then, facts_of), _facts(now, facts_of)
    lines = []
    for fact in sorted(before.keys() | after.keys()):
        if fact not in after:
            lines.append(f"- {fact}  ({_kinds(before[fact])})")
        elif fact not in before:
            lines.append(f"+ {fact}  ({_kinds(after[fact])})")
        elif before[fact] != after[fact]:
            lines.append(f"~ {fact}  ({_kinds(before[fact])} -> {_kinds(after[fact])})")
    return lines


def _kinds(kinds: set[str]) -> str:
    return ", ".join(sorted(kinds))


def _headers(call: Call) -> Iterator[str]:
    for name, value in call.headers.items():
        if name not in _HEADERS_OF_THE_CALL and name != _BETAS:
            for pattern, steady in _VARYING_IN_HEADERS:
                value = pattern.sub(steady, value)
            yield f"{name}: {value}"


def _betas(call: Call) -> list[str]:
    return [beta.strip() for beta in call.headers.get(_BETAS, "").split(",") if beta.strip()]


def _fields(call: Call) -> Iterator[str]:
    for name, value in call.body.items():
        if name not in ("tools", "system"):
            yield from _paths(value, name)


def _paths(value: Any, path: str) -> Iterator[str]:
    """Yield the paths of a JSON value with the values of numbers and of names; texts are only said to be there."""
    key = path.rpartition(".")[2].removesuffix("[]")
    if isinstance(value, Mapping):
        if not value:
            yield f"{path} = {{}}"
        for name, each in value.items():
            if name == "input":  # of a tool call: the script's
                yield f"{path}.input"
            else:
                yield from _paths(each, f"{path}.{name}")
    elif isinstance(value, list):
        if not value:
            yield f"{path} = []"
        for each in value:
            yield from _paths(each, f"{path}[]")
    elif isinstance(value, str) and key not in KEPT:
        yield f"{path} = (text)"
    elif isinstance(value, str):
        yield f"{path} = {_ID.sub('<id>', _steady(value))}"
    else:
        yield f"{path} = {value!r}"


def _notes(call: Call) -> list[str]:
    """Return what the translation for an upstream that no profile knows drops or alters."""
    if not call.path.endswith("/messages"):
        return []
    options = RequestOptions("some-model", True)
    edited = apply_edits(dict(call.body), ToolInputs())
    try:
        notes = to_openai_request(
            edited.payload, dialect_for(PROFILES["generic"], "some-model", {}), options
        ).notes
    except ProxyError as exc:
        return [f"refused: {exc.message}"]
    return [f"{re.sub(r'[.][0-9]+', '[]', note.path)}: {note.what} ({note.why})" for note in notes]


# -- tools


def _tools(then: Sequence[Call], now: Sequence[Call]) -> list[str]:
    before, after = _definitions(then), _definitions(now)
    lines = [f"- {name}" for name in sorted(before.keys() - after.keys())]
    lines += [f"+ {name}" for name in sorted(after.keys() - before.keys())]
    for name in sorted(before.keys() & after.keys()):
        for each in differences(before[name], after[name], place=name):
            lines.append(f"~ {each.place}: {each.recorded} -> {each.now}")
    offered = [
        {f"offered in {call.kind} calls: {name}" for call in calls for name in _names(call)}
        for calls in (then, now)
    ]
    lines += [f"- {each}" for each in sorted(offered[0] - offered[1])]
    lines += [f"+ {each}" for each in sorted(offered[1] - offered[0])]
    return lines


def _definitions(calls: Iterable[Call]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for call in calls:
        for tool in call.body.get("tools") or ():
            found.setdefault(str(tool.get("name")), tool)
    return found


def _names(call: Call) -> list[str]:
    return [str(tool.get("name")) for tool in call.body.get("tools") or ()]


# -- texts


def _texts(then: Sequence[Call], now: Sequence[Call], lines_of: Callable[[Call], list[str]]) -> list[str]:
    """Compare the texts of the first call of each kind in each conversation; equal differences are shown once."""
    before, after = _first_calls(then), _first_calls(now)
    shown: dict[tuple[str, ...], list[str]] = {}
    for place in before.keys() & after.keys():
        diff = difflib.unified_diff(lines_of(before[place]), lines_of(after[place]), n=0, lineterm="")
        changed = [line for line in diff if not line.startswith(("---", "+++", "@@"))]
        if changed:
            shown.setdefault(tuple(changed), []).append(f"{place[1]} of {place[0]}")
    lines = []
    for changed_lines, places in sorted(shown.items(), key=lambda item: sorted(item[1])):
        lines.append(f"~ {', '.join(sorted(places))}")
        lines += [f"    {line[0]} {line[1:][:_MAX_CHARS]}" for line in changed_lines[:_MAX_LINES]]
        if len(changed_lines) > _MAX_LINES:
            lines.append(f"    and {len(changed_lines) - _MAX_LINES} more lines")
    return lines


def _first_calls(calls: Iterable[Call]) -> dict[tuple[str, str], Call]:
    found: dict[tuple[str, str], Call] = {}
    for call in calls:
        found.setdefault((call.conversation, call.kind), call)
    return found


def _system_blocks(call: Call) -> list[str]:
    return _lines_of_content(call.body.get("system"))


def _system_messages(call: Call) -> list[str]:
    messages = call.body.get("messages") or ()
    return [
        line
        for message in messages
        if message.get("role") == "system"
        for line in _lines_of_content(message.get("content"))
    ]


def _lines_of_content(content: Any) -> list[str]:
    blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content or []
    lines = []
    for number, block in enumerate(blocks):
        rest = {key: value for key, value in block.items() if key != "text"}
        lines.append(f"(block {number} {rest})")
        lines += _steady(str(block.get("text", ""))).splitlines()
    return lines


def _steady(text: str) -> str:
    for pattern, name in _VARYING:
        text = pattern.sub(name, text)
    return text


# -- side calls


def _side_calls(then: Sequence[Call], now: Sequence[Call]) -> list[str]:
    before, after = _counts(then), _counts(now)
    return [
        f"~ {conversation}: {_shown(before[conversation])} -> {_shown(after[conversation])}"
        for conversation in sorted(before)
        if before[conversation] != after[conversation]
    ]


def _counts(calls: Iterable[Call]) -> dict[str, Counter[str]]:
    found: dict[str, Counter[str]] = {}
    for call in calls:
        found.setdefault(call.conversation, Counter())[call.kind] += 1
    return found


def _shown(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items()))
