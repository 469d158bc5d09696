"""Counters, histograms and gauges of finished and active calls."""

from __future__ import annotations

from proxyd.codecs.anthropic.usage import Usage
from proxyd.config.routes import Pricing
from proxyd.telemetry.metrics import Metrics, Sources
from tests.support.observing import finished


async def rendered(metrics: Metrics) -> dict[str, float]:
    lines = (await metrics.render()).decode().splitlines()
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if line[0] != "#")}


async def test_finished_calls_are_counted() -> None:
    metrics = Metrics(Sources())
    metrics.observe(
        [
            finished(usage=Usage(100, 20, 300, 7, 5), pricing=Pricing(10_000, 0, 0, 0), retries=2),
            finished(outcome="refused", status=429, error_type="rate_limit_error", first_byte=None),
            finished(route="", mode="", outcome="refused", status=404, error_type="not_found_error"),
        ]
    )
    seen = await rendered(metrics)
    labels = 'mode="translated",outcome="ok",route="m"'
    assert seen[f'proxyd_requests_total{{code="200",{labels}}}'] == 1
    assert seen['proxyd_requests_total{code="404",mode="none",outcome="refused",route="none"}'] == 1
    assert seen['proxyd_tokens_total{kind="cache_write",route="m"}'] == 7
    assert seen['proxyd_cost_usd_total{route="m"}'] == 1
    assert seen['proxyd_upstream_retries_total{route="m"}'] == 2
    assert seen['proxyd_upstream_errors_total{route="m",type="rate_limit_error"}'] == 1
    assert seen['proxyd_first_byte_seconds_count{mode="translated",route="m"}'] == 1
    assert seen['proxyd_stream_duration_seconds_count{mode="translated",route="m"}'] == 2


async def test_gauges_are_read_at_each_scrape() -> None:
    active = [finished(), finished(route="other")]
    sources = Sources(
        active=lambda: active,
        circuits=lambda: {"https://a": "open"},
        hook_errors=lambda: {"h": 3},
        loop_lag_s=lambda: 0.5,
        rows_lost=lambda: 4,
    )
    metrics = Metrics(sources)
    seen = await rendered(metrics)
    assert seen['proxyd_streams_active{mode="translated",route="other"}'] == 1
    assert seen['proxyd_circuit_state{origin="https://a"}'] == 2
    assert seen['proxyd_hook_errors_total{hook="h"}'] == 3
    assert (seen["proxyd_loop_lag_seconds"], seen["proxyd_ledger_rows_lost_total"]) == (0.5, 4)
    assert seen["proxyd_config_reload_success"] == 1
    active.clear()
    sources.is_reload_good = False
    seen = await rendered(metrics)
    assert not any(name.startswith("proxyd_streams_active") for name in seen)
    assert seen["proxyd_config_reload_success"] == 0
