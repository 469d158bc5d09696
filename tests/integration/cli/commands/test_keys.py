"""``claude-proxy keys``: what it makes, prints and refuses, and a daemon that asks for what it made."""

from __future__ import annotations

import json
import time
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from proxyd.store.sqlite import FILE, SqliteKeyStore
from proxyd.store.virtual_keys import Directory, Limit, digest_of
from tests.support.command_line import Home, daemon

MODELS = """
settings: {auth: keys}
models:
- {model_id: demo, api_base: 'builtin:demo', pricing: {input: 1, output: 1}}
"""


def directory(home: Home) -> Directory:
    store = SqliteKeyStore(home.path / ".local" / "state" / "claude-proxy" / FILE)
    try:
        return store.directory()
    finally:
        store.close()


def test_a_key_is_printed_once_and_kept_as_a_hash(home: Home) -> None:
    made = home.run(
        "keys", "add", "alice", "--models", "claude-*, kimi,kimi", "--budget", "20/day", "--budget", "300/month",
        "--tokens", "2m/week", "--calls", "500/day", "--rpm", "60", "--streams", "8", "--expires", "90d",
    )  # fmt: skip
    secret = made.out.strip()
    assert (made.code, secret[:6], len(secret)) == (0, "sk-cp-", 46)
    assert "not shown again" in made.err
    (key,) = directory(home).keys
    assert (key.digest, key.models, key.streams) == (digest_of(secret), ("claude-*", "kimi"), 8)
    assert key.limits == (
        Limit(20, "usd", "day"), Limit(300, "usd", "month"), Limit(2e6, "tokens", "week"),
        Limit(500, "calls", "day"), Limit(60, "calls", "minute"),
    )  # fmt: skip
    assert key.expires_at == pytest.approx(time.time() + 90 * 86_400, abs=60)
    shown = home.run("keys", "list").out + home.run("keys", "list", "--json").out
    assert secret not in shown
    assert digest_of(secret) not in shown
    assert "alice  key   active  claude-*, kimi  8" in shown
    assert "$20.00 a day (0% used)" in shown


def test_rotation_and_revocation(home: Home) -> None:
    first = json.loads(home.run("keys", "add", "alice", "--json").out)["key"]
    second = home.run("keys", "rotate", "alice").out.strip()
    assert first != second
    (key,) = directory(home).keys
    assert key.digest == digest_of(second)
    assert home.run("keys", "revoke", "alice").code == 0
    assert json.loads(home.run("keys", "list", "--json").out)[0]["state"] == "revoked"
    refused = home.run("keys", "rotate", "alice")
    assert (refused.code, "was revoked; 'claude-proxy keys add alice'" in refused.err) == (64, True)
    assert home.run("keys", "add", "alice").code == 0
    assert directory(home).keys[0].id != key.id


def test_teams(home: Home) -> None:
    assert home.run("keys").out.strip() == "there are no keys; 'claude-proxy keys add NAME' makes one"
    refused = home.run("keys", "add", "alice", "--team", "research")
    assert (refused.code, "there is no team 'research'" in refused.err) == (64, True)
    made = home.run("keys", "team", "research", "--budget", "500/month", "--streams", "20")
    assert made.out.strip() == "the team 'research': $500.00 a month, 20 calls in flight"
    assert home.run("keys", "add", "alice", "--team", "research").code == 0
    assert "belong to the team 'research': alice" in home.run("keys", "team", "research", "--remove").err
    home.run("keys", "revoke", "alice")
    assert home.run("keys", "team", "research", "--remove").out.strip() == "the team 'research' is removed"
    assert directory(home).teams == ()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["add", "alice", "--budget", "20"], "expected an amount and a period"),
        (
            ["add", "alice", "--budget", "20/day", "--budget", "30/day"],
            "there are two limits on usd a day; keep one",
        ),
        (
            ["add", "alice", "--rpm", "5", "--calls", "9/minute"],
            "there are two limits on calls a minute; keep one",
        ),
        (["add", "alice", "--expires", "2020-01-01"], "--expires: expected a time in the future"),
        (["add", "a b"], "expected a name of at most 64 letters"),
        (["rotate", "alica"], "there is no key 'alica'; there is none to name"),
        (["revoke", "alice"], "there is no key 'alice'"),
        (["team", "research", "--remove", "--rpm", "5"], "--remove takes no limits"),
        (["team", "research", "--remove"], "there is no team 'research'"),
        (["remove"], "there is no command 'remove'"),
    ],
)
def test_what_is_wrong_is_said(home: Home, arguments: list[str], expected: str) -> None:
    result = home.run("keys", *arguments)
    assert result.code == 64
    assert expected in result.err
    assert directory(home) == Directory()


