"""What several workers report, as one."""

from __future__ import annotations

from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from proxyd.api.merging import (
    counts_in,
    merge_about,
    merge_call,
    merge_connection,
    merge_metrics,
    merge_stats,
    merge_totals,
)

METRICS = """\
# HELP proxyd_requests_total Calls that are over
# TYPE proxyd_requests_total counter
proxyd_requests_total{{code="200",route="a b"}} {calls}
# HELP proxyd_requests_created Calls that are over
# TYPE proxyd_requests_created gauge
proxyd_requests_created{{code="200",route="a b"}} {created}
# HELP proxyd_first_byte_seconds First byte
# TYPE proxyd_first_byte_seconds histogram
proxyd_first_byte_seconds_bucket{{le="+Inf"}} {calls}
proxyd_first_byte_seconds_sum {seconds}
# HELP proxyd_streams_active Calls in flight
# TYPE proxyd_streams_active gauge
proxyd_streams_active{{route="a b"}} {active}
# HELP proxyd_loop_lag_seconds How late
# TYPE proxyd_loop_lag_seconds gauge
proxyd_loop_lag_seconds {lag}
# HELP proxyd_store_up The store
# TYPE proxyd_store_up gauge
proxyd_store_up {up}
"""
ONE = METRICS.format(calls=3.0, created=1e9, seconds=0.5, active=2.0, lag=0.1, up=1.0)
OTHER = METRICS.format(calls=4.0, created=2e9, seconds=0.25, active=1.0, lag=0.3, up=0.0)


def samples(text: str) -> dict[str, float]:
    return {
        each.name + "".join(each.labels.values()): each.value
        for family in text_string_to_metric_families(text)
        for each in family.samples
    }


def test_metrics_are_added_or_the_worst_of_all() -> None:
    only_here = "# HELP proxyd_x_total X\n# TYPE proxyd_x_total counter\nproxyd_x_total 5.0\n"
    assert samples(merge_metrics([ONE, OTHER + only_here, ""])) == {
        "proxyd_requests_total200a b": 7.0,
        "proxyd_requests_created200a b": 1e9,
        "proxyd_first_byte_seconds_bucket+Inf": 7.0,
        "proxyd_first_byte_seconds_sum": 0.75,
        "proxyd_streams_activea b": 3.0,
        "proxyd_loop_lag_seconds": 0.3,
        "proxyd_store_up": 0.0,
        "proxyd_x_total": 5.0,
    }


def test_what_a_worker_has_counted_outlives_it_without_its_gauges() -> None:
    kept = counts_in(ONE)
    assert samples(kept).keys() == {
        "proxyd_requests_total200a b",
        "proxyd_first_byte_seconds_bucket+Inf",
        "proxyd_first_byte_seconds_sum",
    }
    merged = samples(merge_metrics([OTHER, kept]))
    assert (merged["proxyd_requests_total200a b"], merged["proxyd_streams_activea b"]) == (7.0, 1.0)


def member(name: str, **more: Any) -> dict[str, Any]:
    return {
        "name": name, "state": "works", "calls": 1, "failures": 0, "input_tokens": 10, "output_tokens": 2, **more,
    }  # fmt: skip


def holder(in_flight: int, used: float) -> dict[str, Any]:
    limit = {"limit": "20 calls a day", "used": used, "of": 20}
    return {"name": "alice", "is_team": False, "in_flight": in_flight, "limits": [limit]}


def about(worker: int, **more: Any) -> dict[str, Any]:
    return {
        "worker": worker, "worker_pid": 100 + worker, "pid": 1, "uptime_s": 10.0 * worker, "calls": worker,
        "models": ["a", "b"], "circuits": [], "keys": {}, "targets": {}, "virtual_keys": [], "store": None,
        "hooks": [], **more,
    }  # fmt: skip


