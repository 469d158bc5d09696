"""The short form of `mutations`: each can still be applied. ``make mutations`` runs them."""

from __future__ import annotations

from tests.system.mutations import MUTATIONS, fault_of


def test_each_mutation_still_finds_its_place() -> None:
    assert [fault for mutation in MUTATIONS if (fault := fault_of(mutation))] == []
    assert all(mutation.before != mutation.after for mutation in MUTATIONS)
    assert len(MUTATIONS) >= 10
