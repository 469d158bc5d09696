"""The format of records on disk: a folder for each call, with files that people can read (docs/observability.md).

::

    20261126T013010.123Z-req_…/
        call.json                             the fields of the log line, and what a replay needs
        client-request.json     .body.json    method, path, headers                | the client's request
        1-upstream-request.json .body.json    URL, headers                         | the request of the first attempt
        1-upstream-response.json              status, headers                      |
        1-upstream-response.timing  .sse      milliseconds and bytes of each chunk | the chunks, concatenated
        2-upstream-…                          the next attempt: a retry or a fallback
        client-response.json .timing  .sse    the same of the response to the client

The second column exists only with ``record_bodies``. A folder is renamed to its final name when it is complete. Reading
does not trust the files: a record may come from somebody else.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import stat
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from proxyd.config.paths import make_private_folder

__all__ = [
    "FOLDER",
    "FORMAT",
    "BadRecord",
    "Record",
    "RecordedAttempt",
    "folder_name",
    "folders",
    "heads_of",
    "load",
    "prune",
    "summary_of",
    "timing",
    "write_folder",
]

#: Below the state folder.
FOLDER = "records"
FORMAT = 1

_NAME = re.compile(r"\d{8}T\d{6}\.\d{3}Z-[A-Za-z0-9_]{1,64}\Z")
_DRAFT = re.compile(r"\.draft-[A-Za-z0-9_.-]{1,120}\Z")
#: A draft that is older than an hour was left by a crash.
_DRAFT_S = 3600.0
#: Larger than any file that is written.
_MAX_FILE_BYTES = 64 * 1024 * 1024


class BadRecord(Exception):
    """Not a record, or an incomplete one. The message says what to do."""


def folder_name(started_at: float, request_id: str) -> str:
    """The name of a record's folder. Names sort by time."""
    whole, milliseconds = divmod(round(started_at * 1000), 1000)
    return f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime(whole))}.{milliseconds:03}Z-{request_id}"


def folders(root: Path) -> list[Path]:
    """List the records in `root`, the oldest first."""
    try:
        found = [entry.path for entry in os.scandir(root) if _NAME.match(entry.name) and _is_folder(entry)]
    except FileNotFoundError:
        return []
    return [Path(path) for path in sorted(found)]


