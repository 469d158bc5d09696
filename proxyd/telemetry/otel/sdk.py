"""OpenTelemetry's SDK and its OTLP exporters, driven by one thread. Importing this imports `opentelemetry`.

The SDK's own batches, threads and log lines are not used: spans are made when their call is over, and what cannot be
sent is reported by `proxyd.telemetry.otel.exporter`.
"""

from __future__ import annotations

import logging
import math
import uuid
from collections.abc import Sequence

import requests
from opentelemetry import trace as api
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.metrics import Histogram
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import (
    MetricExportResult,
    MetricsData,
    PeriodicExportingMetricReader,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON

import proxyd
from proxyd.config.otel import Otel
from proxyd.telemetry.otel import conventions as names
from proxyd.telemetry.otel.measurements import INSTRUMENTS, Measurement
from proxyd.telemetry.otel.spans import SpanData
from proxyd.telemetry.otel.trace_context import TraceContext

__all__ = ["Sdk"]

_SCOPE = "proxyd"
_MAX_REASON_CHARS = 300


class Sdk:
    """One destination. All methods but `stop` are called by one thread.

    Args:
        trust_env: use the proxy and the netrc of the environment.
        ca_file: PEM file of authorities; "" for the usual ones.
    """

    def __init__(self, otel: Otel, *, trust_env: bool, ca_file: str) -> None:
        headers = {name: header.reveal() for name, header in otel.headers.items()}
        resource = Resource.create(
            {
                names.SERVICE_NAME: otel.service_name,
                names.SERVICE_VERSION: proxyd.__version__,
                names.SERVICE_INSTANCE: str(uuid.uuid4()),
            }
        )
        self._log = _LastMessage()
        self._span_exporter: SpanExporter = OTLPSpanExporter(
            endpoint=f"{otel.endpoint}/v1/traces",
            certificate_file=ca_file or None,
            headers=headers,
            session=_session(trust_env),
        )
        self._metric_exporter = _MetricExporter(
            endpoint=f"{otel.endpoint}/v1/metrics",
            certificate_file=ca_file or None,
            headers=headers,
            session=_session(trust_env),
        )
        self._ids, self._ended = _Ids(), _EndedSpans()
        self._tracers = TracerProvider(
            sampler=ALWAYS_ON, resource=resource, shutdown_on_exit=False, id_generator=self._ids
        )
        self._tracers.add_span_processor(self._ended)
        self._tracer = self._tracers.get_tracer(_SCOPE, proxyd.__version__, schema_url=names.SCHEMA_URL)
        # With this interval it has no thread of its own, and sends when it is told to.
        self._reader = PeriodicExportingMetricReader(self._metric_exporter, export_interval_millis=math.inf)
        self._meters = MeterProvider([self._reader], resource, shutdown_on_exit=False)
        meter = self._meters.get_meter(_SCOPE, proxyd.__version__, schema_url=names.SCHEMA_URL)
        self._histograms: dict[str, Histogram] = {
            name: meter.create_histogram(
                name, each.unit, each.help, explicit_bucket_boundaries_advisory=each.buckets
            )
            for name, each in INSTRUMENTS.items()
        }
        self._is_stopped = False

    def send_spans(self, spans: Sequence[SpanData]) -> str | None:
        """Send spans, with the exporter's retries; return why it failed, or None."""
        self._log.forget()
        for each in spans:
            self._make(each)
        batch = self._ended.take()
        if self._span_exporter.export(batch) is SpanExportResult.SUCCESS:
            return None
        return self._log.reason

    def record(self, measurements: Sequence[Measurement]) -> None:
        """Add to the metrics."""
        for each in measurements:
            self._histograms[each.instrument].record(each.value, each.attributes)

    def send_metrics(self) -> str | None:
        """Send all metrics; return why it failed, or None."""
        self._log.forget()
        self._metric_exporter.has_failed = False
        self._reader.force_flush()
        return self._log.reason if self._metric_exporter.has_failed else None

    def stop(self) -> None:
        """End a transfer that waits for a retry, and allow no further one; may be called by any thread."""
        if not self._is_stopped:
            self._is_stopped = True
            self._span_exporter.shutdown()
            self._metric_exporter.shutdown()

    def close(self) -> None:
        """Release all resources."""
        self.stop()
        self._tracers.shutdown()
        self._meters.shutdown()
        self._log.close()

    def _make(self, data: SpanData) -> None:
        self._ids.next = data.context
        parent = Context()
        if data.parent is not None:
            known = _span_context(data.parent, is_remote=data.is_parent_remote)
            parent = api.set_span_in_context(api.NonRecordingSpan(known), parent)
        span = self._tracer.start_span(
            data.name, parent, api.SpanKind[data.kind], data.attributes, start_time=data.start_ns
        )
        if data.has_failed:
            span.set_status(api.StatusCode.ERROR)
        span.end(data.end_ns)


def _session(trust_env: bool) -> requests.Session:
    session = requests.Session()
    session.trust_env = trust_env
    return session


def _span_context(context: TraceContext, *, is_remote: bool) -> api.SpanContext:
    state = api.TraceState.from_header([context.state]) if context.state else None
    return api.SpanContext(
        context.trace_id, context.span_id, is_remote, api.TraceFlags(api.TraceFlags.SAMPLED), state
    )


class _Ids(IdGenerator):
    """Gives the next span the ids that its upstream was told."""

    next = TraceContext(1, 1, is_sampled=True)

    def generate_span_id(self) -> int:
        return self.next.span_id

    def generate_trace_id(self) -> int:
        return self.next.trace_id


class _EndedSpans(SpanProcessor):
    """Collects spans."""

    def __init__(self) -> None:
        self._spans: list[ReadableSpan] = []

    def on_end(self, span: ReadableSpan) -> None:
        self._spans.append(span)

    def take(self) -> list[ReadableSpan]:
        """Return what was collected."""
        spans, self._spans = self._spans, []
        return spans


class _MetricExporter(OTLPMetricExporter):
    """Notes whether the last transfer failed, which its reader does not report."""

    has_failed = False

    def export(
        self, metrics_data: MetricsData, timeout_millis: float | None = 10_000, **kwargs: object
    ) -> MetricExportResult:
        result = super().export(metrics_data, timeout_millis, **kwargs)
        self.has_failed = result is not MetricExportResult.SUCCESS
        return result


class _LastMessage(logging.Handler):
    """Keeps what the SDK logs out of our log, where it would repeat for each batch, and remembers the first message."""

    _NAME = "opentelemetry"

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._first: str | None = None
        logger = logging.getLogger(self._NAME)
        logger.addHandler(self)
        logger.propagate = False

    @property
    def reason(self) -> str:
        return self._first or "the transfer failed"

    def forget(self) -> None:
        """Begin anew."""
        self._first = None

    def emit(self, record: logging.LogRecord) -> None:
        if self._first is None:
            self._first = record.getMessage()[:_MAX_REASON_CHARS]

    def close(self) -> None:
        logger = logging.getLogger(self._NAME)
        logger.removeHandler(self)
        logger.propagate = True
        super().close()
