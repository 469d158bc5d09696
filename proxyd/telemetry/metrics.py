"""Prometheus metrics by the names of docs/spec/operations.md#f3, in base units and without unbounded labels.

Counters and histograms are updated when calls have finished; gauges are read at a scrape.
"""

from __future__ import annotations

import asyncio
from collections import Counter as Tally
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any

from prometheus_client import CollectorRegistry, Counter, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

import proxyd
from proxyd.codecs.anthropic.usage import Usage
from proxyd.telemetry.call_record import CallRecord
from proxyd.telemetry.finished_call import FinishedCall
from proxyd.telemetry.histogram import Histogram

__all__ = ["CONTENT_TYPE", "Metrics", "Sources"]

#: The text format, version 0.0.4: what every Prometheus reads.
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

#: From a cached response of a small model to a model that thinks for minutes.
_FIRST_BYTE_S = (0.1, 0.25, 0.5, 1, 2, 4, 8, 15, 30, 60, 120, 300)
_DURATION_S = (0.5, 1, 2, 5, 10, 20, 40, 80, 160, 320, 640, 1280)
#: Around the target of 50 µs an event (docs/spec/operations.md#h3).
_OVERHEAD_S = (5e-6, 1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 1e-2)

#: Kinds of tokens, and how to read them from a usage.
_TOKENS: tuple[tuple[str, Callable[[Usage], int]], ...] = (
    ("input", attrgetter("input_tokens")),
    ("output", attrgetter("output_tokens")),
    ("cache_read", attrgetter("cache_read_tokens")),
    ("cache_write", attrgetter("cache_write_tokens")),
    ("reasoning", lambda usage: usage.reasoning_tokens or 0),
)

_CIRCUIT_STATES = {"closed": 0, "trial": 1, "open": 2}
_POOL_STATES = {"works": 0, "limited": 1, "refused": 2, "failing": 3}


@dataclass
class Sources:
    """The functions that gauges call at a scrape.

    Attributes:
        active: the calls in flight.
        circuits: origin -> ``closed``, ``trial`` or ``open``, for origins that have failed lately.
        hook_errors: hook -> failures since it was loaded.
        loop_lag_s: how late the event loop runs.
        rows_lost: calls that the ledger could not store.
        keys: entry -> its keys, as `proxyd.proxy.pools` describes them; of entries with several.
        targets: the same of targets.
        rows_waiting: rows of the ledger that are not in the shared database yet; None where there is none.
        is_store_up: whether the store that is shared, or has virtual keys, answers; None where there is none.
        config_hash: of the models.yaml in force.
    """

    active: Callable[[], Iterable[CallRecord]] = tuple
    circuits: Callable[[], Mapping[str, str]] = dict
    hook_errors: Callable[[], Mapping[str, int]] = dict
    loop_lag_s: Callable[[], float] = float
    rows_lost: Callable[[], int] = int
    keys: Callable[[], Mapping[str, Sequence[Mapping[str, Any]]]] = dict
    targets: Callable[[], Mapping[str, Sequence[Mapping[str, Any]]]] = dict
    rows_waiting: Callable[[], int | None] = lambda: None
    is_store_up: Callable[[], bool | None] = lambda: None
    config_hash: Callable[[], str] = str
    is_reload_good: bool = field(default=True)


class Metrics:
    """The metrics of one daemon, in a registry of their own."""

    def __init__(self, sources: Sources) -> None:
        self.registry = CollectorRegistry()
        self._children: dict[tuple[Any, ...], Any] = {}
        self._requests = Counter(
            "proxyd_requests",
            "Calls that are over",
            ("route", "mode", "code", "outcome"),
            registry=self.registry,
        )
        self._first_byte = Histogram(
            "proxyd_first_byte_seconds",
            "From a call's arrival to the first byte of its response",
            ("route", "mode"),
            _FIRST_BYTE_S,
        )
        self._duration = Histogram(
            "proxyd_stream_duration_seconds", "Whole calls", ("route", "mode"), _DURATION_S
        )
        self._overhead = Histogram(
            "proxyd_event_overhead_seconds",
            "Time spent on one event of a translated stream, the mean of each call",
            (),
            _OVERHEAD_S,
        )
        self._retries = Counter(
            "proxyd_upstream_retries",
            "Further tries before the first byte",
            ("route",),
            registry=self.registry,
        )
        self._errors = Counter(
            "proxyd_upstream_errors",
            "Calls that were refused or broke off, by the error type of their response",
            ("route", "type"),
            registry=self.registry,
        )
        self._tokens = Counter(
            "proxyd_tokens",
            "Tokens by kind; reasoning is part of output",
            ("route", "kind"),
            registry=self.registry,
        )
        self._cost = Counter(
            "proxyd_cost_usd", "Cost by the entries' pricing", ("route",), registry=self.registry
        )
        self._at_scrape = _AtScrape(sources, (self._first_byte, self._duration, self._overhead))
        self.registry.register(self._at_scrape)

    def observe(self, records: Sequence[FinishedCall]) -> None:
        """Count finished calls."""
        groups: dict[tuple[str, str], list[FinishedCall]] = defaultdict(list)
        for record in records:
            groups[record.route or "none", record.mode or "none"].append(record)
        for (route, mode), calls in groups.items():
            self._count(route, mode, calls)

    def _count(self, route: str, mode: str, calls: list[FinishedCall]) -> None:
        first_bytes_s = [each.ttfb_s for each in calls]
        self._first_byte.observe((route, mode), [each for each in first_bytes_s if each is not None])
        self._duration.observe((route, mode), [each.duration_s for each in calls])
        overheads_s = [each.codec_s / each.events for each in calls if each.events and each.codec_s]
        self._overhead.observe((), overheads_s)
        usages = [each.usage for each in calls]
        counts: dict[tuple[Any, ...], float] = {
            (self._retries, route): sum(each.retries for each in calls),
            (self._cost, route): sum(each.cost_usd or 0 for each in calls),
            **{(self._tokens, route, kind): sum(map(of, usages)) for kind, of in _TOKENS},
        }
        for (status, outcome), times in Tally((each.status, each.outcome) for each in calls).items():
            counts[self._requests, route, mode, str(status), outcome] = times
        for kind, times in Tally(each.error_type[:60] for each in calls if each.error_type).items():
            counts[self._errors, route, kind] = times
        for (metric, *labels), count in counts.items():
            if count:
                self._of(metric, *labels).inc(count)

    def _of(self, metric: Any, *labels: str) -> Any:
        """The child of `metric` with these labels; the library's own lookup is slow."""
        key = (metric, *labels)
        child = self._children.get(key)
        if child is None:
            child = self._children[key] = metric.labels(*labels)
        return child

    async def render(self) -> bytes:
        """Render all metrics in the text format.

        In a thread, since two hundred routes take a fifth of a second.
        """
        self._at_scrape.update()
        return await asyncio.to_thread(generate_latest, self.registry)


