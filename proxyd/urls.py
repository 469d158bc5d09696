"""Properties of URLs and hosts: origin, host, loopback and private addresses."""

from __future__ import annotations

import functools
import ipaddress
from urllib.parse import urlsplit

__all__ = ["address_of", "host_of", "is_loopback", "is_loopback_url", "is_private_host", "origin_of"]


def origin_of(url: str) -> str:
    """Return scheme, host and port of `url`; a client's key goes to one origin only (docs/spec/operations.md#e4)."""
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.partition('/')[0]}".lower()


@functools.lru_cache(maxsize=256)
def address_of(url: str) -> str:
    """Return `url` as it may be shown and logged: without credentials, the values of its query, and a fragment."""
    parts = urlsplit(url)
    if not parts.netloc:
        return url.partition("?")[0]
    names = [pair.partition("=")[0] for pair in parts.query.split("&") if pair]
    query = "?" + "&".join(f"{name}=…" for name in names) if names else ""
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}{query}"


def host_of(url: str) -> str:
    """Return host and port of `url` without credentials, or `url` itself if it has no host."""
    return urlsplit(url).netloc.rpartition("@")[2] or url


def is_loopback_url(url: str) -> bool:
    """Return whether the host of `url` is this machine; local servers usually need no key (docs/spec/design.md#p10)."""
    host = url.partition("://")[2].partition("/")[0].rpartition("@")[2]
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    return name in ("localhost", "::1") or name.startswith("127.")


@functools.lru_cache(maxsize=256)  # called for the Host header of each request
def is_loopback(host: str) -> bool:
    """Return whether `host`, a name or an address, is reachable from this machine only."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower().rstrip(".") == "localhost" or host.lower().endswith(".localhost")


def is_private_host(url: str) -> bool:
    """Return whether the host of `url` is this machine or in a private network, where plain http is accepted."""
    host = urlsplit(url).hostname or ""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return "." not in host or host.endswith((".localhost", ".local", ".lan", ".internal", ".home.arpa"))
    return address.is_private or address.is_loopback or address.is_link_local
