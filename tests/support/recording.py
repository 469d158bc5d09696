"""Calls through a daemon that records them, and the records that then lie there."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from proxyd.recording import store as record_files
from proxyd.recording.store import FOLDER
from tests.support.harness import running_proxy
from tests.support.raw_sockets import Fault, RawClient, RawResponse, RawUpstream, Step, post, until
from tests.support.streams import CHUNKED, DIRECT, HELLO, TRANSLATED, as_chunks

__all__ = ["GOOD", "call_of", "entry", "one_record", "play", "records", "steps_of", "until_records", "whole"]

MODES = {"translated": TRANSLATED, "direct": DIRECT}


def steps_of(mode: str, *, until: int | None = None, end: Sequence[Step] | None = None) -> list[Step]:
    """The frames of `mode`, each a chunk and a read of its own; `end` instead of the end of the body."""
    frames = list(MODES[mode].values())[:until]
    return [CHUNKED, *(as_chunks(frame) for frame in frames), *((b"0\r\n\r\n",) if end is None else end)]


def whole(status: str, body: bytes, *headers: str, kind: str = "application/json") -> list[Step]:
    """A response in one piece."""
    lines = [f"HTTP/1.1 {status}", f"Content-Type: {kind}", f"Content-Length: {len(body)}", *headers]
    return ["\r\n".join(lines).encode() + b"\r\n\r\n" + body]


GOOD: dict[str, list[Step]] = {mode: steps_of(mode) for mode in MODES}


def entry(upstream: RawUpstream, mode: str = "translated", **more: Any) -> dict[str, Any]:
    return {"model_id": "m", "api_base": f"{upstream.base}/v1", "direct": mode == "direct", **more}


def records(folder: Path) -> list[Path]:
    return record_files.folders(folder / FOLDER)


async def until_records(folder: Path, count: int) -> list[Path]:
    """Wait until so many calls are recorded."""
    await until(lambda: len(records(folder)) >= count, 30)
    return records(folder)


def call_of(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((path / "call.json").read_bytes())
    return found


@asynccontextmanager
async def play(
    folder: Path,
    plays: Sequence[Sequence[Step]],
    mode: str = "translated",
    payload: Mapping[str, Any] | None = None,
    *headers: str,
    more: Mapping[str, Any] | None = None,
    **settings: Any,
) -> AsyncIterator[RawResponse]:
    """One call; the upstream plays the n-th of `plays` at its n-th request, and the last for ever."""
    upstream = RawUpstream(lambda number: plays[min(number, len(plays) - 1)])
    async with upstream.running():
        entries = [entry(upstream, mode, **(more or {}))]
        async with running_proxy(entries, state_folder=folder, **{"record": "all", **settings}) as base:
            async with RawClient.to(base) as client:
                await client.send(post({**HELLO, **(payload or {})}, *headers))
                yield await client.response()


async def one_record(
    folder: Path,
    plays: Sequence[Sequence[Step]],
    mode: str = "translated",
    payload: Mapping[str, Any] | None = None,
    *headers: str,
    **more: Any,
) -> Path:
    """The record of one call, with bodies."""
    async with play(folder, plays, mode, payload, *headers, record_bodies=True, **more):
        return (await until_records(folder, 1))[0]


#: Ends of a response that is not whole.
BREAKS: dict[str, Sequence[Step]] = {"reset": (Fault.RESET,), "close": (Fault.CLOSE,)}
