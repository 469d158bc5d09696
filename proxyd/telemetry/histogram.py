"""A Prometheus histogram that counts values in batches.

The library's own searches the bucket of each value at once, which takes longer than all counters of a call. This one
buffers values, and counts many of them with one search for each bucket, at the latest at a scrape.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import inf

from prometheus_client.core import HistogramMetricFamily
from prometheus_client.utils import floatToGoString

__all__ = ["Histogram"]

#: Values that are buffered, 32 bytes each.
_MAX_BUFFERED = 512

#: Labels, the number of values up to each bound, and their sum.
Values = tuple[tuple[str, ...], list[int], float]


@dataclass(slots=True)
class _Series:
    """The values of one combination of labels; `counts` has the number of values up to each bound."""

    counts: list[int]
    sum: float = 0.0
    buffered: list[float] = field(default_factory=list)


class Histogram:
    """A histogram of values in base units. Not thread-safe.

    Args:
        bounds: upper bounds of the buckets, ascending and inclusive; infinity is added.
    """

    def __init__(self, name: str, documentation: str, labels: Sequence[str], bounds: Sequence[float]) -> None:
        self._name, self._documentation, self._labels = name, documentation, labels
        self._bounds = (*bounds, inf)
        self._series: dict[tuple[str, ...], _Series] = defaultdict(lambda: _Series([0] * len(self._bounds)))
        if not labels:
            self._series[()]  # exported from the start, as with the library's own

    def observe(self, labels: tuple[str, ...], values: Sequence[float]) -> None:
        """Count `values`."""
        if not values:
            return
        series = self._series[labels]
        series.buffered.extend(values)
        if len(series.buffered) >= _MAX_BUFFERED:
            self._count(series)

    def read(self) -> list[Values]:
        """Return all values so far, for `family`."""
        for series in self._series.values():
            if series.buffered:
                self._count(series)
        return [(labels, series.counts, series.sum) for labels, series in self._series.items()]

    def family(self, values: Iterable[Values]) -> HistogramMetricFamily:
        """Return `values` as the library's metric family. Callable in any thread."""
        family = HistogramMetricFamily(self._name, self._documentation, labels=self._labels)
        names = list(map(floatToGoString, self._bounds))
        for labels, counts, total in values:
            family.add_metric(labels, list(zip(names, counts, strict=True)), total)
        return family

    def _count(self, series: _Series) -> None:
        values, series.buffered = sorted(series.buffered), []
        series.sum += sum(values)
        series.counts = [
            count + bisect_right(values, bound)
            for count, bound in zip(series.counts, self._bounds, strict=True)
        ]
