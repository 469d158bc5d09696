"""A finished call is frozen, and holds no key."""

from __future__ import annotations

import dataclasses

import pytest

from proxyd.codecs.anthropic.usage import Usage
from proxyd.config.routes import Pricing
from proxyd.secret import Secret
from proxyd.store.virtual_keys import VirtualKey
from proxyd.telemetry.call_record import CallRecord
from proxyd.telemetry.finished_call import FinishedCall
from tests.support.observing import finished, in_flight


def test_it_has_what_the_record_had_and_never_changes() -> None:
    record = in_flight(bytes_out=7, events=3)
    call = FinishedCall.of(record, "tools[0] changed")
    record.bytes_out = 8
    assert (call.bytes_out, call.events, call.usage, call.cache_break) == (
        7,
        3,
        record.usage,
        "tools[0] changed",
    )
    assert (call.ttfb_s, call.duration_s) == (0.25, 2.0)
    with pytest.raises(dataclasses.FrozenInstanceError):
        call.status = 500  # type: ignore[misc]


def test_every_field_of_a_record_is_kept_but_those_of_a_call_in_flight() -> None:
    names = [{each.name for each in dataclasses.fields(kind)} for kind in (CallRecord, FinishedCall)]
    assert names[0] - names[1] == {"output_so_far", "prompt_blocks", "virtual_key"}
    assert names[1] - names[0] == {"cache_break", "caller", "team"}


def test_the_names_of_a_virtual_key_are_kept_and_not_the_key() -> None:
    call = finished(virtual_key=VirtualKey("id", "alice", "digest", 0.0, team="research"))
    assert (call.caller, call.team) == ("alice", "research")
    assert (finished().caller, finished().team) == (None, None)


def test_keys_are_masked_while_they_are_known() -> None:
    key = Secret("a-key-of-a-client")
    record = in_flight(stop_reason="sk-abcdefgh12345678")
    record.error = f"invalid {key.reveal()}"
    call = FinishedCall.of(record)
    del key
    assert (call.error, call.stop_reason, call.agent_id) == ("invalid ***", "***", None)


@pytest.mark.parametrize(("pricing", "cost"), [(None, None), (Pricing(input=1.0, output=2.0), 5.0)])
def test_cost_is_that_of_the_entry(pricing: Pricing | None, cost: float | None) -> None:
    assert finished(usage=Usage(1_000_000, 2_000_000), pricing=pricing).cost_usd == cost
