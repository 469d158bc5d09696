"""Signed data that an upstream could not read."""

from __future__ import annotations

from proxyd.providers.refused_data import RefusedData


def test_what_was_refused_is_known_and_nothing_else() -> None:
    refused = RefusedData()
    assert "a" not in refused
    refused.add(["a", "b"])
    assert "a" in refused
    assert "b" in refused
    assert "c" not in refused


def test_it_does_not_grow_without_bound() -> None:
    refused = RefusedData()
    refused.add(str(number) for number in range(3000))
    assert "2999" in refused
    assert "0" not in refused
