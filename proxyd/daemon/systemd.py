"""systemd's protocols: readiness and watchdog notifications, and socket activation. Does nothing without systemd.

Sources: sd_notify(3), sd_listen_fds(3), sd_watchdog_enabled(3). A notification is one datagram to a Unix socket, so no
library is needed (docs/spec/operations.md#h4). The variables are removed from the environment: they are meant for this
process and would mislead its children.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import MutableMapping

__all__ = ["Notifier", "inherited_sockets"]

#: sd_listen_fds(3): the first file descriptor that is passed.
_FIRST_FD = 3


class Notifier:
    """Sends notifications to the service manager.

    Attributes:
        watchdog_s: seconds without `alive` after which the manager restarts us; None without a watchdog.
    """

    def __init__(self, environ: MutableMapping[str, str]) -> None:
        address = environ.pop("NOTIFY_SOCKET", "")
        usec, pid = environ.pop("WATCHDOG_USEC", ""), environ.pop("WATCHDOG_PID", "")
        # An abstract address is written with @ for its leading zero byte.
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        is_for_us = pid in ("", str(os.getpid()))
        self.watchdog_s = int(usec) / 1e6 if address and usec.isdigit() and int(usec) and is_for_us else None

    def ready(self, status: str) -> None:
        """Report that the start or a reload is complete."""
        self._send("READY=1", f"STATUS={status}")

    def reloading(self) -> None:
        """Report the beginning of a reload, which `ready` ends. ``Type=notify-reload`` requires the time.

        See docs/spec/operations.md#a4.
        """
        self._send("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def stopping(self, status: str) -> None:
        """Report that the drain begins."""
        self._send("STOPPING=1", f"STATUS={status}")

    def status(self, text: str) -> None:
        """Set the line that ``systemctl status`` shows."""
        self._send(f"STATUS={text}")

    def alive(self) -> None:
        """Reset the watchdog."""
        self._send("WATCHDOG=1")

    def _send(self, *lines: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                sock.setblocking(False)
                sock.sendto("\n".join(lines).encode(), self._address)
        except OSError:
            pass  # an unreachable manager must not stop the service


def inherited_sockets(environ: MutableMapping[str, str]) -> list[socket.socket]:
    """Return the listening sockets that socket activation passed to this process."""
    pid, count = environ.pop("LISTEN_PID", ""), environ.pop("LISTEN_FDS", "")
    environ.pop("LISTEN_FDNAMES", None)
    if pid != str(os.getpid()) or not count.isdigit():
        return []
    sockets = []
    for fd in range(_FIRST_FD, _FIRST_FD + int(count)):
        os.set_inheritable(fd, False)
        sock = socket.socket(fileno=fd)
        sock.setblocking(False)
        sockets.append(sock)
    return sockets
