"""A certificate for this machine, made by openssl, for upstreams that speak TLS."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Certificate", "make_certificate"]


@dataclass(frozen=True)
class Certificate:
    """A certificate that vouches for itself, and its key."""

    path: Path
    key: Path

    def server_context(self) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self.path, self.key)
        return context

    def client_context(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=self.path)


def make_certificate(folder: Path) -> Certificate | None:
    """Write a certificate for ``localhost`` into `folder`; returns None where openssl is not installed."""
    if shutil.which("openssl") is None:
        return None
    made = Certificate(folder / "certificate.pem", folder / "key.pem")
    options = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    options += ["-subj", "/CN=bench", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    files = ["-keyout", str(made.key), "-out", str(made.path)]
    subprocess.run(["openssl", "req", "-x509", *options, *files], check=True, capture_output=True)
    return made
