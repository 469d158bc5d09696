"""Lists of addresses and networks: the setting ``trusted_proxies``."""

from __future__ import annotations

import functools
import ipaddress
from typing import Any

from proxyd.config.faults import shown
from proxyd.config.kinds import Kind, Report, identifier, list_of

__all__ = ["Address", "address_of", "is_in", "networks_kind"]

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_EXPECTED = "an IP address, or a network such as 10.0.0.0/8"
#: What an editor can check.
_FORM = r"^([0-9]{1,3}(\.[0-9]{1,3}){3}|[0-9a-fA-F:.]*:[0-9a-fA-F:.]*)(/[0-9]{1,3})?$"


def networks_kind() -> Kind:
    """Kind of a list of addresses and networks, as texts: ``10.0.0.7``, ``10.0.0.0/8``, ``fd00::/8``."""
    inner = identifier(_EXPECTED)

    def read(value: Any, report: Report) -> str | None:
        text = inner.read(value, report)
        if text is None:
            return None
        try:
            network = ipaddress.ip_network(text, strict=False)
        except ValueError:
            report((), f"expected {_EXPECTED}; got {shown(text)}; names are not looked up", False)
            return None
        if network.prefixlen == 0:
            report(
                (), f"{text} has all addresses, so every client could claim to be another; name fewer", False
            )
        elif "/" in text and ipaddress.ip_address(text.partition("/")[0]) != network.network_address:
            address = text.partition("/")[0]
            report((), f"{text} is no network; write {network}, or {address} for the address alone", False)
        else:
            return str(network) if "/" in text else str(network.network_address)
        return None

    return list_of(Kind(_EXPECTED, read, {**inner.schema, "pattern": _FORM}), {})


@functools.lru_cache(maxsize=512)  # most calls come from the same few
def address_of(text: str) -> Address | None:
    """Return the address that `text` is, None if it is none. An IPv4 address in IPv6 form is that IPv4 address."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    mapped = getattr(address, "ipv4_mapped", None)
    return address if mapped is None else mapped


def is_in(address: Address, networks: tuple[str, ...]) -> bool:
    """Return whether one of `networks`, as `networks_kind` returns them, has `address`."""
    return any(address in network for network in _parsed(networks))


@functools.lru_cache(maxsize=8)
def _parsed(networks: tuple[str, ...]) -> tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]:
    return tuple(map(ipaddress.ip_network, networks))
