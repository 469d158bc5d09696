"""Whose address is a client's, by what proxies say."""

from __future__ import annotations

from typing import Any
from unittest.mock import Mock

from aiohttp.test_utils import make_mocked_request
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from proxyd.api.client_address import client_address
from tests.support.rows import check_rows

PROXIES = ("10.0.0.0/8", "fd00::1")
XFF, FORWARDED = "X-Forwarded-For", "Forwarded"


def address_for(peer: str, *headers: tuple[str, str], proxies: tuple[str, ...] = PROXIES) -> str:
    transport = Mock()
    names: dict[str, Any] = {"peername": (peer, 4711)}
    transport.get_extra_info.side_effect = lambda name, default=None: names.get(name, default)
    request = make_mocked_request("GET", "/", CIMultiDict(headers), transport=transport)
    return str(client_address(request, proxies))


def test_the_last_address_that_is_no_proxys_is_the_clients() -> None:
    def check(row: tuple[str, list[tuple[str, str]], str]) -> None:
        peer, headers, expected = row
        assert address_for(peer, *headers) == expected

    v6 = '"[2001:db8::5]:4711"'
    check_rows(
        [
            ("10.0.0.1", [], "10.0.0.1"),
            ("10.0.0.1", [(XFF, "192.0.2.1")], "192.0.2.1"),
            ("::ffff:10.0.0.1", [(XFF, "192.0.2.1")], "192.0.2.1"),
            ("fd00::1", [(XFF, "2001:DB8::5")], "2001:db8::5"),
            # What a client invents stands before what the proxy adds.
            ("10.0.0.1", [(XFF, "127.0.0.1, 192.0.2.1")], "192.0.2.1"),
            ("10.0.0.1", [(XFF, "127.0.0.1"), (XFF, "192.0.2.1")], "192.0.2.1"),
            ("10.0.0.1", [(XFF, "10.0.0.9, 192.0.2.1")], "192.0.2.1"),
            (
                "10.0.0.1",
                [(FORWARDED, "for=127.0.0.1"), (FORWARDED, "for=192.0.2.1;proto=https")],
                "192.0.2.1",
            ),
            # Through two proxies, and from a client that is one.
            ("10.0.0.1", [(XFF, "127.0.0.1, 192.0.2.1, 10.0.0.2")], "192.0.2.1"),
            ("10.0.0.1", [(XFF, "10.0.0.3, 10.0.0.2")], "10.0.0.3"),
            # With ports, in brackets, in quotes, in any case.
            ("10.0.0.1", [(XFF, "192.0.2.1:4711")], "192.0.2.1"),
            ("10.0.0.1", [(XFF, "[2001:db8::5]:80")], "2001:db8::5"),
            ("10.0.0.1", [(FORWARDED, f"For={v6};proto=https;host=x, FOR=10.0.0.2")], "2001:db8::5"),
            ("10.0.0.1", [(FORWARDED, 'for="192.0.2.\\1" ; by=_p ,')], "192.0.2.1"),
            # A hop that cannot be read ends the way; what stands before it may be invented.
            ("10.0.0.1", [(XFF, "192.0.2.1, unknown, 10.0.0.2")], "10.0.0.2"),
            ("10.0.0.1", [(XFF, "192.0.2.1, 300.1.1.1")], "10.0.0.1"),
            ("10.0.0.1", [(XFF, "fe80::1%\x1b[2J")], "10.0.0.1"),
            ("10.0.0.1", [(FORWARDED, "for=192.0.2.1, for=_hidden")], "10.0.0.1"),
            ("10.0.0.1", [(FORWARDED, "for=192.0.2.1, proto=https")], "10.0.0.1"),
            # A quotation mark left open cannot hide what the proxy adds behind it.
            ("10.0.0.1", [(FORWARDED, 'for=6.6.6.6;by=", for=192.0.2.1')], "10.0.0.1"),
            ("10.0.0.1", [(FORWARDED, 'for=6.6.6.6;by="'), (FORWARDED, "for=192.0.2.1")], "192.0.2.1"),
            # One header is the proxy's, the other may be the client's.
            ("10.0.0.1", [(XFF, "192.0.2.1"), (FORWARDED, "for=192.0.2.1")], "192.0.2.1"),
            ("10.0.0.1", [(XFF, "192.0.2.1"), (FORWARDED, "for=6.6.6.6")], "10.0.0.1"),
            # Whatever anybody else says is ignored.
            ("192.0.2.9", [(XFF, "6.6.6.6"), (FORWARDED, "for=6.6.6.6")], "192.0.2.9"),
            ("127.0.0.1", [(XFF, "6.6.6.6")], "127.0.0.1"),
            ("192.0.2.9", [("X-Real-IP", "6.6.6.6")], "192.0.2.9"),
        ],
        check,
    )
    assert address_for("10.0.0.1", (XFF, "6.6.6.6"), proxies=()) == "10.0.0.1"


@given(st.text(alphabet='for=",;\\ 6.[]:_%a', max_size=40), st.booleans())
def test_no_client_chooses_its_address(forged: str, is_own_line: bool) -> None:
    """Whatever stands before the proxy's element, the result is what the proxy says or the proxy itself."""
    headers = [(FORWARDED, forged), (FORWARDED, "for=192.0.2.1")]
    if not is_own_line:
        headers = [(FORWARDED, f"{forged}, for=192.0.2.1")]
    assert address_for("10.0.0.1", *headers) in ("192.0.2.1", "10.0.0.1")
    headers = [(name.replace(FORWARDED, XFF), value.replace("for=192", "192")) for name, value in headers]
    assert address_for("10.0.0.1", *headers) == "192.0.2.1"
