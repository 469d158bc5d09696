"""Exceptions of the transport. `proxyd.transport.client.failure_of` makes the error that a client sees of each."""

from __future__ import annotations

import os

__all__ = [
    "CertificateRejected",
    "ConnectFailed",
    "ConnectTimeout",
    "InvalidAddress",
    "NameNotResolved",
    "NoResponse",
    "NotHTTP",
    "ProxyRefused",
    "ProxyUnreachable",
    "ProxyUnsupported",
    "TLSFailed",
    "TransportError",
    "UnexpectedResponse",
]


class TransportError(Exception):
    """Base of all of them."""


class InvalidAddress(TransportError):
    """The URL of a request is none that can be called."""


class ConnectTimeout(TransportError):
    """No connection was made in time."""


class NameNotResolved(TransportError):
    """A name has no address, or nobody says which."""

    def __init__(self, cause: OSError) -> None:
        super().__init__("its name could not be resolved")
        self.cause = cause


class ConnectFailed(TransportError):
    """The system could not open a connection; the message says why."""

    def __init__(self, cause: OSError) -> None:
        # asyncio puts the address into the error's own text.
        super().__init__(os.strerror(cause.errno).lower() if cause.errno else "connection failed")
        self.cause = cause


class TLSFailed(TransportError):
    """A TLS handshake failed; the message says why, in the words of the TLS library."""


class CertificateRejected(TLSFailed):
    """The certificate of the upstream could not be verified."""


class ProxyUnsupported(TransportError):
    """The proxy of the environment has a scheme that is not supported."""

    def __init__(self, scheme: str) -> None:
        super().__init__(scheme)
        self.scheme = scheme


class ProxyUnreachable(TransportError):
    """The proxy of the environment could not be connected to.

    Args:
        address: its scheme, host and port.
        reason: why.
    """

    def __init__(self, address: str, reason: str) -> None:
        super().__init__(f"{address}: {reason}")
        self.address, self.reason = address, reason


class ProxyRefused(TransportError):
    """The proxy of the environment did not make a tunnel.

    Args:
        status: of its response; None if it sent none that is HTTP.
    """

    def __init__(self, address: str, status: int | None) -> None:
        super().__init__(f"{address}: {status}")
        self.address, self.status = address, status


class NoResponse(TransportError):
    """The upstream closed the connection before the head of a response was complete.

    Attributes:
        is_untouched: not a byte of a response had arrived.
    """

    def __init__(self, *, is_untouched: bool) -> None:
        super().__init__()
        self.is_untouched = is_untouched


class NotHTTP(TransportError):
    """What came is no HTTP response; the message says why."""


class UnexpectedResponse(TransportError):
    """The upstream sent something that can't be the response to the current request."""
