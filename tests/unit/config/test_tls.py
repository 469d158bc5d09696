"""The setting ``tls``: files that are not what they should be."""

from __future__ import annotations

import ssl
import subprocess
from pathlib import Path
from typing import Any

import pytest

from proxyd.config.settings_loader import decide_settings
from proxyd.config.tls import Tls, server_context
from proxyd.errors import ConfigError
from tests.support.certificates import make_certificate

TOKEN = {"auth_token": "a-token-of-16-characters"}


def fault(folder: Path, **values: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        decide_settings({}, {}, {"tls": values, **TOKEN}, {"tls": "m.yaml:1:1"}, folder=folder)
    return caught.value.message


def test_what_is_in_force(tmp_path: Path) -> None:
    key, cert = make_certificate(tmp_path)
    values = {"cert": "certificate.pem", "key": "key.pem", "client_ca": "certificate.pem"}
    found = decide_settings({}, {}, {"tls": values}, {"tls": "m.yaml:1:1"}, folder=tmp_path)
    assert found.tls_address == Tls(cert, key, cert, "127.0.0.1", 8443)
    assert found.tls_address.files == (cert, key)
    assert server_context(found.tls_address).verify_mode == ssl.CERT_REQUIRED
    both = tmp_path / "both.pem"
    both.write_bytes(key.read_bytes() + cert.read_bytes())
    alone = Tls(both, both, None, "::1", 0)
    assert server_context(alone).verify_mode == ssl.CERT_NONE
    assert decide_settings({}, {}).tls_address is None


def test_what_is_wrong_is_named(tmp_path: Path) -> None:
    key, _ = make_certificate(tmp_path)
    (tmp_path / "other").mkdir()
    other, _ = make_certificate(tmp_path / "other")
    encrypted = tmp_path / "encrypted.pem"
    command = ["openssl", "pkey", "-in", key, "-aes256", "-passout", "pass:secret", "-out", encrypted]
    subprocess.run(command, check=True, capture_output=True)
    for values, expected in (
        ({"key": "key.pem"}, "tls: cert: expected the path of a PEM file; it is missing"),
        ({"cert": "none.pem"}, f"tls: cert: expected a PEM file; there is none at {tmp_path}/none.pem"),
        ({"cert": "certificate.pem"}, "tls: expected a certificate in"),
        ({"cert": "certificate.pem", "key": str(other)}, "KEY_VALUES_MISMATCH"),
        ({"cert": "certificate.pem", "key": "encrypted.pem"}, "it is encrypted"),
        ({"cert": "certificate.pem", "key": "key.pem", "client_ca": "key.pem"}, "tls: client_ca: expected"),
        ({"cert": "certificate.pem", "colour": "red"}, "tls: colour"),
    ):
        found = fault(tmp_path, **values)
        assert found.startswith("m.yaml:1:1: ")
        assert expected in found, found


def test_beyond_loopback_it_needs_a_token(tmp_path: Path) -> None:
    make_certificate(tmp_path)
    values = {"cert": "certificate.pem", "key": "key.pem", "host": "0.0.0.0"}
    with pytest.raises(ConfigError, match=r"m.yaml:1:1: 0\.0\.0\.0 is beyond loopback and there is no token"):
        decide_settings({}, {}, {"tls": values}, {"tls": "m.yaml:1:1"}, folder=tmp_path)
    decide_settings({}, {}, {"tls": values, **TOKEN}, {"tls": "m.yaml:1:1"}, folder=tmp_path)
