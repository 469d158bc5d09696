"""A Prometheus histogram for values that come by the batch.

The library's own finds each value's bucket when it comes, which costs a call more than all its counters. This one puts
values aside, and counts many with one search for each bucket; a scrape, too, has them counted first.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import inf

from prometheus_client.core import HistogramMetricFamily
from prometheus_client.utils import floatToGoString

__all__ = ["Histogram"]

#: Values that are put aside, 32 bytes each.
_MOST_ASIDE = 512


@dataclass(slots=True)
class _Series:
    """The values of one combination of labels; `counts` has, for each bound, those that are not above it."""

    counts: list[int]
    sum: float = 0.0
    aside: list[float] = field(default_factory=list)


class Histogram:
    """Of values in base units. One thread gives them and asks for the family.

    Args:
        bounds: of the buckets, ascending, each within its own; infinity is added.
    """

    def __init__(self, name: str, documentation: str, labels: Sequence[str], bounds: Sequence[float]) -> None:
        self._name, self._documentation, self._labels = name, documentation, labels
        self._bounds = (*bounds, inf)
        self._series: dict[tuple[str, ...], _Series] = defaultdict(lambda: _Series([0] * len(self._bounds)))
        if not labels:
            self._series[()]  # there from the beginning, as the library's own

    def observe(self, labels: tuple[str, ...], values: Sequence[float]) -> None:
        """Count `values`."""
        if not values:
            return
        series = self._series[labels]
        series.aside.extend(values)
        if len(series.aside) >= _MOST_ASIDE:
            self._count(series)

    def family(self) -> HistogramMetricFamily:
        """What has been counted, for the library."""
        family = HistogramMetricFamily(self._name, self._documentation, labels=self._labels)
        for labels, series in self._series.items():
            self._count(series)
            buckets = list(zip(map(floatToGoString, self._bounds), series.counts, strict=True))
            family.add_metric(labels, buckets, series.sum)
        return family

    def _count(self, series: _Series) -> None:
        values, series.aside = sorted(series.aside), []
        series.sum += sum(values)
        series.counts = [
            count + bisect_right(values, bound)
            for count, bound in zip(series.counts, self._bounds, strict=True)
        ]
