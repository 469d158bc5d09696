"""A keyring for tests, by the interface that the library ``keyring`` has for other backends."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import keyring
from keyring.backend import KeyringBackend
from keyring.backends.fail import Keyring as NoKeyring

__all__ = ["FILE_VARIABLE", "FileKeyring", "MemoryKeyring", "using_keyring"]

#: Names the file of a `FileKeyring`, which a process is given by ``PYTHON_KEYRING_BACKEND``.
FILE_VARIABLE = "TEST_KEYRING_FILE"


class MemoryKeyring(KeyringBackend):
    """A keyring in memory.

    Attributes:
        keys: (service, name) -> key.
        on_use: is called before each answer; what it raises is the answer.
    """

    priority = 5  # type: ignore[assignment]  # a class property of the library

    def __init__(self, **keys: str) -> None:
        super().__init__()
        self.keys = {("claude-proxy", name): value for name, value in keys.items()}
        self.on_use: Callable[[], object] = lambda: None

    @property
    def name(self) -> str:
        return "Test Keyring"

    def get_password(self, service: str, username: str) -> str | None:
        self.on_use()
        return self.keys.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        self.on_use()
        self.keys[service, username] = password


class FileKeyring(MemoryKeyring):
    """A keyring in the JSON file that `FILE_VARIABLE` names."""

    def get_password(self, service: str, username: str) -> str | None:
        path = Path(os.environ[FILE_VARIABLE])
        return json.loads(path.read_text()).get(f"{service} {username}") if path.exists() else None

    def set_password(self, service: str, username: str, password: str) -> None:
        path = Path(os.environ[FILE_VARIABLE])
        path.write_text(json.dumps({**json.loads(path.read_text()), f"{service} {username}": password}))


@contextmanager
def using_keyring(backend: KeyringBackend | None) -> Iterator[None]:
    """Make `backend` the system's keyring; None for a system without one."""
    before = keyring.get_keyring()
    keyring.set_keyring(NoKeyring() if backend is None else backend)
    try:
        yield
    finally:
        keyring.set_keyring(before)
