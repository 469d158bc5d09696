"""What systemd tells a service, and what a service tells systemd; nothing where it is not there.

Sources: sd_notify(3), sd_listen_fds(3), sd_watchdog_enabled(3). The protocol is one datagram to a Unix socket, so that
no library is needed (docs/spec/operations.md#h4). The variables are taken out of the environment: they are meant for
this process and would mislead one that it starts.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import MutableMapping

__all__ = ["Notifier", "inherited_sockets"]

#: sd_listen_fds(3): the first file descriptor that is handed over.
_FIRST_FD = 3


class Notifier:
    """The service manager's ear.

    Attributes:
        watchdog_s: after how many seconds of silence the manager restarts us; None where it does not watch.
    """

    def __init__(self, environ: MutableMapping[str, str]) -> None:
        address = environ.pop("NOTIFY_SOCKET", "")
        usec, pid = environ.pop("WATCHDOG_USEC", ""), environ.pop("WATCHDOG_PID", "")
        # An abstract address is written with @ and begins with a zero byte.
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        is_meant = pid in ("", str(os.getpid()))
        self.watchdog_s = int(usec) / 1e6 if address and usec.isdigit() and int(usec) and is_meant else None

    def ready(self, status: str) -> None:
        """Started, or reloaded."""
        self._send("READY=1", f"STATUS={status}")

    def reloading(self) -> None:
        """A reload begins; `ready` ends it. ``Type=notify-reload`` hangs without the time.

        See docs/spec/operations.md#a4.
        """
        self._send("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def stopping(self, status: str) -> None:
        """The drain begins."""
        self._send("STOPPING=1", f"STATUS={status}")

    def status(self, text: str) -> None:
        """The line that ``systemctl status`` shows."""
        self._send(f"STATUS={text}")

    def alive(self) -> None:
        """The loop answers."""
        self._send("WATCHDOG=1")

    def _send(self, *lines: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                sock.setblocking(False)
                sock.sendto("\n".join(lines).encode(), self._address)
        except OSError:
            pass  # a manager that cannot be told must not bring the service down


def inherited_sockets(environ: MutableMapping[str, str]) -> list[socket.socket]:
    """The listening sockets that the manager has opened for this process, by socket activation."""
    pid, count = environ.pop("LISTEN_PID", ""), environ.pop("LISTEN_FDS", "")
    environ.pop("LISTEN_FDNAMES", None)
    if pid != str(os.getpid()) or not count.isdigit():
        return []
    found = []
    for fd in range(_FIRST_FD, _FIRST_FD + int(count)):
        os.set_inheritable(fd, False)
        sock = socket.socket(fileno=fd)
        sock.setblocking(False)
        found.append(sock)
    return found
