"""Keys in the system's keyring (macOS Keychain, GNOME Keyring, KWallet), through the optional library ``keyring``.

A locked keyring may ask its owner for a password and respond only then. So each question runs in a thread of its own
and is given up after a time; while one still waits, the next ones fail at once. The library is imported when it is
needed: few have it.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Any

__all__ = ["SERVICE", "KeyringFailed", "find_key", "keep_key", "keyring_title", "read_key"]

#: The service under which the library keeps our keys; the user name is that of the key.
SERVICE = "claude-proxy"
#: How long reading a configuration waits for one key.
READ_S = 10.0
#: How long a person may take to unlock the keyring, when a command stores a key there.
STORE_S = 120.0

_INSTALL = (
    "keys in the system's keyring need the library keyring; run `pip install 'claude-proxyd[keyring]'` where "
    "claude-proxy is installed, and start it again"
)
_RELOAD = "run `claude-proxy reload`"
_NO_RESPONSE = f"the system's keyring does not respond; unlock it if it asks for that, then {_RELOAD}"

#: Threads that were given up and may still wait.
_given_up: list[threading.Thread] = []


class KeyringFailed(Exception):
    """The keyring has no such key, or cannot be used.

    Attributes:
        message: what is wrong, "; " and what to do; it holds no key.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


def read_key(name: str, wait_s: float = READ_S) -> str:
    """Return the key of that name. Blocks for `wait_s` seconds at most.

    Raises:
        KeyringFailed: there is none, or it cannot be read.
    """
    value = _ask(lambda library: library.get_password(SERVICE, name), wait_s)
    if value is None:
        raise KeyringFailed(
            f"the system's keyring has no key {name} of {SERVICE}; run `keyring set {SERVICE} {name}`, then {_RELOAD}"
        )
    return str(value).strip()


def find_key(name: str) -> str | None:
    """Return the key of that name; None where there is none, or no keyring that works. Blocks as `read_key`."""
    if keyring_title() is None:
        return None
    try:
        return read_key(name)
    except KeyringFailed:
        return None


def keep_key(name: str, value: str) -> None:
    """Store a key, in place of one that is there. Blocks while its owner unlocks the keyring.

    Raises:
        KeyringFailed: it was not stored.
    """
    _ask(lambda library: library.set_password(SERVICE, name, value), STORE_S)


def keyring_title() -> str | None:
    """Return the name of the keyring that is used; None without the library, or without one that it recommends."""
    try:
        name, priority = _ask(lambda library: _described(library.get_keyring()), READ_S)
    except KeyringFailed:
        return None
    return str(name) if priority >= 1 else None


def _described(backend: Any) -> tuple[str, float]:
    return backend.name, backend.priority


def _ask(question: Callable[[Any], Any], wait_s: float) -> Any:
    """Return what `question` returns for the library, in a thread of its own.

    Raises:
        KeyringFailed: the library is missing or has raised, or there is no response in time.
    """
    try:
        import keyring
        from keyring import errors
    except ImportError:
        raise KeyringFailed(_INSTALL) from None
    outcome: queue.SimpleQueue[tuple[Any, Exception | None]] = queue.SimpleQueue()

    def ask() -> None:
        try:
            outcome.put((question(keyring), None))
        except Exception as exc:  # a backend may raise what it likes
            outcome.put((None, exc))

    _given_up[:] = [each for each in _given_up if each.is_alive()]
    if _given_up:
        raise KeyringFailed(_NO_RESPONSE)
    thread = threading.Thread(target=ask, name="keyring", daemon=True)
    thread.start()
    try:
        value, failure = outcome.get(timeout=wait_s)
    except queue.Empty:
        _given_up.append(thread)
        raise KeyringFailed(_NO_RESPONSE) from None
    if failure is None:
        return value
    if isinstance(failure, errors.NoKeyringError):
        raise KeyringFailed(
            "there is no keyring of the system where claude-proxy runs; write ${NAME} in place of ${keyring:NAME}, and "
            "NAME=KEY into the file env beside models.yaml"
        )
    if isinstance(failure, (errors.KeyringLocked, errors.InitError)):
        raise KeyringFailed(f"the system's keyring is locked; unlock it, then {_RELOAD}")
    raise KeyringFailed(
        f"the system's keyring failed ({type(failure).__name__}); try `keyring get {SERVICE} NAME` on a terminal"
    )
