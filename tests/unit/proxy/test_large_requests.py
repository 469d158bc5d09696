"""Which requests are large, and where the work on them is done."""

from __future__ import annotations

import threading

import pytest

from proxyd.proxy.large_requests import LargeRequests, is_large


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"[" + b"1," * 100_000 + b"1]", False),  # so few bytes are parsed quickly whatever they are
        (b'["' + b"x" * (1 << 20) + b'"]', False),
        (b'["' + b",{[" * (1 << 18) + b'"]', False),
        (b'["' + b"x" * (2 << 20) + b'"]', True),
        (b'[{"a":"' + b"x" * 300_000 + b'"},' + b"1," * 19_000 + b"1]", False),
        (b'[{"a":"' + b"x" * 300_000 + b'"},' + b"1," * 20_001 + b"1]", True),
    ],
)
def test_a_request_is_large_by_its_bytes_or_values(body: bytes, expected: bool) -> None:
    assert is_large(body) is expected


async def test_work_is_done_in_one_other_thread() -> None:
    large = LargeRequests()
    threads = {await large.run(threading.get_ident) for _ in range(20)}
    assert len(threads) == 1
    assert threading.get_ident() not in threads


async def test_errors_are_raised_where_the_work_is_awaited() -> None:
    with pytest.raises(ZeroDivisionError):
        await LargeRequests().run(divmod, 1, 0)
