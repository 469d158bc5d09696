"""A collector that speaks OTLP over HTTP on loopback: it decodes what it is sent and keeps it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric
from opentelemetry.proto.trace.v1.trace_pb2 import Span

__all__ = ["OtlpReceiver", "attributes_of", "running_receiver"]


@dataclass
class OtlpReceiver:
    """What was received.

    Attributes:
        status: of its responses.
        is_open: cleared to let requests wait for their response.
        heads: of all requests, names in lower case.
        resources: attributes of the resource of each request.
        transfers: paths of all requests, in order.
    """

    base: str = ""
    status: int = 200
    is_open: asyncio.Event = field(default_factory=asyncio.Event)
    heads: list[dict[str, str]] = field(default_factory=list)
    transfers: list[str] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    resources: list[dict[str, Any]] = field(default_factory=list)
    schemas: set[str] = field(default_factory=set)
    spans: list[Span] = field(default_factory=list)
    metrics: dict[str, Metric] = field(default_factory=dict)

    async def receive(self, request: web.Request) -> web.Response:
        """Decode and keep one transfer."""
        body = await request.read()
        self.transfers.append(request.path)
        self.heads.append({name.lower(): value for name, value in request.headers.items()})
        await self.is_open.wait()
        if self.status != 200:
            return web.Response(status=self.status)
        self.bodies.append(body)
        if request.path == "/v1/traces":
            traces = ExportTraceServiceRequest.FromString(body)
            for of_resource in traces.resource_spans:
                self.resources.append(attributes_of(of_resource.resource.attributes))
                for of_scope in of_resource.scope_spans:
                    self.schemas.add(of_scope.schema_url)
                    self.spans += of_scope.spans
        elif request.path == "/v1/metrics":
            metrics = ExportMetricsServiceRequest.FromString(body)
            for each in metrics.resource_metrics:
                self.resources.append(attributes_of(each.resource.attributes))
                for scope in each.scope_metrics:
                    self.schemas.add(scope.schema_url)
                    self.metrics.update({metric.name: metric for metric in scope.metrics})
        else:
            return web.Response(status=404)
        return web.Response(content_type="application/x-protobuf")


@asynccontextmanager
async def running_receiver() -> AsyncIterator[OtlpReceiver]:
    """A collector on a free port."""
    receiver = OtlpReceiver()
    receiver.is_open.set()
    app = web.Application(client_max_size=1 << 26)
    app.router.add_post("/{path:.*}", receiver.receive)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    receiver.base = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield receiver
    finally:
        receiver.is_open.set()
        await runner.cleanup()


def attributes_of(pairs: Any) -> dict[str, Any]:
    """Attributes as plain data."""
    return {pair.key: _plain(pair.value) for pair in _pairs(pairs)}


def _pairs(pairs: Any) -> list[KeyValue]:
    return list(pairs)


def _plain(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return tuple(_plain(each) for each in value.array_value.values)
    return None if kind is None else getattr(value, kind)
