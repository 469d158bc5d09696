"""Histograms that count by the batch, held against the library's own."""

from __future__ import annotations

import math

import prometheus_client
from hypothesis import given
from hypothesis import strategies as st

from proxyd.telemetry import histogram as histograms
from proxyd.telemetry.histogram import Histogram

BOUNDS = (0.1, 0.5, 1, 20)
VALUES = st.one_of(st.sampled_from(BOUNDS), st.floats(0, 30))


@given(
    st.lists(
        st.tuples(st.sampled_from("ab"), st.lists(VALUES, max_size=3 * histograms._MAX_BUFFERED)), max_size=6
    )
)
def test_counts_equal_the_librarys(batches: list[tuple[str, list[float]]]) -> None:
    ours = Histogram("took_seconds", "How long", ("route",), BOUNDS)
    theirs = prometheus_client.Histogram(
        "took_seconds", "How long", ("route",), buckets=BOUNDS, registry=None
    )
    for route, values in batches:
        ours.observe((route,), values)
        for value in values:
            theirs.labels(route).observe(value)
        _same(ours, theirs)


def test_histogram_without_labels_is_exported_at_once() -> None:
    ours = Histogram("took_seconds", "How long", (), BOUNDS)
    theirs = prometheus_client.Histogram("took_seconds", "How long", (), buckets=BOUNDS, registry=None)
    _same(ours, theirs)


def test_buffer_is_bounded() -> None:
    histogram = Histogram("took_seconds", "How long", (), BOUNDS)
    for _ in range(10 * histograms._MAX_BUFFERED):
        histogram.observe((), [0.2])
        assert len(histogram._series[()].buffered) < histograms._MAX_BUFFERED


def _same(ours: Histogram, theirs: prometheus_client.Histogram) -> None:
    (expected,) = theirs.collect()
    found = ours.family(ours.read())
    assert (found.name, found.documentation, found.type) == (
        expected.name,
        expected.documentation,
        expected.type,
    )
    samples = {(each.name, *each.labels.items()): each.value for each in found.samples}
    wanted = {
        (each.name, *each.labels.items()): each.value
        for each in expected.samples
        if not each.name.endswith("_created")
    }
    assert samples.keys() == wanted.keys()
    assert all(math.isclose(samples[name], wanted[name]) for name in wanted)