def write_folder(root: Path, name: str, files: Mapping[str, bytes]) -> None:
    """Write a record, completely or not at all.

    Raises:
        OSError: it could not be written.
    """
    make_private_folder(root.parent)
    root.mkdir(exist_ok=True, mode=0o700)
    draft = root / f".draft-{name}-{os.getpid()}"
    draft.mkdir(mode=0o700)
    try:
        for file, data in files.items():
            descriptor = os.open(draft / file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with open(descriptor, "wb") as opened:
                opened.write(data)
        draft.rename(root / name)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise


def prune(root: Path, keep: int) -> None:
    """Delete all but the newest `keep` records, and drafts left by a crash. Another daemon may do the same."""
    for path in folders(root)[:-keep]:
        shutil.rmtree(path, ignore_errors=True)
    now = time.time()
    for entry in os.scandir(root):
        try:
            if _DRAFT.match(entry.name) and _is_folder(entry) and now - entry.stat().st_mtime > _DRAFT_S:
                shutil.rmtree(entry.path, ignore_errors=True)
        except FileNotFoundError:
            pass  # the other daemon was faster


def _is_folder(entry: os.DirEntry[str]) -> bool:
    return entry.is_dir(follow_symlinks=False)


# -- reading


@dataclass(frozen=True)
class RecordedAttempt:
    """One attempt.

    Attributes:
        request, response: the heads; `response` is None where none arrived.
        body: of the request; None where it was not kept.
        chunks: of the response: milliseconds since the call began, and bytes. None where they were not kept; with
            `is_truncated` there were more.
    """

    request: dict[str, Any]
    body: bytes | None
    response: dict[str, Any] | None
    chunks: list[tuple[float, bytes]] | None
    is_truncated: bool


@dataclass(frozen=True)
class Record:
    """A record that was read."""

    path: Path
    call: dict[str, Any]
    client: dict[str, Any]
    body: bytes | None
    attempts: list[RecordedAttempt] = field(default_factory=list)
    response: dict[str, Any] = field(default_factory=dict)
    response_chunks: list[tuple[float, bytes]] | None = None

    @property
    def facts(self) -> dict[str, Any]:
        """The fields of the log line."""
        return _mapping(self.call.get("facts"))

    @property
    def settings(self) -> dict[str, Any]:
        """The settings in force that affect the call."""
        return _mapping(self.call.get("settings"))

    @property
    def masks(self) -> tuple[str, ...]:
        """The masks that replace keys."""
        masks = self.call.get("masks")
        return tuple(mask for mask in masks if isinstance(mask, str)) if isinstance(masks, list) else ()


def summary_of(path: Path) -> dict[str, Any]:
    """Summarise a record for a list.

    Raises:
        BadRecord: it cannot be read.
    """
    call = _json(path / "call.json")
    facts = _mapping(call.get("facts"))
    return {
        "request_id": facts.get("request_id"),
        "started": call.get("started"),
        "model": facts.get("model"),
        "route": facts.get("route"),
        "mode": facts.get("mode"),
        "status": facts.get("status"),
        "outcome": facts.get("outcome"),
        "cause": facts.get("error") or facts.get("error_type") or facts.get("stop_reason"),
        "address": facts.get("address"),
        "attempts": call.get("attempts"),
        "has_bodies": call.get("has_bodies") is True,
        "folder": str(path),
    }


def load(path: Path) -> Record:
    """Read a record.

    Raises:
        BadRecord: it is not a record, or one of a newer claude-proxy.
    """
    call = _json(path / "call.json")
    if call.get("format") != FORMAT:
        raise BadRecord(
            f"{path} has the format {call.get('format')!r}, this claude-proxy reads {FORMAT}: use the version that "
            f"wrote it ({call.get('claude_proxy')})"
        )
    attempts = call.get("attempts")
    client, response = _json(path / "client-request.json"), _json(path / "client-response.json")
    return Record(
        path,
        call,
        client,
        _body(path, client),
        [_attempt(path, number + 1) for number in range(attempts if isinstance(attempts, int) else 0)],
        response,
        _chunks(path, response, "client-response.timing"),
    )


def heads_of(path: Path) -> dict[str, Any]:
    """Read a record without its bodies: ``{folder, call, client, attempts: [{request, response}], response}``.

    Raises:
        BadRecord: it cannot be read.
    """
    call = _json(path / "call.json")
    count = call.get("attempts")
    attempts = []
    for number in range(1, (count if isinstance(count, int) else 0) + 1):
        response = path / f"{number}-upstream-response.json"
        attempts.append(
            {
                "request": _json(path / f"{number}-upstream-request.json"),
                "response": _json(response) if response.exists() else None,
            }
        )
    return {
        "folder": str(path),
        "call": {name: call.get(name) for name in ("started", "facts", "notes", "has_bodies")},
        "client": _json(path / "client-request.json"),
        "attempts": attempts,
        "response": _json(path / "client-response.json"),
    }


def _attempt(path: Path, number: int) -> RecordedAttempt:
    request = _json(path / f"{number}-upstream-request.json")
    head = path / f"{number}-upstream-response.json"
    response = _json(head) if head.exists() else None
    chunks = _chunks(path, response, f"{number}-upstream-response.timing") if response is not None else None
    return RecordedAttempt(
        request, _body(path, request), response, chunks, response is not None and "body_cut" in response
    )


def _body(path: Path, head: Mapping[str, Any]) -> bytes | None:
    name = head.get("body_file")
    if not isinstance(name, str):
        return None
    if not re.fullmatch(r"[a-z0-9][a-z0-9.-]{0,60}", name):
        raise BadRecord(f"{path} names a file of another folder: do not trust it")
    return _read(path / name)


def _chunks(path: Path, head: Mapping[str, Any], timing: str) -> list[tuple[float, bytes]] | None:
    """Split a body into chunks by the last column of its timing; the rest after the last line is one more chunk."""
    body = _body(path, head)
    if body is None:
        return None
    found, at, moment = [], 0, 0.0
    for line in _read(path / timing).decode("ascii", "replace").splitlines():
        columns = line.split()
        try:
            moment, size = float(columns[0]), int(columns[-1])
        except (ValueError, IndexError):
            raise BadRecord(f"{path / timing} is damaged: expected lines of milliseconds and bytes") from None
        found.append((moment, body[at : at + size]))
        at += size
    if at < len(body):
        found.append((moment, body[at:]))
    return found


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(_read(path))
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise BadRecord(f"{path} is damaged: expected a JSON object")
    return value


def _read(path: Path) -> bytes:
    try:
        # Links are not followed: in a foreign record they could lead to a file of ours. A FIFO must not block.
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise BadRecord(f"{path} is no regular file: do not trust it")
            data = file.read(_MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        raise BadRecord(
            f"{path.parent} is no record: it has no {path.name}; 'claude-proxy replay --list' shows what there is"
        ) from None
    except NotADirectoryError:
        raise BadRecord(f"{path.parent} is no folder; give a record's") from None
    except OSError as exc:
        if exc.errno in (
            errno.ENXIO,
            errno.ENODEV,
            errno.EISDIR,
        ):  # a socket, a device without a driver, a folder
            raise BadRecord(f"{path} is no regular file: do not trust it") from None
        if exc.errno != errno.ELOOP:
            raise
        raise BadRecord(f"{path} is a link to another file: do not trust it") from None
    if len(data) > _MAX_FILE_BYTES:
        raise BadRecord(f"{path} is larger than {_MAX_FILE_BYTES >> 20} MiB, which no record is")
    return data


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def timing(marks: Iterable[tuple[float, int, int | None]]) -> bytes:
    """Format lines of milliseconds, bytes and, where they were decompressed, bytes as kept."""
    return "".join(
        f"{moment:.3f} {size}{'' if kept is None else f' {kept}'}\n" for moment, size, kept in marks
    ).encode()
