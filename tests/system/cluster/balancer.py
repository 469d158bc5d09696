"""A real HAProxy with the configuration of deploy/, its replicas on loopback."""

from __future__ import annotations

import asyncio
import csv
import os
import re
import shutil
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.paths import ROOT
from tests.support.ports import free_port

__all__ = ["REPLICA_HEADER", "Balancer", "haproxy", "running_balancer"]

#: Names, in each response, the replica that it comes from.
REPLICA_HEADER = "x-replica"
_FILE = ROOT / "deploy" / "haproxy.cfg"
_POLL_S, _BOUND_S = 0.1, 60.0


def haproxy() -> str | None:
    """Return the program; Debian keeps it out of an ordinary user's PATH."""
    return shutil.which("haproxy", path=f"{os.environ['PATH']}:/usr/sbin")


def configuration(port: int, replicas: Mapping[str, int], socket: Path, *, check_s: float) -> str:
    """Return that of deploy/ for replicas on loopback.

    Args:
        replicas: their names and ports.
        socket: of HAProxy's commands.
        check_s: between two health checks of a replica.
    """
    text = _FILE.read_text()
    text = re.sub(r"(?ms)^resolvers docker\n.*?\n\n", "", text).replace(
        " resolvers docker init-addr libc,none", ""
    )
    text = re.sub(r"(?m)^    server .*\n?", "", text).rstrip("\n") + "\n"
    text += "".join(f"    server {name} 127.0.0.1:{at}\n" for name, at in replicas.items())
    for old, new in (
        ("    maxconn 4096\n", f"    maxconn 4096\n    stats socket {socket}\n"),
        ("bind :8082", f"bind 127.0.0.1:{port}"),
        ("backend replicas\n", f"backend replicas\n    http-response set-header {REPLICA_HEADER} %s\n"),
        ("check inter 1s", f"check inter {check_s * 1000:.0f}ms"),
    ):
        assert old in text, f"deploy/haproxy.cfg has no {old!r} any more"
        text = text.replace(old, new)
    return text


@dataclass
class Balancer:
    """HAProxy, running.

    Attributes:
        base: its address.
        socket: of its commands.
    """

    base: str
    socket: Path

    async def states(self) -> dict[str, str]:
        """Return what its health checks say of each replica: ``UP``, ``DOWN``, or on the way from one to the other."""
        reader, writer = await asyncio.open_unix_connection(self.socket)
        try:
            writer.write(b"show stat\n")
            rows = csv.DictReader((await reader.read()).decode().removeprefix("# ").splitlines())
            return {
                row["svname"]: row["status"]
                for row in rows
                if row["pxname"] == "replicas" and row["svname"] != "BACKEND"
            }
        finally:
            writer.close()

    async def sees(self, name: str, state: str) -> None:
        """Wait until its health checks have found that a replica is ``UP`` or ``DOWN``."""

        async def poll() -> None:
            while (await self.states())[name] != state:
                await asyncio.sleep(_POLL_S)

        await asyncio.wait_for(poll(), _BOUND_S)


@asynccontextmanager
async def running_balancer(
    folder: Path, replicas: Mapping[str, int], *, check_s: float
) -> AsyncIterator[Balancer]:
    """Run HAProxy in front of the replicas."""
    program = haproxy()
    assert program is not None, "it was looked for before"
    port, socket, path, log = free_port(), *(folder / f"haproxy.{each}" for each in ("sock", "cfg", "log"))
    path.write_text(configuration(port, replicas, socket, check_s=check_s))
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(program, "-db", "-f", str(path), stderr=output)
    try:
        while not socket.exists():
            assert process.returncode is None, f"haproxy ended: {log.read_text()}"
            await asyncio.sleep(_POLL_S)
        yield Balancer(f"http://127.0.0.1:{port}", socket)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
