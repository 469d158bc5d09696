"""Access tokens of Google's application default credentials: shared, renewed ahead of time, never in the loop."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading

import pytest

from proxyd.errors import BadCredential, Unreachable
from proxyd.transport import google_tokens
from proxyd.transport.google_tokens import GoogleTokens

HOUR_S = 3600.0


class Source:
    """Returns numbered tokens that are valid for an hour by a clock that the test sets."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.calls = 0
        self.failure: Exception | None = None
        self.may_return = threading.Event()
        self.may_return.set()
        self.threads: set[int] = set()

    def __call__(self) -> tuple[str, float]:
        self.threads.add(threading.get_ident())
        assert self.may_return.wait(10)
        self.calls += 1
        if self.failure is not None:
            raise self.failure
        return f"ya29.token-{self.calls}", self.now + HOUR_S


async def until(condition: object) -> None:
    """Wait until `condition()` holds."""
    for _ in range(1000):
        if condition():  # type: ignore[operator]
            return
        await asyncio.sleep(0.005)
    raise AssertionError("it did not happen")


async def test_calls_share_a_token_that_a_thread_obtains() -> None:
    source = Source()
    tokens = GoogleTokens(source, lambda: source.now)
    found = await asyncio.gather(*(tokens.token() for _ in range(5)))
    assert {each.reveal() for each in found} == {"ya29.token-1"}
    assert source.calls == 1
    assert threading.get_ident() not in source.threads
    source.now += HOUR_S - google_tokens._RENEW_S
    assert (await tokens.token()).reveal() == "ya29.token-1"
    assert source.calls == 1


async def test_a_token_is_renewed_ahead_while_calls_use_it() -> None:
    source = Source()
    tokens = GoogleTokens(source, lambda: source.now)
    await tokens.token()
    source.now += HOUR_S - google_tokens._RENEW_S + 1
    source.may_return.clear()
    assert [(await tokens.token()).reveal() for _ in range(3)] == ["ya29.token-1"] * 3
    source.may_return.set()
    await until(lambda: source.calls == 2)
    await until(lambda: tokens._renewal.done())
    assert (await tokens.token()).reveal() == "ya29.token-2"


async def test_a_failed_renewal_is_tried_again_and_hurts_only_without_a_token() -> None:
    source = Source()
    tokens = GoogleTokens(source, lambda: source.now)
    await tokens.token()
    source.now += HOUR_S - google_tokens._LEAST_S - 1
    source.failure = Unreachable("no network")
    for _ in range(2):
        assert (await tokens.token()).reveal() == "ya29.token-1"
        await until(lambda: tokens._renewal.done())
    source.now += 2
    with pytest.raises(Unreachable, match="no network"):
        await tokens.token()
    source.failure = None
    assert (await tokens.token()).reveal() == f"ya29.token-{source.calls}"


async def test_a_slow_google_is_not_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(google_tokens, "_WAIT_S", 0.05)
    source = Source()
    source.may_return.clear()
    tokens = GoogleTokens(source, lambda: source.now)
    with pytest.raises(Unreachable, match=r"within 0\.05 s"):
        await tokens.token()
    source.may_return.set()
    await until(lambda: tokens._renewal.done())
    assert (await tokens.token()).reveal() == "ya29.token-1"


async def test_without_the_library_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "google.auth", None)
    with pytest.raises(BadCredential, match=r"pip install 'claude-proxyd\[vertex\]'"):
        await GoogleTokens().token()


def test_the_library_is_not_imported_before_it_is_needed() -> None:
    code = "import sys, proxyd.daemon.server; sys.exit('google.auth' in sys.modules or 'requests' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
