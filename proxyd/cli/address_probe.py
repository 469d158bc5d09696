"""Find out whether anything is at an entry's address, and if not, which neighbouring address responds.

A probe is an empty POST without a key: 401 or 400 shows that the endpoint is there, 404 and 405 that it is not. It
costs nothing, and no key leaves this machine.
"""

from __future__ import annotations

import http.client
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

from proxyd.codecs.formats import CHAT
from proxyd.config.routes import ModelRoute
from proxyd.providers.direct_request import direct_url, has_models, message_url
from proxyd.providers.registry import format_for
from proxyd.providers.translated_request import endpoint_url, name_in_address

__all__ = ["Endpoint", "connection_to", "endpoint_of", "fault_at", "find_neighbour"]

_TIMEOUT_S = 5.0
_MAX_BODY_BYTES = 64 << 10


@dataclass(frozen=True)
class Endpoint:
    """An address of models.yaml and the API that it is used with."""

    api_base: str
    is_direct: bool
    path: str = CHAT.path("", True)  # of a translated entry

    @property
    def url(self) -> str:
        """URL of a call without its query, for messages."""
        return self.full_url().partition("?")[0]

    def full_url(self) -> str:
        """Return the URL of a call with its query."""
        if self.is_direct:
            return direct_url(self.api_base, "/v1/messages", "")
        return endpoint_url(self.api_base, self.path)

    def neighbours(self) -> Iterator[Endpoint]:
        """Yield the addresses that are often meant: the same API at another path, then the other API."""
        base, mark, query = self.api_base.partition("?")
        base = base.rstrip("/")
        bare = base.removesuffix("/v1")
        for is_direct in (self.is_direct, not self.is_direct):
            # /v1 is part of the path that is added to a direct address.
            for path in (bare,) if is_direct else (f"{bare}/v1", bare):
                other = Endpoint(f"{path}{mark}{query}", is_direct, self.path)
                if other.url != self.url:
                    yield other

    def as_lines(self) -> str:
        """Return what to write in models.yaml."""
        direct = "direct: true" if self.is_direct else "no 'direct'"
        return f"api_base: {self.api_base.partition('?')[0]}, {direct}"


def endpoint_of(route: ModelRoute) -> Endpoint:
    """Return what an entry calls."""
    if route.direct and has_models(route):
        return Endpoint(route.api_base, True)
    if route.direct:
        return Endpoint(route.api_base, False, message_url(route).removeprefix(route.api_base))
    chosen, _ = format_for(route)
    return Endpoint(route.api_base, False, chosen.path(name_in_address(route), route.can_stream))


def connection_to(url: SplitResult, ca_file: str, timeout_s: float) -> http.client.HTTPConnection:
    """Return a connection to the host of `url`, not yet opened; `ca_file` may be empty."""
    host = url.hostname or ""
    if url.scheme == "https":
        context = ssl.create_default_context(cafile=ca_file or None)
        return http.client.HTTPSConnection(host, url.port, timeout=timeout_s, context=context)
    return http.client.HTTPConnection(host, url.port, timeout=timeout_s)


def fault_at(endpoint: Endpoint, ca_file: str) -> str | None:
    """Return what shows that the endpoint does not exist, such as ``404``; None if it does.

    Raises:
        OSError, http.client.HTTPException: there is no response.
    """
    parts = urlsplit(endpoint.full_url())
    connection = connection_to(parts, ca_file, _TIMEOUT_S)
    try:
        target = f"{parts.path}?{parts.query}" if parts.query else parts.path
        headers = {
            "content-type": "application/json",
            "user-agent": "claude-proxy",
            "accept": "application/json",
        }
        connection.request("POST", target, b"{}", headers)
        response = connection.getresponse()
        body = response.read(_MAX_BODY_BYTES).lower()
    finally:
        connection.close()
    if 300 <= response.status < 400:
        return f"redirected ({response.status})"
    if b"<html" in body or b"<!doctype" in body:
        return f"an HTML page ({response.status})"
    # A server that has the endpoint and misses the model says 404, too.
    if response.status in (404, 405) and b"model" not in body:
        return f"not there ({response.status})"
    return None


def find_neighbour(endpoint: Endpoint, ca_file: str) -> Endpoint | None:
    """Return the first neighbouring endpoint that exists, or None."""
    for other in endpoint.neighbours():
        try:
            if fault_at(other, ca_file) is None:
                return other
        except (OSError, http.client.HTTPException):
            continue
    return None
