"""Several keys of an entry, and keys of the proxy's own for the people who use it."""

from __future__ import annotations

import time

from proxyd.store.sqlite import FILE, SqliteKeyStore
from proxyd.store.virtual_keys import Limit, VirtualKey, digest_of, new_secret
from tests.system.e2e.openai_upstream import call, refuse, say
from tests.system.e2e.stage import Stage, check, check_equal, scenario

CONFIGURED = "sk-configured-0123456789abcdef"


@scenario
async def the_next_key_serves_a_session(stage: Stage) -> None:
    """A key of `api_keys` that runs into its limit is set aside; Claude Code sees no error, and its session stays"""
    path = stage.project / "keys.txt"
    limited = refuse(429, "Rate limit reached", kind="requests", code="rate_limit_exceeded")
    script = [limited, call("Write", file_path=str(path), content="by the second"), say("Written.")]
    upstream = await stage.openai(script)
    keys = [{"key": f"sk-{number}-0123456789abcdef", "name": f"key{number}"} for number in (1, 2, 3)]
    daemon = await stage.daemon([{"model_id": "pooled", "api_base": upstream.api_base, "api_keys": keys}])
    run = await stage.succeed(daemon, "Write it.", model="pooled", tools=["Write"])
    check_equal(run.text, "Written.", "the answer")
    check_equal(path.read_text(), "by the second", "keys.txt")
    sent = [request.headers["authorization"].split("-")[1] for request in upstream.requests]
    check_equal(sent, ["1", "2", "2"], "the keys of the requests")


@scenario
async def a_budget_of_a_cent(stage: Stage) -> None:
    """With `auth: keys`, Claude Code shows a budget that is used up, and an unknown key, as the proxy says it"""
    upstream = await stage.openai(say("Fine."), key=CONFIGURED)
    entry = {
        "model_id": "priced",
        "api_base": upstream.api_base,
        "api_key": CONFIGURED,
        "pricing": {"input": 1000, "output": 1000},
    }
    daemon = await stage.daemon([entry], {"CLAUDE_PROXY_AUTH": "keys"})
    secret = new_secret()
    store = SqliteKeyStore(daemon.state_folder / FILE)
    limits = (Limit(0.01, "usd", "day"),)
    store.put_key(VirtualKey("1", "alice", digest_of(secret), time.time(), limits=limits))
    store.close()
    unknown = await stage.run(daemon, "Hello.", model="priced")
    check(not unknown.is_success, "an unknown key was taken")
    check("does not know the key" in unknown.text, f"Claude Code shows: {unknown.text}")
    credentials = {"ANTHROPIC_AUTH_TOKEN": secret}
    run = await stage.succeed(daemon, "Hello.", model="priced", credentials=credentials)
    check_equal(run.text, "Fine.", "the answer")
    used_up = await stage.run(daemon, "Hello again.", model="priced", credentials=credentials)
    check(not used_up.is_success, "the budget was exceeded")
    check("has reached its limit of $0.01 a day" in used_up.text, f"Claude Code shows: {used_up.text}")
    check(used_up.seconds < 30, f"it took {used_up.seconds:.0f} s to be shown")
    stage.note(f"shown after {used_up.seconds:.1f} s: {used_up.text}")
    check_equal(len(upstream.requests), 1, "the requests that reached the upstream")
    check(
        secret not in str([request.headers for request in upstream.requests]), "the key reached the upstream"
    )
