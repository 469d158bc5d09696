"""Tool call ids in both directions (docs/spec/messages-to-chat.md#tool-ids)."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxyd.codecs.translation.tool_ids import UpstreamIds, to_client_id, to_upstream_id

LEGAL = {
    "openai": re.compile(r"[A-Za-z0-9_-]{1,40}\Z"),
    "mistral": re.compile(r"[A-Za-z0-9]{9}\Z"),
}


@pytest.mark.parametrize(
    ("upstream_id", "client_id"),
    [
        ("", ""),
        ("call_9", "call_9"),
        ("x" * 64, "x" * 64),
        ("functions.Read:0", "toolu_cpx_ZnVuY3Rpb25zLlJlYWQ6MA"),
    ],
)
def test_client_ids(upstream_id: str, client_id: str) -> None:
    assert to_client_id(upstream_id) == client_id


@given(st.text(min_size=1))
def test_client_ids_are_legal_and_reversible(upstream_id: str) -> None:
    client_id = to_client_id(upstream_id)
    assert re.fullmatch(r"[A-Za-z0-9_-]+", client_id)
    assert to_upstream_id(client_id) == upstream_id


def test_upstream_id_that_looks_encoded_is_reversible() -> None:
    disguised = "toolu_cpx_ZnVuY3Rpb25zLlJlYWQ6MA"
    assert to_client_id(disguised) != disguised
    assert to_upstream_id(to_client_id(disguised)) == disguised


@pytest.mark.parametrize("damaged", ["toolu_cpx_", "toolu_cpx_A", "toolu_cpx__w", "toolu_cpx_日"])
def test_damaged_id_is_kept(damaged: str) -> None:
    assert to_upstream_id(damaged) == damaged


@given(st.lists(st.text(max_size=50), unique=True), st.sampled_from(["openai", "mistral"]))
def test_upstream_ids_are_distinct_and_legal(client_ids: list[str], style: str) -> None:
    ids = UpstreamIds(style)
    upstream_ids = [ids.of(client_id) for client_id in client_ids]
    assert len(set(upstream_ids)) == len(client_ids)
    assert all(LEGAL[style].match(upstream_id) for upstream_id in upstream_ids)
    assert [ids.of(client_id) for client_id in client_ids] == upstream_ids


@pytest.mark.parametrize(("style", "fitting"), [("openai", "call_" + "a" * 35), ("mistral", "abcDEF123")])
def test_legal_ids_are_kept(style: str, fitting: str) -> None:
    assert to_upstream_id(fitting, style) == fitting
    assert to_upstream_id(fitting, style, attempt=1) != fitting


@pytest.mark.parametrize("style", ["any", "openai", "mistral"])
def test_repeated_id_gets_its_own(style: str) -> None:
    ids = UpstreamIds(style)
    first, again, third = ids.of("t1"), ids.of("t1", is_repeated=True), ids.of("t1", is_repeated=True)
    assert len({first, again, third}) == 3
    assert ids.of("t1") == first
