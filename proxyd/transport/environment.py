"""The proxy and the credentials that the environment has for an upstream (``trust_env``). All of it blocks."""

from __future__ import annotations

import base64
import netrc
import os
import urllib.request
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from proxyd.transport.faults import ProxyUnsupported

__all__ = ["Proxy", "basic_auth", "credentials_of", "proxy_for"]

_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy of the environment.

    Attributes:
        auth: value of ``Proxy-Authorization``, or "".
    """

    host: str
    port: int
    is_tls: bool
    auth: str

    @property
    def address(self) -> str:
        """Scheme, host and port; its credentials are not shown."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http{'s' if self.is_tls else ''}://{host}:{self.port}"


def proxy_for(scheme: str, host: str) -> Proxy | None:
    """Return the proxy for an upstream: ``https_proxy`` or ``http_proxy``, else ``all_proxy``, unless ``no_proxy``
    names the host.

    Raises:
        ProxyUnsupported: it is none that speaks HTTP.
        ValueError: its address has no valid host or port.
    """
    proxies = urllib.request.getproxies()
    value = proxies.get(scheme) or proxies.get("all")
    if not value or urllib.request.proxy_bypass(host):
        return None
    parts = urlsplit(value if "://" in value else f"http://{value}")
    if parts.scheme not in _PORTS:
        raise ProxyUnsupported(parts.scheme)
    if not parts.hostname:
        raise ValueError("the address of the proxy of the environment has no host")
    auth = (
        "" if parts.username is None else basic_auth(unquote(parts.username), unquote(parts.password or ""))
    )
    return Proxy(parts.hostname, parts.port or _PORTS[parts.scheme], parts.scheme == "https", auth)


def credentials_of(host: str) -> str:
    """Return the value of ``Authorization`` that netrc has for `host`, or ""."""
    try:
        found = netrc.netrc(_netrc_file()).authenticators(host)
    except (OSError, netrc.NetrcParseError):
        return ""
    return "" if found is None else basic_auth(found[0], found[2] or "")


def basic_auth(user: str, password: str) -> str:
    """Return the value of a header with these credentials (RFC 7617)."""
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def _netrc_file() -> str | None:
    """Return the file that ``NETRC`` names, or None for the usual one."""
    return os.environ.get("NETRC") or None
