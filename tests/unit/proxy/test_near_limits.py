"""The file that the status line reads: which limits are in it, when it is written, and what is no file of ours."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from proxyd.proxy.key_ring import KeyRing
from proxyd.proxy.near_limits import FILE, NearLimitsFile, read_near_limits
from proxyd.store.sqlite import SqliteKeyStore
from proxyd.store.virtual_keys import Limit, Spent, Team, VirtualKey, end_of, start_of

NOW = 1_900_000_000.0
LIMITS = (Limit(20, "usd", "day"), Limit(100, "calls", "minute"), Limit(1000, "tokens", "month"))
KEY = VirtualKey("1", "alice", "digest", NOW, limits=LIMITS, team="research")


def test_limits_from_three_quarters_on_are_in_it(tmp_path: Path) -> None:
    store, ring, path = SqliteKeyStore(tmp_path / "keys.db"), KeyRing(lambda: NOW), tmp_path / FILE
    file = NearLimitsFile(ring, path, lambda: NOW)

    def shown(team: str | None = "research", now: float = NOW) -> list[str]:
        news = ring.begin_exchange()
        news.run(store)
        ring.end_exchange(news)
        file.begin()()()
        return read_near_limits(path, "alice", team, now)

    def use(owner: str, period: str, spent: Spent) -> None:
        store.add_usage({(owner, period, start_of(period, NOW)): spent})

    store.put_team(Team("research", (Limit(100, "usd", "month"),)))
    store.put_key(KEY)
    use("key:1", "day", Spent(14.9, 0, 0))
    use("key:1", "minute", Spent(0, 0, 99))
    assert shown() == []
    use("key:1", "day", Spent(0.2, 0, 0))
    use("team:research", "month", Spent(120, 0, 0))
    assert shown() == ["alice: 76% of $20.00 a day", "research: 120% of $100.00 a month"]
    assert shown(team=None) == ["alice: 76% of $20.00 a day"]
    assert path.stat().st_mode & 0o777 == 0o600
    path.unlink()
    assert shown() == [], "it is written when something has changed"
    use("key:1", "day", Spent(1, 0, 0))
    assert shown()[0] == "alice: 80% of $20.00 a day"
    later = read_near_limits(path, "alice", "research", end_of("day", NOW))
    assert later == ["research: 120% of $100.00 a month"], "the day is over, and no daemon has written"
    store.put_key(replace(KEY, revoked_at=NOW))
    assert shown() == ["research: 120% of $100.00 a month"]
    store.close()


def test_another_file_shows_nothing(tmp_path: Path) -> None:
    path = tmp_path / FILE
    assert read_near_limits(path, "alice", None, NOW) == []
    for text in ("", "[]", "{}", '{"keys": 3, "teams": {}}', '{"keys": {"alice": [{}]}, "teams": {}}'):
        path.write_text(text)
        assert read_near_limits(path, "alice", None, NOW) == []
