"""The setting ``trusted_proxies``: what is taken, and what the errors say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from proxyd.config.networks import address_of, is_in
from proxyd.config.settings_loader import decide_settings
from proxyd.daemon.configuration import load_configuration
from proxyd.errors import ConfigError
from tests.support.rows import check_rows


def test_addresses_and_networks_are_taken_in_one_form() -> None:
    given = ["10.0.0.7", "192.168.0.0/16", "fd00::/8", "2001:DB8::1"]
    expected = ("10.0.0.7", "192.168.0.0/16", "fd00::/8", "2001:db8::1")
    assert decide_settings({}, {}, {"trusted_proxies": given}).trusted_proxies == expected
    assert decide_settings({}, {}, {"trusted_proxies": "127.0.0.1"}).trusted_proxies == ("127.0.0.1",)
    variable = {"CLAUDE_PROXY_TRUSTED_PROXIES": "127.0.0.1, fd00::/8"}
    assert decide_settings({}, variable).trusted_proxies == ("127.0.0.1", "fd00::/8")


def test_errors_say_what_is_wrong_and_where(tmp_path: Path) -> None:
    path = tmp_path / "models.yaml"

    def check(row: tuple[Any, str]) -> None:
        value, sentence = row
        path.write_text(
            f"settings:\n  port: 0\n  trusted_proxies: {value}\nmodels: [{{model_id: m, api_base: 'builtin:demo'}}]\n"
        )
        path.chmod(0o600)
        with pytest.raises(ConfigError) as caught:
            load_configuration({}, str(path), {})
        (fault,) = caught.value.message.splitlines()
        assert fault.startswith(f"{path}:3:"), fault
        assert f"settings.trusted_proxies: {sentence}" in fault

    check_rows(
        [
            (
                "[proxy1]",
                "expected an IP address, or a network such as 10.0.0.0/8; got 'proxy1'; names are not",
            ),
            ("[10.0.0.1/8]", "10.0.0.1/8 is no network; write 10.0.0.0/8, or 10.0.0.1 for the address alone"),
            ("[10.0.0.0/33]", "expected an IP address, or a network such as 10.0.0.0/8; got '10.0.0.0/33'"),
            ("['::/0']", "::/0 has all addresses, so every client could claim to be another; name fewer"),
            ("0.0.0.0/0", "0.0.0.0/0 has all addresses"),
            ("[10]", "expected an IP address, or a network such as 10.0.0.0/8; got 10, which needs quotes"),
            ("[10.0.0.7, 10.0.0.7]", "'10.0.0.7' stands here twice; keep one"),
            ("{a: b}", "expected a list of texts, each an IP address"),
        ],
        check,
    )


def test_an_ipv4_address_in_ipv6_form_is_that_address() -> None:
    mapped = address_of("::ffff:10.0.0.7")
    assert mapped is not None
    assert str(mapped) == "10.0.0.7"
    assert is_in(mapped, ("fd00::/8", "10.0.0.0/8"))
    assert not is_in(mapped, ("fd00::/8",))
    assert address_of("proxy1") is None
