"""Who may talk to us: checks on the head of a request, before anything else is read."""

from __future__ import annotations

import functools
import re
from urllib.parse import urlsplit

from aiohttp import web

from proxyd.config.settings import Settings
from proxyd.errors import BadCredential, Forbidden, Misdirected
from proxyd.providers.base import ClientKeys
from proxyd.urls import is_loopback

__all__ = [
    "REQUEST_ID",
    "TOKEN_HEADER",
    "check_origin",
    "check_token",
    "comes_from_api_client",
    "is_near",
    "without_token",
]

#: Our id of a request, given to it before anything else.
REQUEST_ID = web.RequestKey("request_id", str)
#: Where the access token can come, apart from the two headers in which Claude Code sends a credential.
TOKEN_HEADER = "x-claude-proxy-token"  # noqa: S105 - a header's name

#: A whole authority: a name or an address in brackets, and perhaps a port (RFC 9110, 7.2).
_AUTHORITY = re.compile(r"(?:\[([0-9a-f:.]+)\]|([a-z0-9._-]+))(?::([0-9]{0,5}))?\Z", re.IGNORECASE)
_DEFAULT_PORTS = {"http": 80, "https": 443}
#: A page of another site can have none of them sent without asking first, which nobody answers.
_API_HEADERS = ("anthropic-version", "x-api-key", "authorization", TOKEN_HEADER)
#: What proxies add to a request.
_FORWARDED = ("forwarded", "x-forwarded-for", "x-real-ip", "via")


def check_origin(request: web.Request, settings: Settings) -> None:
    """Refuse what a foreign web page can make a browser send.

    Raises:
        Misdirected: the ``Host`` is not ours: a name that was pointed at this machine (DNS rebinding).
        Forbidden: a browser says that another site's page asks.
    """
    headers = request.headers
    hosts = [headers.get("host", "")]
    if not request.raw_path.startswith("/"):
        hosts.append(urlsplit(request.raw_path).netloc)  # the target of a request to a forward proxy
    for host in hosts:
        if not _may_be_asked_for(host, settings.host, settings.allowed_hosts):
            raise Misdirected(
                f"this proxy does not answer for the host {host[:200]!r}: use localhost, or add the name to "
                "allowed_hosts"
            )
    if "origin" not in headers and "sec-fetch-site" not in headers:
        return
    is_foreign = any(
        site.strip().lower() in ("cross-site", "same-site")
        for value in headers.getall("sec-fetch-site", ())
        for site in value.split(",")
    )
    if is_foreign or not all(
        _is_our_origin(origin, hosts[0], settings) for origin in headers.getall("origin", ())
    ):
        raise Forbidden("requests from web pages of other sites are not answered")


def is_near(request: web.Request) -> bool:
    """Whether the request comes from this machine, as far as can be told: not everybody behind a proxy on it is."""
    remote = request.remote
    return (
        remote is not None and is_loopback(remote) and not any(name in request.headers for name in _FORWARDED)
    )


def comes_from_api_client(request: web.Request) -> bool:
    """Whether a header says that a client of the API asks, and no page of another site in a browser."""
    return any(name in request.headers for name in _API_HEADERS)


def check_token(request: web.Request, settings: Settings) -> None:
    """Ask for the access token where one is set.

    Raises:
        BadCredential: it is missing or wrong.
    """
    token = settings.auth_token
    if token is None:
        return
    keys = ClientKeys.from_headers(request.headers)
    offered = [
        request.headers.get(TOKEN_HEADER),
        *(key.reveal() for key in (keys.bearer, keys.api_key) if key),
    ]
    if not any(token.matches(value) for value in offered if value is not None):
        raise BadCredential(
            f"this proxy asks for its access token: send it as the key, or in the header {TOKEN_HEADER} "
            "(ANTHROPIC_CUSTOM_HEADERS)"
        )


def without_token(keys: ClientKeys, settings: Settings) -> ClientKeys:
    """`keys` less our own access token, which no upstream may see."""
    return keys if settings.auth_token is None else keys.without(settings.auth_token)


@functools.lru_cache(maxsize=64)  # a client asks for the same one each time
def _may_be_asked_for(authority: str, own_host: str, allowed: tuple[str, ...]) -> bool:
    host, _ = _parsed(authority)
    return host is not None and (_is_ours(host, allowed) or host == own_host.strip("[]").lower().rstrip("."))


@functools.lru_cache(maxsize=64)
def _is_our_origin_at(origin: str, authority: str, own_port: int, allowed: tuple[str, ...]) -> bool:
    scheme, _, origin_authority = origin.lower().partition("://")
    host, port = _parsed(origin_authority)
    if host is None or scheme not in _DEFAULT_PORTS or not _is_ours(host, allowed):
        return False
    default = _DEFAULT_PORTS[scheme]
    # The port that the browser asks, which a container may have mapped, or a proxy may have.
    asked = _parsed(authority)[1] or default
    return (port or default) in ((asked, own_port) if is_loopback(host) else (asked, own_port, default))


def _is_our_origin(origin: str, authority: str, settings: Settings) -> bool:
    return _is_our_origin_at(origin, authority, settings.port, settings.allowed_hosts)


def _is_ours(host: str, allowed: tuple[str, ...]) -> bool:
    return is_loopback(host) or host in allowed


def _parsed(authority: str) -> tuple[str | None, int | None]:
    """Host, in lower case, and port of an authority; no host where it is none as a whole."""
    match = _AUTHORITY.match(authority)
    if match is None:
        return None, None
    address, name, port = match.groups()
    return (address or name.rstrip(".")).lower(), int(port) if port else None
