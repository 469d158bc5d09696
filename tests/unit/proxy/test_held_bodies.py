"""The limit on the bytes of request bodies that are held at once."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxyd.errors import Overloaded
from proxyd.proxy.held_bodies import HeldBodies, HeldBody


def test_bodies_share_one_limit() -> None:
    bodies = HeldBodies()
    first, second = HeldBody(bodies), HeldBody(bodies)
    first.grow(60, 100)
    second.grow(40, 100)
    with pytest.raises(Overloaded, match="max_parsing_bytes") as caught:
        second.grow(1, 100)
    assert caught.value.headers == {"retry-after": "1"}
    first.release()
    second.grow(60, 100)
    assert bodies.held_bytes == 100


def test_a_single_body_may_exceed_the_limit() -> None:
    bodies = HeldBodies()
    only = HeldBody(bodies)
    only.grow(150, 100)
    only.grow(150, 100)
    with pytest.raises(Overloaded):
        HeldBody(bodies).grow(1, 100)


def test_peak_is_that_since_the_last_call() -> None:
    bodies = HeldBodies()
    body = HeldBody(bodies)
    body.grow(70, 100)
    body.release()
    assert bodies.take_peak() == 70
    assert bodies.take_peak() == 0


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 50)), max_size=40))
def test_all_is_given_back(steps: list[tuple[int, int]]) -> None:
    bodies = HeldBodies()
    shares = [HeldBody(bodies) for _ in range(5)]
    sizes = [0] * 5
    for index, size in steps:
        if not size:
            shares[index].release()
            sizes[index] = 0
            continue
        try:
            shares[index].grow(size, 100)
        except Overloaded:
            continue
        sizes[index] += size
        assert bodies.held_bytes == sum(sizes)
    for share in shares:
        share.release()
        share.release()
    assert bodies.held_bytes == 0
