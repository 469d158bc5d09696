"""What the parent tells a worker process that it starts, in one environment variable."""

from __future__ import annotations

import json
import socket
from collections.abc import MutableMapping
from dataclasses import asdict, dataclass
from pathlib import Path

__all__ = ["VARIABLE", "WorkerPlace"]

#: Set by the parent; removed by the worker, whose own children it would mislead.
VARIABLE = "PROXYD_WORKER"


@dataclass(frozen=True, slots=True)
class WorkerPlace:
    """A worker among others.

    Attributes:
        number: from 1 to `count`.
        folder: of the sockets on which workers ask each other; nobody else may enter it.
        channel: the descriptor over which the parent passes connections.
        addresses, tls_addresses: on which the parent listens.
        pid: of the parent.
        supervisor: the service manager of the parent.
    """

    number: int
    count: int
    folder: str
    channel: int
    addresses: list[tuple[str, int]]
    tls_addresses: list[tuple[str, int]]
    pid: int
    supervisor: str | None

    @classmethod
    def taken_from(cls, environ: MutableMapping[str, str]) -> WorkerPlace | None:
        """Return what the parent has set; None in a process that is no worker."""
        text = environ.pop(VARIABLE, "")
        if not text:
            return None
        values = json.loads(text)
        for name in ("addresses", "tls_addresses"):
            values[name] = [(host, port) for host, port in values[name]]
        return cls(**values)

    def as_variable(self) -> str:
        return json.dumps(asdict(self))

    @property
    def own_socket(self) -> Path:
        return self.socket_of(self.number)

    @property
    def other_sockets(self) -> list[Path]:
        """The sockets of the other workers."""
        return [self.socket_of(each) for each in range(1, self.count + 1) if each != self.number]

    def socket_of(self, number: int) -> Path:
        return Path(self.folder) / f"{number}.sock"

    def listen(self) -> socket.socket:
        """Open the socket on which the others ask this worker; one that a worker before it has left is replaced."""
        self.own_socket.unlink(missing_ok=True)
        found = socket.socket(socket.AF_UNIX)
        try:
            found.bind(str(self.own_socket))
            found.listen(64)
            found.setblocking(False)
        except BaseException:
            found.close()
            raise
        return found
