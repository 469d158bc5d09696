"""Spans and metrics from real calls, received and decoded by a collector on loopback."""

from __future__ import annotations

import json
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from structlog.testing import capture_logs

from proxyd.config.otel import Header, Otel
from proxyd.proxy import retries
from proxyd.secret import Secret
from proxyd.telemetry.otel import exporter as exporter_module
from proxyd.telemetry.otel.exporter import OtelExporter
from proxyd.telemetry.otel.measurements import INSTRUMENTS
from tests.support.harness import running_proxy, running_upstream, text_stream
from tests.support.otel_calls import traced_call
from tests.support.otlp_receiver import OtlpReceiver, attributes_of, running_receiver
from tests.support.ports import free_port
from tests.support.raw_sockets import ask, post, until
from tests.support.streams import DIRECT, HELLO

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
CONTEXT = (f"traceparent: 00-{TRACE}-{PARENT}-01", "tracestate: vendor=1")
PROMPT, KEY, COLLECTOR_KEY = "a-word-of-the-prompt", "sk-key-of-the-entry-0123", "key-of-the-collector-0123"
WAIT_S = 30.0


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "_FIRST_DELAY_S", 0.001)
    monkeypatch.setattr(exporter_module, "_PAUSE_S", 0.01)
    # Longer than a busy machine takes for anything here.
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "60")


def stream(body: bytes) -> web.Response:
    return web.Response(body=body, content_type="text/event-stream", headers={"request-id": "req_up"})


async def busy(request: web.Request) -> web.Response:
    return web.json_response({"error": {"message": f"busy: {PROMPT}", "type": "server_error"}}, status=503)


async def direct(request: web.Request) -> web.Response:
    return stream(b"".join(DIRECT.values()))


async def translated(request: web.Request) -> web.Response:
    return stream(text_stream("Hello", "there"))


def request(*headers: str, **more: Any) -> bytes:
    messages = [{"role": "user", "content": PROMPT}]
    return post({**HELLO, "messages": messages, **more}, *headers)


def spans_by_name(receiver: OtlpReceiver) -> dict[str, list[Span]]:
    found: dict[str, list[Span]] = {}
    for span in sorted(receiver.spans, key=lambda span: span.start_time_unix_nano):
        found.setdefault(span.name, []).append(span)
    return found


async def test_a_call_is_one_span_and_each_attempt_another_within_it() -> None:
    async with (
        running_receiver() as receiver,
        running_upstream(busy) as first,
        running_upstream(direct) as last,
    ):
        entries = [
            {"model_id": "m", "api_base": f"{first.base}/v1", "model_name": "one", "fallback": ["spare"]},
            {"model_id": "spare", "api_base": last.base, "direct": True, "model_name": "two"},
        ]
        for entry in entries:
            entry["api_key"] = KEY
        otel = Otel(receiver.base, {"x-key": Header("Token ", Secret(COLLECTOR_KEY))}, service_name="mine")
        with capture_logs() as logs:
            async with running_proxy(entries, otel_target=otel, max_retries=1, record="off") as base:
                assert (await ask(base, request(*CONTEXT, model="m"))).status == 200
                await until(lambda: bool(receiver.spans), WAIT_S)
        assert [line for line in logs if line["event"].startswith("otel.")] == []
        spans = spans_by_name(receiver)
        assert {name: len(found) for name, found in spans.items()} == {
            "POST /v1/messages": 1,
            "chat one": 2,
            "chat two": 1,
        }
        (call,), attempts = spans["POST /v1/messages"], [*spans["chat one"], *spans["chat two"]]
        assert (call.trace_id.hex(), call.parent_span_id.hex()) == (TRACE, PARENT)
        assert (call.kind, call.status.code) == (Span.SPAN_KIND_SERVER, Status.STATUS_CODE_UNSET)
        assert {each.parent_span_id for each in attempts} == {call.span_id}
        assert {each.trace_id for each in attempts} == {call.trace_id}
        assert {each.kind for each in attempts} == {Span.SPAN_KIND_CLIENT}
        failed, unset = Status.STATUS_CODE_ERROR, Status.STATUS_CODE_UNSET
        assert [each.status.code for each in attempts] == [failed, failed, unset]
        # Each upstream was sent the context of its own attempt.
        heads = [*first.headers, *last.headers]
        assert [head["traceparent"] for head in heads] == [
            f"00-{TRACE}-{each.span_id.hex()}-01" for each in attempts
        ]
        assert {head["tracestate"] for head in heads} == {"vendor=1"}
        assert {each.trace_state for each in receiver.spans} == {"vendor=1"}

        of_call, (retried, again, served) = attributes_of(call.attributes), map(_attributes, attempts)
        assert (
            of_call.items()
            >= {
                "http.route": "/v1/messages",
                "http.response.status_code": 200,
                "gen_ai.request.model": "m",
                "claude_proxy.route": "spare",
                "claude_proxy.fallback_from": "m",
                "claude_proxy.retries": 1,
                "claude_proxy.outcome": "ok",
            }.items()
        )
        assert not any(name.startswith("gen_ai.usage") for name in of_call)
        assert retried.items() >= {"error.type": "overloaded_error", "http.response.status_code": 503}.items()
        assert again["http.request.resend_count"] == 1
        assert (
            served.items()
            >= {
                "gen_ai.operation.name": "chat",
                "gen_ai.request.stream": True,
                "gen_ai.response.model": "m",
                "gen_ai.response.finish_reasons": ("tool_use",),
                "claude_proxy.mode": "direct",
                "claude_proxy.upstream_request_id": "req_up",
                "server.address": "127.0.0.1",
            }.items()
        )
        assert served["gen_ai.usage.output_tokens"] > 0
        # Metrics are sent at the end, too.
        assert receiver.metrics.keys() == INSTRUMENTS.keys()
        durations = receiver.metrics["gen_ai.client.operation.duration"].histogram.data_points
        assert sum(point.count for point in durations) == 3
        assert {attributes["service.name"] for attributes in receiver.resources} == {"mine"}
        assert receiver.schemas == {"https://opentelemetry.io/schemas/1.41.1"}
        # The collector gets its key, and nobody's prompt or other key.
        assert {head["x-key"] for head in receiver.heads} == {f"Token {COLLECTOR_KEY}"}
        sent = b"".join(receiver.bodies)
        assert not any(secret.encode() in sent for secret in (PROMPT, KEY, COLLECTOR_KEY))
        assert COLLECTOR_KEY not in str(logs)


