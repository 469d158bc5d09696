"""Entries over which calls are distributed: their faults and warnings."""

from __future__ import annotations

import pytest

from proxyd.config.pools import Target
from tests.support.models_yaml import faults, read

OTHER = "- model_id: other\n  api_base: https://other.example.com/v1\n  api_key: a-key-1234\n"
THIRD = (
    "- model_id: third\n  api_base: https://third.example.com/v1\n  api_key: a-key-5678\n  targets: [other]\n"
)


def entry(*lines: str) -> str:
    head = ["- model_id: m", "  api_base: https://api.example.com/v1", *(f"  {line}" for line in lines)]
    return "\n".join(head) + "\n"


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["targets: [other-1]"], "3:13: models[0].targets[0]: no entry has the model_id 'other-1'; "
         "did you mean 'other'?"),
        (["targets: [other, {use: other}]"], "3:26: models[0].targets[1].use: 'other' stands here twice; keep one, "
         "with a weight"),
        (["targets: [third]"], "3:13: models[0].targets[0]: 'third' has targets of its own; name those here instead"),
        (["targets: other"], "3:12: models[0].targets: expected a list, each the model_id of an entry or a mapping "
         "such as {use: other-entry, weight: 2}, 1 to 100 of them; got no list"),
        (["targets: [{weight: 2}]"], "3:13: models[0].targets[0]: use is missing; write {use: other-entry, weight: "
         "2}"),
        (["targets: [{use: other, weight: -1}]"], "3:34: models[0].targets[0].weight: expected a weight from 0.001 "
         "to 1000; got -1"),
        (["targets: [other]", "balance: fair"], "4:12: models[0].balance: expected one of weighted, least_load, "
         "in_order; got 'fair'"),
        (["balance: in_order"], "3:3: models[0].balance: means something with targets only; name the entries there, "
         "or remove it"),
    ],
)  # fmt: skip
def test_each_fault_names_its_place(lines: list[str], expected: str) -> None:
    assert faults(entry(*lines) + OTHER + THIRD) == [f"models.yaml:{expected}"]


def test_the_entry_itself_is_the_first_target_unless_it_is_named() -> None:
    table = read(entry("targets: [{use: other, weight: 2}]") + OTHER).table
    assert table.by_id("m").targets == (Target("m"), Target("other", 2.0))
    assert (table.by_id("m").balance, table.by_id("other").targets) == ("weighted", ())
    table = read(entry("targets: [other, {use: m, weight: 3}]", "balance: least_load") + OTHER).table
    assert table.by_id("m").targets == (Target("other"), Target("m", 3.0))
    assert table.by_id("m").balance == "least_load"


def test_a_target_at_another_address_needs_a_key() -> None:
    keyless = OTHER.replace("  api_key: a-key-1234\n", "")
    (warning,) = read(entry("targets: [other]") + keyless).warnings
    assert warning == (
        "models.yaml:3:13: models[0].targets[0]: 'other' is at another address and will be passed over, since the "
        "client's key does not go there; give it an api_key"
    )
    assert read(entry("targets: [other]") + OTHER).warnings == ()
