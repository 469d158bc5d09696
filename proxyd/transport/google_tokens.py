"""Access tokens from Google's application default credentials, for ``access_token: application-default``.

Google's library finds the credentials (``GOOGLE_APPLICATION_CREDENTIALS``, the login of gcloud, the metadata server of
the machine) and exchanges them for a token that is valid for an hour. It blocks, so it runs in a thread; it is imported
when the first token is needed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime, timezone
from functools import partial
from time import time
from typing import Any

from proxyd.errors import NO_RETRY, BadCredential, ProxyError, Unreachable
from proxyd.logs.setup import get_logger
from proxyd.redaction import redacted
from proxyd.secret import Secret

__all__ = ["GoogleTokens", "obtain_token"]

_SCOPE = "https://www.googleapis.com/auth/cloud-platform"
#: A token that is valid for less than this is renewed while calls still use it.
_RENEW_S = 600.0
#: One that is valid for less than this is not used: the upstream checks it a little later.
_LEAST_S = 20.0
#: How long a call waits for a token. Looking for a metadata server takes 10 s where there is none.
_WAIT_S = 30.0
#: Limit of one request of the library.
_REQUEST_S = 10.0
_MAX_WORDS = 300

log = get_logger("upstream")

#: Returns a token and when it expires, in seconds since 1970.
Obtain = Callable[[], tuple[str, float]]


class GoogleTokens:
    """The token for all calls, renewed ahead of its expiry.

    Args:
        obtain: see `Obtain`; called in a thread, once at a time.
        clock: seconds since 1970.
    """

    def __init__(self, obtain: Obtain | None = None, clock: Callable[[], float] = time) -> None:
        self._obtain = obtain or obtain_token
        self._clock = clock
        self._token: Secret | None = None
        self._expires = 0.0
        self._renewal: asyncio.Task[None] | None = None

    async def token(self) -> Secret:
        """Return a token that is valid.

        Raises:
            BadCredential: there are no credentials, or Google refuses them.
            Unreachable: Google could not be reached in time.
        """
        left_s = self._expires - self._clock()
        if self._token is not None and left_s >= _RENEW_S:
            return self._token
        renewal = self._renewal
        if renewal is None or renewal.done():
            renewal = self._renewal = asyncio.create_task(self._renew())
            renewal.add_done_callback(_log_failure)
        if self._token is None or left_s < _LEAST_S:
            try:
                # Shielded: other calls wait for it too.
                await asyncio.wait_for(asyncio.shield(renewal), _WAIT_S)
            except asyncio.TimeoutError:
                raise Unreachable(f"no access token came from Google within {_WAIT_S:g} s") from None
        assert self._token is not None, "it was renewed"
        return self._token

    async def _renew(self) -> None:
        value, self._expires = await asyncio.to_thread(self._obtain)
        self._token = Secret(value)


def _log_failure(renewal: asyncio.Task[None]) -> None:
    """Log why a renewal failed, since perhaps no call waits for it."""
    failure = None if renewal.cancelled() else renewal.exception()
    if failure is not None:
        why = failure.message if isinstance(failure, ProxyError) else type(failure).__name__
        log.warning("google_token.not_renewed", why=why)


def obtain_token() -> tuple[str, float]:
    """Return a new token and when it expires. Blocks.

    Raises:
        BadCredential: the library is not installed, there are no credentials, or Google refuses them.
        Unreachable: Google could not be reached.
    """
    try:
        import google.auth
        from google.auth import exceptions
        from google.auth.transport.requests import Request
    except ImportError:
        raise BadCredential(
            "access_token: application-default needs Google's library: pip install 'claude-proxyd[vertex]'",
            headers=NO_RETRY,
        ) from None
    request = partial(Request(), timeout=_REQUEST_S)
    credentials: Any
    try:
        credentials, _ = google.auth.default(scopes=[_SCOPE])
        credentials.refresh(request)
    except exceptions.DefaultCredentialsError:
        raise BadCredential(
            "Google's application default credentials were not found: run 'gcloud auth application-default login', or "
            "set GOOGLE_APPLICATION_CREDENTIALS to a file of credentials where claude-proxy runs",
            headers=NO_RETRY,
        ) from None
    except exceptions.TransportError as exc:
        raise Unreachable(f"no access token could be obtained from Google: {_words(exc)}") from None
    except exceptions.GoogleAuthError as exc:
        if exc.retryable:
            raise Unreachable(f"no access token could be obtained from Google: {_words(exc)}") from None
        raise BadCredential(
            f"Google refused the application default credentials: {_words(exc)}; run 'gcloud auth application-default "
            "login' again, or replace the file of GOOGLE_APPLICATION_CREDENTIALS",
            headers=NO_RETRY,
        ) from None
    return str(credentials.token), _seconds(credentials.expiry)


def _words(exc: Exception) -> str:
    text: Any = exc.args[0] if exc.args else type(exc).__name__
    return redacted(str(text)[:_MAX_WORDS])


def _seconds(expiry: datetime | None) -> float:
    """Return an expiry, in UTC without a time zone, in seconds since 1970; some credentials name none."""
    return time() + 3600 if expiry is None else expiry.replace(tzinfo=timezone.utc).timestamp()
