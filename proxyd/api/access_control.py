"""Access control: checks on the head of a request, before its body is read."""

from __future__ import annotations

import functools
import re
from urllib.parse import urlsplit

from aiohttp import web

from proxyd.api.request_keys import IS_PEER, VIRTUAL_KEY
from proxyd.config.settings import Settings
from proxyd.errors import BadCredential, Forbidden, Misdirected
from proxyd.providers.base import ClientKeys
from proxyd.proxy.relay import Relay
from proxyd.secret import Secret
from proxyd.store.virtual_keys import is_virtual
from proxyd.urls import is_loopback

__all__ = [
    "TOKEN_HEADER",
    "check_key",
    "check_origin",
    "check_token",
    "comes_from_api_client",
    "is_near",
    "without_token",
]

#: A header for the access token, besides the two in which Claude Code sends a credential.
TOKEN_HEADER = "x-claude-proxy-token"  # noqa: S105 - a header's name

#: An authority: a name or a bracketed address, and an optional port (RFC 9110, 7.2).
_AUTHORITY = re.compile(r"(?:\[([0-9a-f:.]+)\]|([a-z0-9._-]+))(?::([0-9]{0,5}))?\Z", re.IGNORECASE)
_DEFAULT_PORTS = {"http": 80, "https": 443}
#: A page of another site can send none of these without a CORS preflight, which we do not grant.
_API_HEADERS = ("anthropic-version", "x-api-key", "authorization", TOKEN_HEADER)
#: Headers that proxies add to a request.
_FORWARDED = ("forwarded", "x-forwarded-for", "x-real-ip", "via")


def check_origin(request: web.Request, settings: Settings) -> None:
    """Refuse requests that a page of another site made a browser send.

    Raises:
        Misdirected: the ``Host`` is not ours, as in DNS rebinding.
        Forbidden: the browser names another site as the origin.
    """
    headers = request.headers
    hosts = [headers.get("host", "")]
    if not request.raw_path.startswith("/"):
        hosts.append(urlsplit(request.raw_path).netloc)  # the target of a request to a forward proxy
    for host in hosts:
        if not _is_allowed_host(host, settings.host, settings.allowed_hosts):
            raise Misdirected(
                f"this proxy does not serve the host {host[:200]!r}: use localhost, or add the name to "
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
        raise Forbidden("requests from web pages of other sites are refused")


def is_near(request: web.Request) -> bool:
    """Return whether the request comes from this machine, and not through a proxy that says so.

    A worker asks the others what it was asked itself, after it has checked who asks.
    """
    if request.get(IS_PEER, False):
        return True
    remote = request.remote
    return (
        remote is not None and is_loopback(remote) and not any(name in request.headers for name in _FORWARDED)
    )


def comes_from_api_client(request: web.Request) -> bool:
    """Return whether a header shows that the sender is an API client and not a page of another site."""
    return any(name in request.headers for name in _API_HEADERS)


def check_token(request: web.Request, settings: Settings) -> None:
    """Require the access token where one is set.

    Raises:
        BadCredential: the token is missing or wrong.
    """
    if settings.auth_token is not None and not _has_token(request, settings.auth_token):
        raise BadCredential(
            f"this proxy asks for its access token: send it as the key, or in the header {TOKEN_HEADER} "
            "(ANTHROPIC_CUSTOM_HEADERS)"
        )


def check_key(request: web.Request, relay: Relay) -> None:
    """Require a virtual key where ``auth: keys`` says so, and note it in the request. The access token counts as well.

    Raises:
        BadCredential: it is missing, unknown, expired or revoked.
    """
    settings = relay.settings
    if settings.auth != "keys" or (
        settings.auth_token is not None and _has_token(request, settings.auth_token)
    ):
        return
    request[VIRTUAL_KEY] = relay.key_ring.identify(_offered(request))


def without_token(keys: ClientKeys, settings: Settings) -> ClientKeys:
    """Return `keys` without our own access token and without virtual keys, which no upstream may see."""
    for key in keys.all:
        if key == settings.auth_token or is_virtual(key.reveal()):
            keys = keys.without(key)
    return keys


def _has_token(request: web.Request, token: Secret) -> bool:
    return any(token.matches(value) for value in _offered(request))


def _offered(request: web.Request) -> list[str]:
    """Return the values of the headers in which a client may send a credential for the proxy."""
    keys = ClientKeys.from_headers(request.headers)
    values = (
        request.headers.get(TOKEN_HEADER),
        *(key.reveal() for key in (keys.bearer, keys.api_key) if key),
    )
    return [value for value in values if value]


@functools.lru_cache(maxsize=64)  # a client sends the same one each time
def _is_allowed_host(authority: str, own_host: str, allowed: tuple[str, ...]) -> bool:
    host, _ = _parse_authority(authority)
    return host is not None and (_is_ours(host, allowed) or host == own_host.strip("[]").lower().rstrip("."))


@functools.lru_cache(maxsize=64)
def _is_our_origin_at(origin: str, authority: str, own_port: int, allowed: tuple[str, ...]) -> bool:
    scheme, _, origin_authority = origin.lower().partition("://")
    host, port = _parse_authority(origin_authority)
    if host is None or scheme not in _DEFAULT_PORTS or not _is_ours(host, allowed):
        return False
    default = _DEFAULT_PORTS[scheme]
    # The port that the browser connects to, which differs from ours behind a container's mapping or a proxy.
    visible = _parse_authority(authority)[1] or default
    return (port or default) in ((visible, own_port) if is_loopback(host) else (visible, own_port, default))


def _is_our_origin(origin: str, authority: str, settings: Settings) -> bool:
    return _is_our_origin_at(origin, authority, settings.port, settings.allowed_hosts)


def _is_ours(host: str, allowed: tuple[str, ...]) -> bool:
    return is_loopback(host) or host in allowed


def _parse_authority(authority: str) -> tuple[str | None, int | None]:
    """Return the host in lower case and the port; (None, None) if the text is not an authority."""
    match = _AUTHORITY.match(authority)
    if match is None:
        return None, None
    address, name, port = match.groups()
    return (address or name.rstrip(".")).lower(), int(port) if port else None