class _AtScrape(Collector):
    """Metrics that are read at a scrape: by `update`, in the event loop, which owns what they are read from.

    `collect` builds the histograms of what was read: with many routes, that takes too long for the loop.
    """

    def __init__(self, sources: Sources, histograms: Sequence[Histogram]) -> None:
        self._sources = sources
        self._histograms = histograms
        self._values = [histogram.read() for histogram in histograms]
        self._metrics: list[Metric] = []

    def update(self) -> None:
        self._values = [histogram.read() for histogram in self._histograms]
        self._metrics = list(self._families())

    def collect(self) -> Iterable[Metric]:
        for histogram, values in zip(self._histograms, self._values, strict=True):
            yield histogram.family(values)
        yield from self._metrics

    def _families(self) -> Iterable[Metric]:
        sources = self._sources
        active = GaugeMetricFamily("proxyd_streams_active", "Calls in flight", labels=("route", "mode"))
        counts = Tally((record.route or "none", record.mode or "none") for record in sources.active())
        for labels, count in counts.items():
            active.add_metric(labels, count)
        yield active
        circuits = GaugeMetricFamily(
            "proxyd_circuit_state",
            "Circuits of origins that failed lately: 0 closed, 1 on trial, 2 open",
            labels=("origin",),
        )
        for origin, state in sources.circuits().items():
            circuits.add_metric((origin,), _CIRCUIT_STATES[state])
        yield circuits
        hooks = CounterMetricFamily("proxyd_hook_errors", "Failures of hooks", labels=("hook",))
        for hook, errors in sources.hook_errors().items():
            hooks.add_metric((hook,), errors)
        yield hooks
        yield GaugeMetricFamily(
            "proxyd_config_reload_success",
            "1 where the last reload was taken, 0 where it was rejected",
            value=float(sources.is_reload_good),
        )
        yield GaugeMetricFamily(
            "proxyd_loop_lag_seconds", "How late the event loop runs", value=sources.loop_lag_s()
        )
        yield CounterMetricFamily(
            "proxyd_ledger_rows_lost", "Calls that the ledger could not keep", value=sources.rows_lost()
        )
        waiting = GaugeMetricFamily(
            "proxyd_ledger_rows_waiting", "Calls that are in usage.db and not in the shared database yet"
        )
        store = GaugeMetricFamily(
            "proxyd_store_up",
            "1 where the store answers, 0 where keys, limits and what daemons share are those read last",
        )
        for family, value in ((waiting, sources.rows_waiting()), (store, sources.is_store_up())):
            if value is not None:
                family.add_metric((), value)
            yield family
        yield from _of_keys(sources.keys())
        targets = GaugeMetricFamily(
            "proxyd_target_state",
            "Entries that serve the model of another: 0 works, 1 at a limit, 2 refuses its key, 3 fails",
            labels=("route", "target"),
        )
        for route, members in sources.targets().items():
            for each in members:
                targets.add_metric((route, each["name"]), _POOL_STATES[each["state"]])
        yield targets
        yield InfoMetricFamily(
            "proxyd_config", "The models.yaml in force, without its keys", {"hash": sources.config_hash()}
        )
        yield InfoMetricFamily("proxyd_build", "The version that runs", {"version": proxyd.__version__})


def _of_keys(keys: Mapping[str, Sequence[Mapping[str, Any]]]) -> Iterable[Metric]:
    """The metrics of keys in pools, by their short names."""
    labels = ("route", "key")
    calls = CounterMetricFamily("proxyd_key_calls", "Calls that a key of a pool has served", labels=labels)
    failures = CounterMetricFamily(
        "proxyd_key_failures", "How often a key of a pool was refused or at a limit", labels=labels
    )
    tokens = CounterMetricFamily(
        "proxyd_key_tokens", "Tokens of the calls that a key has served", labels=(*labels, "kind")
    )
    state = GaugeMetricFamily("proxyd_key_state", "0 works, 1 at a limit, 2 refused", labels=labels)
    aside = GaugeMetricFamily(
        "proxyd_key_aside_seconds", "Seconds until a key that is set aside is tried again", labels=labels
    )
    for route, members in keys.items():
        for each in members:
            names = route, each["name"]
            calls.add_metric(names, each["calls"])
            failures.add_metric(names, each["failures"])
            for kind in ("input", "output"):
                tokens.add_metric((*names, kind), each[f"{kind}_tokens"])
            state.add_metric(names, _POOL_STATES[each["state"]])
            aside.add_metric(names, each.get("for_s", 0))
    return calls, failures, tokens, state, aside
