"""TLS to upstreams: the certificate authorities that are trusted, and our own certificate."""

from __future__ import annotations

import asyncio
import ssl

__all__ = ["TLSContext"]


class TLSContext:
    """A TLS context that is made when it is first needed.

    Loading the authorities of the system takes up to 80 ms and some megabytes, which a daemon whose upstreams are all
    on this machine need not spend.

    Args:
        ca_file: PEM file of certificate authorities, instead of the system's.
        client_cert: PEM file of a certificate and its key, for upstreams that ask for one.
    """

    def __init__(self, ca_file: str = "", client_cert: str = "") -> None:
        self._ca_file, self._client_cert = ca_file, client_cert
        self._context: ssl.SSLContext | None = None
        self._loading: asyncio.Future[ssl.SSLContext] | None = None

    def load(self) -> ssl.SSLContext:
        """Make the context now.

        Raises:
            OSError: a file could not be read, or holds nothing of the kind.
        """
        context = ssl.create_default_context(cafile=self._ca_file or None)
        context.set_alpn_protocols(["http/1.1"])
        if self._client_cert:
            # A key with a passphrase would be asked for at the terminal.
            context.load_cert_chain(self._client_cert, password=lambda: "")
        self._context = context
        return context

    async def get(self) -> ssl.SSLContext:
        """Return the context, made in a thread if that was not done yet.

        Raises:
            OSError: as `load`.
        """
        if self._context is not None:
            return self._context
        if self._loading is None or (self._loading.done() and self._loading.exception() is not None):
            self._loading = asyncio.ensure_future(asyncio.to_thread(self.load))
        return await asyncio.shield(self._loading)
