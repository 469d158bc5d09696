"""Opens the listening sockets."""

from __future__ import annotations

import errno
import socket

from proxyd.errors import AddressInUse, ConfigError

__all__ = ["bind_sockets"]


def bind_sockets(host: str, port: int) -> list[socket.socket]:
    """Open listening sockets for `host`; for 127.0.0.1 also ::1, since ``localhost`` may mean either.

    Args:
        port: 0 lets the system choose one, the same for all sockets.

    Raises:
        AddressInUse: the port is taken.
        ConfigError: the host cannot be listened on.
    """
    found: list[socket.socket] = []
    try:
        infos = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as exc:
        raise ConfigError(f"host: {host!r} is not an address to listen on: {exc.strerror}") from None
    if host == "127.0.0.1":
        infos.append((socket.AF_INET6, socket.SOCK_STREAM, 0, "", ("::1", port, 0, 0)))
    for family, kind, protocol, _, address in dict.fromkeys(infos):
        is_optional = bool(found)
        try:
            each = socket.socket(family, kind, protocol)
        except OSError:
            continue  # no IPv6 here
        try:
            each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                each.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            if is_optional and port == 0:
                address = (address[0], found[0].getsockname()[1], *address[2:])
            each.bind(address)
            each.listen(1024)
            each.setblocking(False)
        except OSError as exc:
            each.close()
            if is_optional and exc.errno != errno.EADDRINUSE:
                continue  # no such address here: ::1 where IPv6 is off
            for other in found:
                other.close()
            if exc.errno == errno.EADDRINUSE:
                raise AddressInUse(
                    f"{host}:{port} is in use, perhaps by another claude-proxy: stop it, or choose another with --port"
                ) from None
            raise ConfigError(f"host: cannot listen on {host}:{port}: {exc.strerror}") from None
        found.append(each)
    if not found:
        raise ConfigError(f"host: cannot listen on {host!r}")
    return found
