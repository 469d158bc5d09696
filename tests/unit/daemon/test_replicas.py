"""When a daemon warns of others that run another models.yaml."""

from __future__ import annotations

from structlog.testing import capture_logs

from proxyd.daemon.replicas import GONE_S, PATIENCE_S, Replicas


class Store:
    """Holds what was announced."""

    def __init__(self) -> None:
        self.rows: dict[str, str] = {}

    def announce(self, name: str, config_hash: str, gone_s: float) -> dict[str, str]:
        assert gone_s == GONE_S
        self.rows[name] = config_hash
        return dict(self.rows)

    def withdraw(self, name: str) -> None:
        del self.rows[name]


class Bench:
    def __init__(self) -> None:
        self.now, self.hash, self.store = 0.0, "mine", Store()
        self.replicas = Replicas(self.store, "here:1", lambda: self.hash, lambda: self.now)

    def exchange(self, after_s: float = 0.0) -> list[str]:
        """Exchange once; return the events in the log."""
        self.now += after_s
        with capture_logs() as lines:
            self.replicas.begin()()()
        return [line["event"] for line in lines]


def test_a_difference_that_lasts_is_warned_of_once() -> None:
    bench = Bench()
    bench.store.rows["there:1"] = "mine"
    assert bench.exchange() == []
    bench.store.rows["there:1"] = "other"
    assert bench.exchange() == bench.exchange(PATIENCE_S - 1) == [], "it may be reloading"
    assert bench.replicas.describe() == {
        "name": "here:1",
        "others": 1,
        "differing": {"there:1": "other"},
    }, "the status shows it at once"
    bench.replicas.begin()
    bench.replicas.fail()
    assert bench.exchange(1) == ["config.differs"]
    assert bench.exchange(PATIENCE_S) == []
    bench.store.rows["elsewhere:1"] = "third"
    assert bench.exchange() == ["config.differs"]
    bench.hash = "other"
    assert bench.exchange() == ["config.differs"], "of the third"
    del bench.store.rows["elsewhere:1"]
    assert bench.exchange() == ["config.same_on_all_replicas"]
    bench.store.rows["there:1"] = "mine"
    assert bench.exchange() == [], "the patience begins anew"
    assert bench.exchange(PATIENCE_S) == ["config.differs"]


def test_a_daemon_that_ends_is_forgotten() -> None:
    bench = Bench()
    bench.exchange()
    assert bench.store.rows == {"here:1": "mine"}
    bench.replicas.leave()()()
    assert bench.store.rows == {}
