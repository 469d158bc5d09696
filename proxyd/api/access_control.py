"""Who may talk to us (operations.md E2, E3): checks on the head of a request, before anything else is read."""

from __future__ import annotations

import functools
from urllib.parse import urlsplit

from aiohttp import web

from proxyd.config.settings import Settings
from proxyd.errors import BadCredential, Forbidden, Misdirected
from proxyd.providers.base import ClientKeys
from proxyd.urls import is_loopback

__all__ = ["REQUEST_ID", "TOKEN_HEADER", "check_origin", "check_token", "without_token"]

#: Our id of a request, given to it before anything else.
REQUEST_ID = web.RequestKey("request_id", str)
#: Where the access token can come, apart from the two headers in which Claude Code sends a credential.
TOKEN_HEADER = "x-claude-proxy-token"  # noqa: S105 - a header's name


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
                f"this proxy does not answer for the host {_name_of(host)[:200]!r}: use localhost, or add the name to "
                "allowed_hosts"
            )
    origin = headers.get("origin")
    if origin is not None:
        if not _is_ours(_name_of(origin.partition("://")[2]), settings.allowed_hosts):
            raise Forbidden("requests from web pages of other sites are not answered")
    elif headers.get("sec-fetch-site") in ("cross-site", "same-site"):
        raise Forbidden("requests from web pages of other sites are not answered")


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
    host = _name_of(authority)
    return _is_ours(host, allowed) or host == _name_of(own_host)


def _is_ours(host: str, allowed: tuple[str, ...]) -> bool:
    return is_loopback(host) or host in allowed


def _name_of(authority: str) -> str:
    """The host name of ``name``, ``name:port`` or ``[address]:port``, in lower case."""
    if authority.startswith("["):
        return authority[1:].partition("]")[0].lower()
    return authority.partition(":")[0].lower().rstrip(".")
