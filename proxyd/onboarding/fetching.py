"""Fetch a small JSON document over HTTP, with aiohttp's client; every failure says what to do."""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

from proxyd import jsonio
from proxyd.redaction import redacted
from proxyd.urls import address_of, is_loopback_url

__all__ = ["MAX_LIST_BYTES", "FetchFailed", "fetch_json", "http_session", "with_remedy"]

#: OpenRouter's list of some 500 models has about 1 MB.
MAX_LIST_BYTES = 4 << 20
_TIMEOUT_S = 20.0
_CONNECT_S = 10.0
_MAX_VALUES = 1_000_000
_MAX_SHOWN = 200


class FetchFailed(Exception):
    """A document that could not be fetched.

    Attributes:
        message: one sentence that names the address and what to do; it holds no key.
        status: of the response, if there was one.
    """

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.status = status


@asynccontextmanager
async def http_session(ca_file: str = "") -> AsyncIterator[aiohttp.ClientSession]:
    """A session that uses the proxy of the environment, and certificates of `ca_file` beside the system's."""
    context = ssl.create_default_context()
    if ca_file:
        context.load_verify_locations(cafile=ca_file)
    connector = aiohttp.TCPConnector(ssl=context)
    async with aiohttp.ClientSession(connector=connector, trust_env=True) as session:
        yield session


async def fetch_json(
    session: aiohttp.ClientSession,
    url: str,
    *,
    headers: Mapping[str, str] | None = None,
    body: Mapping[str, Any] | None = None,
    timeout_s: float = _TIMEOUT_S,
    max_bytes: int = MAX_LIST_BYTES,
    max_values: int = _MAX_VALUES,
) -> Any:
    """Return the JSON at `url`: of a GET, or of a POST where there is a `body`. Redirects are not followed.

    Raises:
        FetchFailed: there is none.
    """
    where = address_of(url)
    timeout = aiohttp.ClientTimeout(total=timeout_s, sock_connect=min(_CONNECT_S, timeout_s))
    try:
        async with session.request(
            "GET" if body is None else "POST",
            url,
            headers={"accept": "application/json", **(headers or {})},
            json=body,
            timeout=timeout,
            allow_redirects=False,
        ) as response:
            data = await _read(response, max_bytes, where)
            status, kind = response.status, response.content_type
    except aiohttp.InvalidURL:
        raise FetchFailed(f"{where}: not a valid address") from None
    except asyncio.TimeoutError:
        raise FetchFailed(f"{where}: no response within {timeout_s:g} s; {_remedy(url)}") from None
    except (aiohttp.ClientError, OSError) as exc:
        raise FetchFailed(f"{where}: cannot be reached ({_reason(exc)}); {_remedy(url, exc)}") from None
    if status != 200:
        raise FetchFailed(_refusal(where, status, data), status)
    try:
        return jsonio.loads(data, max_values=max_values)
    except jsonio.JSONError:
        if not data.strip():
            what = "an empty response"
        elif kind == "text/html" or data.lstrip()[:1] == b"<":
            what = "a web page"
        else:
            what = f"{kind} that is no JSON" if kind == "application/json" else kind
        raise FetchFailed(f"{where}: expected JSON, got {what}; check the address", status) from None


def with_remedy(message: str, remedy: str) -> str:
    """Return the message of a failure with one more thing to do."""
    return f"{message}, or {remedy}" if "; " in message else f"{message}; {remedy}"


async def _read(response: aiohttp.ClientResponse, max_bytes: int, where: str) -> bytes:
    parts: list[bytes] = []
    size = 0
    async for part in response.content.iter_any():
        size += len(part)
        if size > max_bytes:
            raise FetchFailed(f"{where}: the response is larger than {max_bytes >> 20} MB; check the address")
        parts.append(part)
    return b"".join(parts)


def _refusal(where: str, status: int, data: bytes) -> str:
    if status in (401, 403):
        return (
            f"{where}: the key was refused ({status}{_said(data)}); check that it is whole and of this vendor"
        )
    if 300 <= status < 400:
        return f"{where}: redirects elsewhere ({status}); give the address to which it leads"
    if status in (404, 405, 501):
        return f"{where}: there is no list of models ({status}); check the address"
    if status == 429:
        return f"{where}: too many requests (429{_said(data)}); try again in a minute"
    return f"{where}: the server failed ({status}{_said(data)}); try again in a minute"


def _said(data: bytes) -> str:
    """Return the message of an error in JSON, as the rest of a sentence."""
    try:
        value = jsonio.loads(data)
    except jsonio.JSONError:
        return ""
    error = value.get("error", value) if isinstance(value, dict) else None
    message = error.get("message") if isinstance(error, dict) else error
    return f": {redacted(message)[:_MAX_SHOWN]}" if isinstance(message, str) and message.isprintable() else ""


def _reason(exc: Exception) -> str:
    if isinstance(exc, aiohttp.ClientConnectorCertificateError):
        return "its certificate cannot be verified"
    if isinstance(exc, aiohttp.ClientConnectorDNSError):
        return "there is no such host, or no network"
    if isinstance(exc, aiohttp.ClientConnectorError):
        number = exc.os_error.errno
        return os.strerror(number).lower() if number else "connection failed"
    if isinstance(exc, aiohttp.ServerDisconnectedError):
        return "the connection was closed"
    return (getattr(exc, "strerror", None) or type(exc).__name__).lower()


def _remedy(url: str, exc: Exception | None = None) -> str:
    if isinstance(exc, aiohttp.ClientConnectorCertificateError):
        return "where it is of an authority of your own, set CLAUDE_PROXY_CA_FILE to that authority's certificate"
    return "start the server" if is_loopback_url(url) else "check the network, or HTTPS_PROXY"