def test_a_second_key_of_a_name_is_refused(home: Home) -> None:
    home.run("keys", "add", "alice")
    refused = home.run("keys", "add", "alice")
    assert (refused.code, refused.out) == (64, "")
    assert "there is a key 'alice'; 'claude-proxy keys rotate alice' replaces its secret" in refused.err


def test_a_budget_warns_of_entries_without_prices(home: Home) -> None:
    home.write_models(
        MODELS + "- {model_id: free, api_base: 'https://a.example', api_key: k}\n"
        "- {model_id: other, api_base: 'https://b.example', api_key: k}\n"
    )
    text = "count 0 USD against the budgets of virtual keys: free"
    made = home.run("keys", "add", "alice", "--budget", "5/day", "--models", "demo,free")
    assert text in " ".join(made.err.split())
    assert "other" not in made.err
    assert "0 USD" not in home.run("keys", "add", "bob", "--calls", "5/day").err
    assert "0 USD" not in home.run("keys", "add", "carol", "--budget", "5/day", "--models", "demo").err
    assert f"{text}, other" in " ".join(home.run("keys", "team", "research", "--budget", "5/day").err.split())
    assert "0 USD" in home.run("keys", "add", "dave", "--team", "research").err
    assert f"{text}, other" in " ".join(home.run("check").err.split())
    home.write_models((home.config / "models.yaml").read_text().replace("auth: keys", "auth: token"))
    assert "0 USD" not in home.run("check").err


def test_code_asks_for_the_users_key(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    home.write_models(MODELS)
    refused = home.run("code", "demo")
    assert (refused.code, "ANTHROPIC_AUTH_TOKEN must be your key of this proxy" in refused.err) == (64, True)
    variables = json.loads(home.run("env", "demo", "--shell", "json").out)["env"]
    assert "ANTHROPIC_AUTH_TOKEN" not in variables
    monkeypatch.setenv("ANTHROPIC_AUTH_TOKEN", "sk-cp-of-mine")
    assert home.run("env", "demo", "--shell", "json").err == ""


def test_a_budget_of_a_cent_ends(home: Home) -> None:
    """The path of docs/teams.md with processes: a key, its calls, its end, and what is recorded."""
    home.write_models(MODELS.replace("input: 1,", "input: 1000,"))
    secret = home.run("keys", "add", "alice", "--budget", "0.01/day").out.strip()
    body = json.dumps(
        {"model": "demo", "max_tokens": 20, "messages": [{"role": "user", "content": "hello there " * 20}]}
    ).encode()

    def call(key: str) -> tuple[int, str]:
        headers = {"content-type": "application/json", "x-api-key": key}
        try:
            with urlopen(Request(f"{base}/v1/messages", body, headers), timeout=120) as response:
                return response.status, response.read().decode()
        except HTTPError as exc:
            return exc.code, json.loads(exc.read())["error"]["message"]

    with daemon(home.path) as (_, base):
        assert call("sk-cp-unknown")[0] == 401
        assert call(secret)[0] == 200
        status, message = call(secret)
        assert status == 429
        assert message.startswith("the key 'alice' of this proxy has reached its limit of $0.01 a day ($")
        deadline = time.monotonic() + 20
        while True:  # rows and usage are written within about a second
            rows = json.loads(home.run("stats", "--by", "key", "--json").out)["rows"]
            listed = json.loads(home.run("keys", "list", "--json").out)
            if [(row["key"], row["calls"]) for row in rows] == [("alice", 2)] and listed[0]["limits"][0][
                "share"
            ] > 1:
                break
            assert time.monotonic() < deadline, (rows, listed)
            time.sleep(0.1)


def test_a_damaged_file_is_reported(home: Home) -> None:
    folder = home.path / ".local" / "state" / "claude-proxy"
    folder.mkdir(parents=True, mode=0o700)
    Path(folder / FILE).write_bytes(b"no database" * 1000)
    for arguments in (["list"], ["add", "alice"]):
        result = home.run("keys", *arguments)
        assert result.code == 78
        assert "keys.db cannot be read or written" in result.err
