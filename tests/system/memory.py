"""``python -m tests.system.memory [STREAMS [MEGABYTES]]``: what the daemon's memory does over many long streams.

The statement is docs/spec/operations.md#c7: after 1000 streams of 20 MB, one after the other, the daemon's resident
memory is within 20 MiB of what it was after 100. That is 20 GB and takes a quarter of an hour, so the suite runs a
short form (tests/system/test_memory.py): fewer and smaller streams, and a bound of a quarter.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

from tests.support.daemon_process import process
from tests.support.faults import MODES
from tests.support.raw_sockets import RawClient, RawUpstream, Step, post
from tests.support.streams import CHUNKED, HELLO, as_chunks

__all__ = ["MAX_GROWTH_KIB", "growth_kib", "resident_kib"]

#: docs/spec/operations.md#c7.
MAX_GROWTH_KIB = 20 * 1024
STREAMS, MEGABYTES = 1000, 20.0
#: The share of the streams after which the first look is taken: 100 of 1000.
_WARM_UP = 10
_PIECE_BYTES = 64 * 1024


def resident_kib(pid: int) -> int:
    return int(subprocess.run(["ps", "-o", "rss=", "-p", str(pid)], capture_output=True, check=True).stdout)


async def growth_kib(folder: Path, mode: str, streams: int, megabytes: float) -> tuple[int, int]:
    """Resident memory after a tenth of `streams` and after all of them, in KiB."""
    events = list(MODES[mode].values())
    text = events[4].replace(b"write it.", b"word " * 200)
    chunk = as_chunks(text * (_PIECE_BYTES // len(text)))
    chunks = int(megabytes * 1_000_000) // len(chunk) + 1

    def steps(_: int) -> Iterable[Step]:
        upstream.heads.clear()
        upstream.bodies.clear()
        yield CHUNKED
        yield as_chunks(*events[:4])
        for _ in range(chunks):
            yield chunk
        yield as_chunks(*events[5:]) + b"0\r\n\r\n"

    upstream = RawUpstream(steps)
    seen = []
    async with upstream.running():
        entry = {"model_id": "c7", "api_base": f"{upstream.base}/v1", "direct": mode == "direct"}
        async with process(folder, upstream, entry) as daemon:
            for number in range(1, streams + 1):
                async with RawClient.to(daemon.base) as client:
                    await client.send(post({**HELLO, "model": "c7"}, "Connection: close"))
                    size, tail = 0, b""
                    while data := await asyncio.wait_for(client.reader.read(1 << 20), 60):
                        size += len(data)
                        tail = (tail + data)[-2000:]
                assert b"message_stop" in tail
                assert size > megabytes * 900_000
                if number in (streams // _WARM_UP, streams):
                    seen.append(resident_kib(daemon.handle.pid))
    return seen[0], seen[1]


def main(arguments: list[str]) -> int:
    streams = int(arguments[0]) if arguments else STREAMS
    megabytes = float(arguments[1]) if len(arguments) > 1 else MEGABYTES
    is_fine = True
    for mode in MODES:
        with tempfile.TemporaryDirectory(prefix="proxyd-memory-") as folder:
            begun = time.monotonic()
            before, after = asyncio.run(growth_kib(Path(folder).resolve(), mode, streams, megabytes))
        is_fine = is_fine and after - before < MAX_GROWTH_KIB
        print(
            f"{mode}: {streams} streams of {megabytes:g} MB in {time.monotonic() - begun:.0f} s; resident {before} KiB "
            f"after {streams // _WARM_UP}, {after} KiB after {streams}: {(after - before) / 1024:+.1f} MiB",
            flush=True,
        )
    print("PASS" if is_fine else "FAIL")
    return 0 if is_fine else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
