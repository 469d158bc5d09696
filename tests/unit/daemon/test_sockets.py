"""Which sockets are opened, and what is said when they cannot be."""

from __future__ import annotations

import socket

import pytest

from proxyd.daemon.sockets import bind_sockets
from proxyd.errors import AddressInUse, ConfigError


def test_the_loopback_address_comes_with_its_ipv6_form_on_the_same_port() -> None:
    sockets = bind_sockets("127.0.0.1", 0)
    try:
        addresses = [each.getsockname()[:2] for each in sockets]
        assert addresses[0][0] == "127.0.0.1"
        assert {port for _, port in addresses} == {addresses[0][1]}
        assert [host for host, _ in addresses[1:]] in ([], ["::1"])  # [] where IPv6 is off
    finally:
        for each in sockets:
            each.close()


def test_a_port_in_use_is_reported_with_what_to_do() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(AddressInUse, match=f"127.0.0.1:{port} is in use.*--port"):
            bind_sockets("127.0.0.1", port)


@pytest.mark.parametrize("host", ["no such host", "203.0.113.1"])
def test_an_address_that_is_not_ours_is_reported(host: str) -> None:
    with pytest.raises(ConfigError, match=r"host: .*(not an address|cannot listen)"):
        bind_sockets(host, 0)
