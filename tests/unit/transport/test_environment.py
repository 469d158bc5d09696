"""Proxies and credentials of the environment."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from proxyd.transport.environment import Proxy, basic_auth, credentials_of, proxy_for
from proxyd.transport.faults import ProxyUnsupported

_NAMES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Without any proxy."""
    for name in _NAMES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    return monkeypatch


def test_there_is_none() -> None:
    assert proxy_for("https", "api.example.com") is None


@pytest.mark.parametrize(
    ("variable", "scheme"), [("HTTPS_PROXY", "https"), ("http_proxy", "http"), ("ALL_PROXY", "https")]
)
def test_a_proxy_is_found(variable: str, scheme: str, environment: pytest.MonkeyPatch) -> None:
    environment.setenv(variable, "http://us%40er:w%3Ard@Proxy.example:3128/")
    found = proxy_for(scheme, "api.example.com")
    assert found == Proxy("proxy.example", 3128, False, basic_auth("us@er", "w:rd"))
    assert found.address == "http://proxy.example:3128"


@pytest.mark.parametrize(
    ("value", "address"),
    [
        ("proxy:3128", "http://proxy:3128"),
        ("http://proxy", "http://proxy:80"),
        ("https://proxy", "https://proxy:443"),
        ("http://[::1]:8080", "http://[::1]:8080"),
    ],
)
def test_how_an_address_may_be_written(value: str, address: str, environment: pytest.MonkeyPatch) -> None:
    environment.setenv("HTTPS_PROXY", value)
    found = proxy_for("https", "api.example.com")
    assert found is not None
    assert (found.address, found.auth) == (address, "")


def test_exceptions_need_no_proxy(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("HTTPS_PROXY", "http://proxy:3128")
    environment.setenv("NO_PROXY", "localhost,.example.com")
    assert proxy_for("https", "api.example.com") is None
    assert proxy_for("https", "api.example.org") is not None


@pytest.mark.parametrize("value", ["socks5://127.0.0.1:1080", "socks5h://x", "ftp://x"])
def test_other_kinds_are_refused(value: str, environment: pytest.MonkeyPatch) -> None:
    environment.setenv("ALL_PROXY", value)
    with pytest.raises(ProxyUnsupported, match=value.partition(":")[0]):
        proxy_for("https", "api.example.com")


@pytest.mark.parametrize("value", ["http://", "http://proxy:port"])
def test_an_address_without_host_or_port_is_refused(value: str, environment: pytest.MonkeyPatch) -> None:
    environment.setenv("HTTPS_PROXY", value)
    with pytest.raises(ValueError, match=r"host|[Pp]ort"):
        proxy_for("https", "api.example.com")


def test_credentials_of_netrc(tmp_path: Path, environment: pytest.MonkeyPatch) -> None:
    path = tmp_path / "netrc"
    environment.setenv("NETRC", str(path))
    assert credentials_of("api.example.com") == ""
    path.write_text("machine api.example.com login me password word\n")
    path.chmod(0o600)
    assert credentials_of("api.example.com") == "Basic " + base64.b64encode(b"me:word").decode()
    assert credentials_of("other.example.com") == ""
    path.write_text("machine api.example.com nonsense\n")
    assert credentials_of("api.example.com") == ""