def _attributes(span: Span) -> dict[str, Any]:
    return attributes_of(span.attributes)


async def test_a_call_without_a_context_begins_a_trace_that_is_sampled_by_its_share() -> None:
    async with running_receiver() as receiver, running_upstream(translated) as upstream:
        entries = [{"model_id": "m", "api_base": f"{upstream.base}/v1", "api_key": KEY}]
        async with running_proxy(entries, otel_target=Otel(receiver.base, sample=0.0)) as base:
            assert (await ask(base, request(model="m"))).status == 200
            assert (await ask(base, request(*CONTEXT, model="m"))).status == 200
    assert [head["traceparent"][-2:] for head in upstream.headers] == ["00", "01"]
    assert {span.trace_id.hex() for span in receiver.spans} == {TRACE}
    durations = receiver.metrics["gen_ai.client.operation.duration"].histogram.data_points
    assert sum(point.count for point in durations) == 2


async def test_what_the_proxy_asks_for_itself_is_within_the_call_that_it_is_for() -> None:
    image = {"type": "base64", "media_type": "image/png", "data": "AAAA"}
    content = [{"type": "text", "text": PROMPT}, {"type": "image", "source": image}]
    async with running_receiver() as receiver, running_upstream(translated) as upstream:
        base_entry = {"api_base": f"{upstream.base}/v1", "api_key": KEY}
        entries = [
            {**base_entry, "model_id": "blind", "vision": False},
            {**base_entry, "model_id": "eyes", "vision": True},
        ]
        settings = {"otel_target": Otel(receiver.base), "images": {"describe_with": "eyes"}}
        async with running_proxy(entries, **settings) as base:
            messages = [{"role": "user", "content": content}]
            assert (await ask(base, post({**HELLO, "model": "blind", "messages": messages}))).status == 200
    by_id = {span.span_id: span for span in receiver.spans}
    (own,) = [span for span in receiver.spans if span.kind == Span.SPAN_KIND_INTERNAL]
    (call,) = [span for span in receiver.spans if span.kind == Span.SPAN_KIND_SERVER]
    assert by_id[own.parent_span_id] == call
    assert _attributes(own)["claude_proxy.kind"] == "image"
    (asked,) = [span for span in receiver.spans if span.parent_span_id == own.span_id]
    assert _attributes(asked)["gen_ai.request.model"] == "eyes"
    assert len({span.trace_id for span in receiver.spans}) == 1


@asynccontextmanager
async def running_exporter(endpoint: str) -> AsyncIterator[OtelExporter]:
    exporter = OtelExporter(Otel(endpoint), lambda route, url: "generic")
    exporter.start()
    try:
        yield exporter
    finally:
        await exporter.close()
        assert "otel" not in [thread.name for thread in threading.enumerate()]


