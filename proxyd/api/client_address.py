"""The address of a client, also of one behind the proxies of the setting ``trusted_proxies``.

Each proxy adds the address that it was called from to the end of ``X-Forwarded-For`` or ``Forwarded`` (RFC 7239). What
stands before the first address that is not a trusted proxy's, read from the end, comes from that address and may be
invented.

Many proxies write one of the two headers and pass the other on as the client sent it. So where both are there and
differ, neither is used.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from aiohttp import web

from proxyd.config.networks import Address, address_of, is_in

__all__ = ["client_address", "is_trusted_proxy"]

#: Hops from the proxy outwards; None for one that cannot be read.
_Hops = list["Address | None"]

#: An address with or without a port. A scope ("%eth0") is of no use to others, and could be any text.
_NODE = re.compile(
    r"(?:\[([0-9a-f:.]{2,45})\](?::[\w.-]{0,20})?|([0-9.]{7,15})(?::[\w.-]{0,20})?|([0-9a-f:.]{2,45}))\Z",
    re.IGNORECASE,
)
#: One ``name=value`` of ``Forwarded``, or none, and the character behind it (RFC 7239, 4).
_PAIR = re.compile(
    r"""(?:[ \t]*([!#$%&'*+\-.^_`|~\w]+)=(?:"((?:[^"\\]|\\.)*)"|([^",;\s]*)))?[ \t]*([,;]|\Z)""", re.ASCII
)


def client_address(request: web.BaseRequest, proxies: tuple[str, ...]) -> Address | None:
    """Return the address of whoever sent `request`; None where it is unknown.

    Args:
        proxies: the setting ``trusted_proxies``.
    """
    peer = address_of(request.remote or "")
    if peer is None or not proxies or not is_in(peer, proxies):
        return peer
    found = {
        _first_untrusted(peer, hops, proxies)
        for hops in (
            _in_x_forwarded_for(request.headers.getall("X-Forwarded-For", ())),
            _in_forwarded(request.headers.getall("Forwarded", ())),
        )
        if hops
    }
    return found.pop() if len(found) == 1 else peer


def is_trusted_proxy(peer: str, proxies: tuple[str, ...]) -> bool:
    """Return whether the other end of a connection is one of `proxies`."""
    address = address_of(peer)
    return address is not None and is_in(address, proxies)


def _first_untrusted(peer: Address, hops: _Hops, proxies: tuple[str, ...]) -> Address:
    """Return the address nearest to us that is no proxy's, or else the last one that is known."""
    found = peer
    for hop in hops:
        if hop is None:
            break
        found = hop
        if not is_in(hop, proxies):
            break
    return found


def _in_x_forwarded_for(lines: Sequence[str]) -> _Hops:
    return [_address_in(node) for node in reversed(",".join(lines).split(",")) if node.strip()]


def _in_forwarded(lines: Sequence[str]) -> _Hops:
    """Return the ``for`` of all elements; of a line that has not the form of the header, None alone.

    Such a line may come from a client that wants to hide what a proxy adds to it, by a quotation mark left open.
    """
    hops: _Hops = []
    for line in reversed(lines):
        hops.extend(_in_forwarded_line(line))
    return hops


def _in_forwarded_line(line: str) -> _Hops:
    elements: _Hops = []
    position, is_empty, node = 0, True, None
    while True:
        match = _PAIR.match(line, position)
        if match is None:
            return [None]
        name, quoted, plain, end = match.groups()
        if name is not None:
            is_empty = False
            if name.lower() == "for":
                node = plain if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
        if end != ";" and not is_empty:
            elements.append(None if node is None else _address_in(node))
            is_empty, node = True, None
        if not end:
            return elements[::-1]
        position = match.end()


def _address_in(node: str) -> Address | None:
    """Return the address of a hop, None for a name, an identifier or another text."""
    match = _NODE.match(node.strip())
    return None if match is None else address_of(next(filter(None, match.groups())))