def test_the_status_of_all() -> None:
    found = merge_about(
        [
            about(
                2,
                circuits=[{"origin": "x", "state": "closed"}],
                keys={"m": [member("A"), member("B", state="limited", for_s=5.0)]},
                virtual_keys=[holder(2, 7)],
                store={"place": "sqlite", "trouble": None},
                hooks=[
                    {
                        "name": "h",
                        "calls": 1,
                        "failures": 0,
                        "slow_calls": 0,
                        "is_off": False,
                        "last_failure": None,
                    }
                ],
            ),
            about(
                1,
                models=["a"],
                circuits=[{"origin": "x", "state": "open"}, {"origin": "y", "state": "trial"}],
                keys={"m": [member("A", state="refused", for_s=60.0), member("B")]},
                virtual_keys=[holder(1, 9)],
                store={"place": "sqlite", "trouble": "the disk is full"},
                hooks=[
                    {
                        "name": "h",
                        "calls": 2,
                        "failures": 5,
                        "slow_calls": 0,
                        "is_off": True,
                        "last_failure": "x",
                    }
                ],
                config_error={"at": 1.0, "faults": ["no"]},
            ),
        ]
    )
    assert (found["pid"], found["calls"], found["uptime_s"]) == (1, 3, 20.0)
    assert not {"worker", "worker_pid"} & found.keys()
    assert [(each["number"], each["pid"]) for each in found["workers"]] == [(1, 101), (2, 102)]
    assert found["models"] == ["a"], "those that all have"
    assert {each["origin"]: each["state"] for each in found["circuits"]} == {"x": "open", "y": "trial"}
    assert [(each["name"], each["state"], each["calls"]) for each in found["keys"]["m"]] == [
        ("A", "refused", 2),
        ("B", "limited", 2),
    ]
    (key,) = found["virtual_keys"]
    assert (key["in_flight"], key["limits"][0]["used"]) == (3, 9)
    assert found["store"]["trouble"] == "the disk is full"
    (hook,) = found["hooks"]
    assert (hook["calls"], hook["failures"], hook["is_off"], hook["last_failure"]) == (3, 5, True, "x")
    assert found["config_error"]["faults"] == ["no"]


def test_totals_and_statistics_of_all() -> None:
    def totals(route: str, calls: int, ttfb_ms: int | None) -> dict[str, Any]:
        return {"route": route, "calls": calls, "cost_usd": 0.5, "ttfb_ms": ttfb_ms}

    first, second = [totals("a", 1, 100)], [totals("a", 3, 200), totals("b", 1, None)]
    merged = [totals("a", 4, 175), totals("b", 1, None)]
    merged[0]["cost_usd"] = 1.0
    assert merge_totals([first, second]) == merged

    def stats(
        since: list[dict[str, Any]], started_at: float, lost: int, trouble: str | None
    ) -> dict[str, Any]:
        ledger = {"calls_lost": lost, "trouble": trouble, "days": 90}
        return {
            "since_start": since,
            "started_at": started_at,
            "uptime_s": 1.0,
            "ledger": ledger,
            "today": {"x": 1},
        }

    found = merge_stats([stats(first, 20.0, 1, None), stats(second, 10.0, 2, "full")])
    assert found["since_start"] == merged
    assert (found["started_at"], found["today"]) == (10.0, {"x": 1})
    assert found["ledger"] == {"calls_lost": 3, "trouble": "full", "days": 90}
    own = merge_stats(
        [{"key": "alice", "holders": [holder(1, 2)]}, {"key": "alice", "holders": [holder(1, 3)]}]
    )
    assert own["holders"] == [holder(2, 3)]


def test_connections_and_one_call_of_all() -> None:
    def answer(circuit: str, keys: list[dict[str, Any]], error: Any) -> dict[str, Any]:
        route = {"model_id": "m", "circuit": circuit, "open_for_s": 3.0, "keys": keys, "targets": []}
        return {
            "routes": [route],
            "config": {"error": error},
            "hooks": [],
            "virtual_keys": [],
            "version": "1",
        }

    probed = answer("closed", [member("A")], None)
    probed["routes"][0]["probe"] = {"ok": True}
    found = merge_connection([probed, answer("open", [member("A")], {"faults": ["no"]})])
    (route,) = found["routes"]
    assert (route["circuit"], route["keys"][0]["calls"], route["probe"]) == ("open", 2, {"ok": True})
    assert found["config"]["error"] == {"faults": ["no"]}
    nothing, outline = {"record": None, "altered": []}, {"record": {"call": {}}, "altered": []}
    assert merge_call([nothing, outline]) is outline
    altered = {"record": None, "altered": [{"field": "x"}]}
    assert merge_call([altered, nothing]) is altered
