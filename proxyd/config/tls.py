"""The setting ``tls``: a second address, on which clients of other machines speak TLS.

The first one stays as it is, since the commands of this machine use it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from proxyd.config.kinds import Kind, table, text, whole_number

if TYPE_CHECKING:
    import ssl

__all__ = ["TLS", "Tls", "server_context", "tls_kind", "tls_of"]

_PORT = 8443
#: The keys of the mapping.
TLS: Mapping[str, tuple[Kind, str]] = {
    "cert": (text("the path of a PEM file"), "PEM file of the certificate and those that it depends on."),
    "key": (
        text("the path of a PEM file"),
        "PEM file of its key; left out where it is in the file of the certificate.",
    ),
    "client_ca": (
        text("the path of a PEM file"),
        "PEM file of authorities; clients must show a certificate of one of them.",
    ),
    "host": (text("an address or host name"), "Address to listen on with TLS; that of 'host' if left out."),
    "port": (whole_number(0, 65535), f"Port to listen on with TLS; {_PORT} if left out."),
}


def tls_kind() -> Kind:
    """Kind of the mapping."""
    return table("a mapping such as {cert: cert.pem, key: key.pem}", TLS)


@dataclass(frozen=True, slots=True)
class Tls:
    """What is in force, with whole paths."""

    cert: Path
    key: Path
    client_ca: Path | None
    host: str
    port: int

    @property
    def files(self) -> tuple[Path, ...]:
        """All files, for a watch."""
        files = (self.cert, self.key, *(() if self.client_ca is None else (self.client_ca,)))
        return tuple(dict.fromkeys(files))


def tls_of(values: Mapping[str, Any], host: str, folder: Path) -> Tls | None:
    """Return what the mapping says; None where it is empty.

    Args:
        host: the setting ``host``.
        folder: base of relative paths.

    Raises:
        ValueError: there is no certificate in it.
    """
    if not values:
        return None
    if "cert" not in values:
        raise ValueError("cert: expected the path of a PEM file; it is missing")
    paths = {
        name: folder / os.path.expanduser(values[name])
        for name in ("cert", "key", "client_ca")
        if name in values
    }
    cert = paths["cert"]
    return Tls(
        cert,
        paths.get("key", cert),
        paths.get("client_ca"),
        values.get("host", host),
        values.get("port", _PORT),
    )


def server_context(tls: Tls) -> ssl.SSLContext:
    """Read the files.

    Raises:
        ValueError: one of them is missing or not what it should be; the message names it.
    """
    import ssl  # here, because most daemons and commands do without

    def refuse() -> str:
        raise ValueError("it is encrypted, and nobody is there to type its passphrase")

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.set_alpn_protocols(["http/1.1"])
    for name, path in (("cert", tls.cert), ("key", tls.key), ("client_ca", tls.client_ca)):
        if path is not None and not path.is_file():
            raise ValueError(f"{name}: expected a PEM file; there is none at {path}")
    try:
        context.load_cert_chain(tls.cert, tls.key, password=refuse)
    except (OSError, ValueError) as exc:
        raise ValueError(
            f"expected a certificate in {tls.cert} and its key in {tls.key}, in PEM form ({_reason(exc)})"
        ) from None
    if tls.client_ca is not None:
        try:
            context.load_verify_locations(tls.client_ca)
        except (OSError, ValueError) as exc:
            raise ValueError(
                f"client_ca: expected certificates in PEM form in {tls.client_ca} ({_reason(exc)})"
            ) from None
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def _reason(exc: OSError | ValueError) -> str:
    return str(getattr(exc, "reason", None) or getattr(exc, "strerror", None) or exc)