async def test_a_collector_that_fails_or_is_gone_is_reported_once(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running_receiver() as receiver:
        with capture_logs() as logs:
            async with running_exporter(receiver.base) as exporter:
                receiver.status = 404  # the exporter does not try again by itself
                for number in (1, 2, 3):
                    exporter.observe([traced_call()])
                    await until(lambda number=number: exporter.lost == number, WAIT_S)
                receiver.status = 200
                exporter.observe([traced_call()])
                await until(lambda: exporter.trouble is None, WAIT_S)
        failed, recovered = (line for line in logs if line["event"].startswith("otel."))
        assert (failed["event"], failed["endpoint"]) == ("otel.export_failed", receiver.base)
        assert "Not Found" in failed["why"]
        assert (recovered["event"], recovered["calls_lost"]) == ("otel.export_recovered", 3)
        assert len(receiver.spans) == 2
        # No call is lost for the metrics.
        counts = receiver.metrics["gen_ai.server.request.duration"].histogram.data_points
        assert [point.count for point in counts] == [4]
    # Less than the first pause of the exporter's own retries.
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "0.5")
    nobody = f"http://127.0.0.1:{free_port()}"
    with capture_logs() as logs:
        async with running_exporter(nobody) as exporter:
            exporter.observe([traced_call()])
            await until(lambda: exporter.trouble is not None, WAIT_S)
    assert [line["event"] for line in logs] == ["otel.export_failed"]


async def test_a_collector_that_does_not_respond_delays_no_stream() -> None:
    async with running_receiver() as receiver, running_upstream(translated) as upstream:
        receiver.is_open.clear()
        entries = [{"model_id": "m", "api_base": f"{upstream.base}/v1", "api_key": KEY}]
        async with running_proxy(entries, otel_target=Otel(receiver.base)) as base:
            assert (await ask(base, request(model="m"))).status == 200
            await until(lambda: bool(receiver.transfers), WAIT_S)
            for _ in range(5):
                assert (await ask(base, request(model="m"))).status == 200
            assert (receiver.transfers, receiver.spans) == (["/v1/traces"], [])
            receiver.is_open.set()
            await until(lambda: len(receiver.spans) == 12, WAIT_S)


async def test_what_waits_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporter_module, "_MAX_WAITING", 3)
    monkeypatch.setattr(exporter_module, "_MAX_WAITING_BYTES", 1000)
    async with running_receiver() as receiver:
        receiver.is_open.clear()
        async with running_exporter(receiver.base) as exporter:
            exporter.observe([traced_call()])
            await until(lambda: bool(receiver.transfers), WAIT_S)
            exporter.observe([traced_call() for _ in range(2)])
            exporter.observe([traced_call() for _ in range(3)])
            assert exporter.lost == 2
            receiver.is_open.set()
            await until(lambda: len(receiver.spans) == 2 * 4, WAIT_S)
            receiver.is_open.clear()
            exporter.observe([traced_call()])
            await until(lambda: len(receiver.transfers) == 3, WAIT_S)
            exporter.observe([traced_call(body=b"x" * 600), traced_call(body=b"x" * 600), traced_call()])
            assert exporter.lost == 3
            receiver.is_open.set()
            await until(lambda: len(receiver.spans) == 2 * 7, WAIT_S)


async def test_what_was_said_is_sent_where_it_is_switched_on() -> None:
    leaked = "sk-ant-api03-" + "x1Y2z3" * 12
    messages = [{"role": "user", "content": f"{PROMPT} {leaked} {KEY}"}]
    async with running_receiver() as receiver, running_upstream(translated) as upstream:
        entries = [{"model_id": "m", "api_base": f"{upstream.base}/v1", "api_key": KEY}]
        with capture_logs() as logs:
            async with running_proxy(entries, otel_target=Otel(receiver.base, content=True)) as base:
                for stream in (True, False):
                    body = {
                        **HELLO,
                        "model": "m",
                        "system": "Be brief.",
                        "messages": messages,
                        "stream": stream,
                    }
                    assert (await ask(base, post(body))).status == 200
    (warning,) = (line for line in logs if line["event"] == "otel.sends_content")
    assert warning["log_level"] == "warning"
    attempts = [_attributes(span) for span in receiver.spans if span.kind == Span.SPAN_KIND_CLIENT]
    assert len(attempts) == 2
    for each in attempts:
        assert json.loads(each["gen_ai.system_instructions"]) == [{"type": "text", "content": "Be brief."}]
        (asked,) = json.loads(each["gen_ai.input.messages"])
        assert asked["parts"][0]["content"].startswith(f"{PROMPT} ")
        assert json.loads(each["gen_ai.output.messages"]) == [
            {
                "role": "assistant",
                "parts": [{"type": "text", "content": "Hellothere"}],
                "finish_reason": "stop",
            }
        ]
    sent = b"".join(receiver.bodies)
    assert leaked.encode() not in sent
    assert KEY.encode() not in sent
