"""Locations of models.yaml and the state folder (docs/spec/design.md#files).

platformdirs' Unix class is used on macOS too, where its users expect ``~/.config``. It reads ``$XDG_*`` from
the process's own environment; other variables come from the mapping that is passed in.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from pathlib import Path

from platformdirs.unix import Unix

__all__ = [
    "is_default_models_path",
    "make_private_folder",
    "replace_private_file",
    "resolve_models_path",
    "resolve_state_folder",
]

_NAME = "claude-proxy"
_FILE = "models.yaml"


def resolve_models_path(flag: str | Path | None, environ: Mapping[str, str]) -> tuple[Path, str]:
    """Return the models.yaml in force and its source: ``--models``, a variable's name, or ``default``.

    The first source wins even if its file does not exist: an error about a missing file is better than a daemon that
    silently reads another one.
    """
    if flag is not None:
        return Path(os.path.expanduser(flag)), "--models"
    if environ.get("CLAUDE_PROXY_MODELS"):
        return Path(os.path.expanduser(environ["CLAUDE_PROXY_MODELS"])), "$CLAUDE_PROXY_MODELS"
    # systemd sets a list here when a unit has several folders; the first is the unit's main one.
    folder = environ.get("CONFIGURATION_DIRECTORY", "").split(":")[0]
    if folder:
        return Path(folder) / _FILE, "$CONFIGURATION_DIRECTORY"
    why = "$XDG_CONFIG_HOME" if environ.get("XDG_CONFIG_HOME", "").strip() else "default"
    return Unix(_NAME).user_config_path / _FILE, why


def is_default_models_path(path: Path, environ: Mapping[str, str]) -> bool:
    """Whether `path` is where models.yaml is looked for when nobody names one."""
    return path == resolve_models_path(None, {**environ, "CLAUDE_PROXY_MODELS": ""})[0]


def resolve_state_folder(environ: Mapping[str, str]) -> Path:
    """Return the folder of the ledger, logs and learned state, without creating it."""
    folder = environ.get("STATE_DIRECTORY", "").split(":")[0]
    return Path(folder) if folder else Unix(_NAME).user_state_path


def make_private_folder(path: Path) -> None:
    """Create a folder and its missing parents with mode 0700, whatever the umask; existing ones stay unchanged."""
    missing = []
    for each in (path, *path.parents):
        if each.exists():
            break
        missing.append(each)
    for each in reversed(missing):
        try:
            each.mkdir(mode=0o700)
        except FileExistsError:
            continue  # another process created it
        each.chmod(0o700)
    path.mkdir(exist_ok=True)  # raises where it is a file


def replace_private_file(path: Path, content: bytes) -> None:
    """Replace a file by one that only its owner can read, whatever the umask. Several processes may do so at once.

    Raises:
        OSError: it could not be written; the old file is still there.
    """
    temporary = path.with_suffix(f".{os.getpid()}-{threading.get_ident()}.new")
    make_private_folder(path.parent)
    try:
        with open(temporary, "wb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
            file.write(content)
        os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
