"""A certificate for localhost, made by openssl."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from pathlib import Path

import pytest

__all__ = ["make_certificate", "server_context"]


def make_certificate(folder: Path, *, has_expired: bool = False) -> tuple[Path, Path]:
    """Write a key and a certificate that vouches for itself into `folder`; returns their paths."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed, so there is no certificate to test with")
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    options = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", "/CN=test"]
    options += ["-addext", "subjectAltName=DNS:localhost", "-keyout", str(key)]
    if not has_expired:
        _openssl("req", "-x509", *options, "-days", "2", "-out", str(certificate))
        return key, certificate
    request, config = folder / "request.pem", folder / "ca.cnf"
    _openssl("req", "-new", *options, "-out", str(request))
    config.write_text(_CA.format(folder=folder))
    (folder / "index.txt").write_text("")
    dates = ["-startdate", "20200101000000Z", "-enddate", "20200102000000Z"]
    files = ["-keyfile", str(key), "-in", str(request), "-out", str(certificate)]
    _openssl("ca", "-selfsign", "-batch", "-notext", "-config", str(config), *files, *dates)
    return key, certificate


#: Only this command takes dates.
_CA = """[ca]
default_ca = own
[own]
database = {folder}/index.txt
new_certs_dir = {folder}
rand_serial = yes
default_md = sha256
policy = any
x509_extensions = names
[any]
commonName = supplied
[names]
subjectAltName = DNS:localhost
"""


def _openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)


def server_context(key: Path, certificate: Path) -> ssl.SSLContext:
    """What a server needs to speak TLS with it."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    return context
