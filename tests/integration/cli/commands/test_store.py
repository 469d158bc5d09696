"""``claude-proxy store migrate``, and ``keys`` on the store that the settings name."""

from __future__ import annotations

import json

import pytest

from proxyd.config.database_url import parse_database_url
from proxyd.store.opening import open_key_store
from proxyd.store.virtual_keys import Limit, Spent
from tests.support.command_line import Home
from tests.support.postgres import PASSWORD, Postgres


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((), "--to: expected the address of a PostgreSQL database"),
        (("--to", "sqlite"), "--to: expected the address of a PostgreSQL database"),
        (("--to", "mysql://u:top-secret@h/d"), "--to: expected sqlite, or postgresql://"),
        (("--to", "${NONE}"), "--to: NONE is not set"),
        (("--from", "postgresql://h/d"), "'postgresql://h/d' is not 'sqlite'"),
    ],
)
def test_what_is_wrong_is_said(home: Home, arguments: tuple[str, ...], expected: str) -> None:
    result = home.run("store", "migrate", *arguments)
    assert result.code == 64
    assert expected in result.err
    assert "top-secret" not in result.err


def test_a_shared_ledger_needs_an_address(home: Home) -> None:
    result = home.run("stats", "--shared")
    assert (
        result.code,
        "'store' under settings in models.yaml names no PostgreSQL database" in result.err,
    ) == (64, True)


def test_keys_move_to_postgresql_and_are_managed_there(
    home: Home, postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = postgres.new_database()
    monkeypatch.setenv("STORE_URL", url)
    empty = home.run("store", "migrate", "--to", "${STORE_URL}")
    assert (empty.code, "there are no keys and teams to copy" in empty.err) == (64, True)
    home.run("keys", "team", "research", "--budget", "500/month")
    home.run("keys", "add", "alice", "--team", "research", "--rpm", "60")
    home.run("keys", "add", "bob")
    home.run("keys", "revoke", "bob")
    origin = open_key_store(None, home.path / ".local" / "state" / "claude-proxy")
    origin.add_usage(
        {
            ("key:1", "day", 1_900_000_000): Spent(0.1, 5, 1),
            ("team:research", "month", 1_900_000_000): Spent(0.3, 9, 2),
        }
    )
    done = home.run("store", "migrate", "--from", "sqlite", "--to", "${STORE_URL}")
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("copied and compared: keys 2, teams 1, sums of usage 2\n")
    copy = open_key_store(parse_database_url(url), home.path)
    assert copy.directory() == origin.directory()
    assert copy.all_usage() == origin.all_usage()
    origin.close()
    again = home.run("store", "migrate", "--to", "${STORE_URL}")
    assert (again.code, "has keys, teams or usage already" in again.err) == (64, True)
    assert PASSWORD not in done.out + again.err

    home.write_models(
        "settings: {store: '${STORE_URL}'}\nmodels:\n- {model_id: m, api_base: 'builtin:demo'}\n"
    )
    assert home.run("keys", "add", "carol", "--calls", "5/day").code == 0
    carol = copy.directory().key("carol")
    assert carol is not None
    assert carol.limits == (Limit(5, "calls", "day"),)
    copy.close()
    assert [each["name"] for each in json.loads(home.run("keys", "list", "--json").out)] == [
        "alice", "bob", "carol", "research",
    ]  # fmt: skip
    checked = home.run("check", "--all")
    assert str(parse_database_url(url)) in checked.out
    assert PASSWORD not in checked.out + checked.err
    assert "No calls in that time" in home.run("stats", "--shared").out
    monkeypatch.setenv("STORE_URL", postgres.url("nosuch"))
    failed = home.run("stats", "--shared")
    assert (failed.code, "nosuch cannot be used" in failed.err, PASSWORD in failed.err) == (78, True, False)
    failed = home.run("keys", "list")
    assert (failed.code, "the store postgresql://proxy@" in failed.err) == (78, True)
    assert PASSWORD not in failed.err
