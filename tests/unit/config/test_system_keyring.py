"""Keys of the system's keyring: found, missing, locked, slow, and without the library."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import pytest
from keyring import errors

from proxyd.config.secrets import read_credential
from proxyd.config.system_keyring import KeyringFailed, find_key, keep_key, keyring_title, read_key
from tests.support.keyrings import MemoryKeyring, using_keyring
from tests.support.models_yaml import HEAD, read

KEY = "sk-0123456789abcdef"


def missing(name: str = "K") -> str:
    found = read_credential(f"${{keyring:{name}}}", {}, Path())
    assert (found.secret, found.origin) == (None, f"${{keyring:{name}}}")
    assert found.missing is not None
    assert KEY not in found.missing
    return found.missing


def test_a_key_is_stored_and_read() -> None:
    with using_keyring(MemoryKeyring(OTHER="other")):
        assert (keyring_title(), find_key("K")) == ("Test Keyring", None)
        keep_key("K", KEY)
        assert find_key("K") == KEY
        found = read_credential("${keyring: K }", {"K": "of the environment"}, Path())
    assert found.secret is not None
    assert (found.secret.reveal(), found.origin, found.is_of_keyring) == (KEY, "${keyring: K }", True)


def test_what_is_missing_is_said_with_what_to_do() -> None:
    keyring = MemoryKeyring(ODD="schlüssel", EMPTY=" ")
    with using_keyring(keyring):
        assert "has no key K of claude-proxy; run `keyring set claude-proxy K`, then" in missing()
        assert "what the system's keyring has as ODD is no key; store it again" in missing("ODD")
        assert "what the system's keyring has as EMPTY is no key" in missing("EMPTY")
        for failure, said in (
            (errors.KeyringLocked("dismissed"), "is locked; unlock it, then run `claude-proxy reload`"),
            (errors.InitError("no"), "is locked; unlock it"),
            (RuntimeError(KEY), "failed (RuntimeError); try `keyring get claude-proxy NAME` on a terminal"),
        ):

            def fail(failure: Exception = failure) -> None:
                raise failure

            keyring.on_use = fail
            assert said in missing()
            with pytest.raises(KeyringFailed):
                keep_key("K", KEY)
    with using_keyring(None):
        assert (keyring_title(), find_key("K")) == (None, None)
        assert (
            "there is no keyring of the system where claude-proxy runs; write ${NAME} in place of"
            in missing()
        )


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "keyring", None)
    assert (keyring_title(), find_key("K")) == (None, None)
    assert "need the library keyring; run `pip install 'claude-proxyd[keyring]'`" in missing()


def test_one_that_does_not_respond_is_given_up_and_not_asked_again_meanwhile() -> None:
    unlocked, asked = threading.Event(), threading.Semaphore(0)
    keyring = MemoryKeyring(K=KEY)

    def wait() -> None:
        asked.release()
        unlocked.wait(30)

    keyring.on_use = wait
    with using_keyring(keyring):
        for _ in range(2):
            with pytest.raises(KeyringFailed, match="does not respond; unlock it if it asks for that"):
                read_key("K", wait_s=0.01)
        assert asked.acquire(timeout=120)
        assert not asked.acquire(blocking=False), "the second one was not asked"
        waiting = next(each for each in threading.enumerate() if each.name == "keyring")
        unlocked.set()
        waiting.join(30)
        assert read_key("K") == KEY


def test_models_yaml_names_the_place_of_a_key_that_is_missing() -> None:
    pool = (
        "- {model_id: b, api_base: 'https://b.example/v1', api_keys: [${keyring:THERE}, ${keyring:GONE}]}\n"
    )
    with using_keyring(MemoryKeyring(THERE=KEY)):
        config = read(HEAD + "  api_key: ${keyring:K}\n" + pool)
    first, second = config.table.routes
    assert first.missing_key is not None
    assert (
        "has no key: the system's keyring has no key K of claude-proxy; run `keyring set" in first.missing_key
    )
    assert second.api_key is not None
    assert [each.name for each in second.api_keys] == ["THERE"]
    assert [line.split(": the system's keyring has no key ")[0] for line in config.warnings] == [
        "models.yaml:3:12: models[0].api_key",
        "models.yaml:4:80: models[1].api_keys[1]",
    ]
