"""The observers of a daemon, together."""

from __future__ import annotations

from structlog.testing import capture_logs

from proxyd.codecs.anthropic.usage import Usage
from proxyd.telemetry.hub import TelemetryHub
from proxyd.telemetry.live_feed import LiveFeed
from proxyd.telemetry.metrics import Metrics, Sources
from tests.support.observing import finished


async def test_every_observer_is_notified_and_shows_the_cache_break() -> None:
    sources = Sources()
    hub = TelemetryHub(sources, LiveFeed(tuple), Metrics(sources), ledger=None)
    calls = [
        finished(request_id="req_1", usage=Usage(10, 1, 0, 5000)),
        finished(request_id="req_2", usage=Usage(5000, 1, 0, 0), cache_break="tools[0] changed"),
    ]
    with capture_logs() as lines:
        for observe in hub.observers:
            observe(calls)
    assert [line["event"] for line in lines] == ["call.finished", "call.finished"]
    assert "cache_break" not in lines[0]
    assert lines[1]["cache_break"] == "tools[0] changed"
    assert [call["cache_break"] for call in hub.live.recent()] == [None, "tools[0] changed"]
    assert b'proxyd_requests_total{code="200",mode="translated",outcome="ok",route="m"} 2.0' in (
        await hub.metrics.render()
    )
