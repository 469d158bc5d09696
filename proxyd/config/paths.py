"""Where files are looked for (docs/spec/design.md#files).

platformdirs' Unix class is used on macOS too, where its users expect ``~/.config``. It reads ``$XDG_*`` from
the process's own environment; everything else comes from the mapping that is passed in.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from platformdirs.unix import Unix

__all__ = ["make_private_folder", "resolve_models_path", "resolve_state_folder"]

_NAME = "claude-proxy"
_FILE = "models.yaml"


def resolve_models_path(flag: str | Path | None, environ: Mapping[str, str]) -> tuple[Path, str]:
    """The models.yaml in force, and what made it so: ``--models``, a variable's name, or ``default``.

    The first that is named wins, whether or not the file is there: a daemon that silently took another file
    than the one it was told of would surprise more than one that says what is missing.
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


def resolve_state_folder(environ: Mapping[str, str]) -> Path:
    """Where the ledger, logs and learned state live; not created here."""
    folder = environ.get("STATE_DIRECTORY", "").split(":")[0]
    return Path(folder) if folder else Unix(_NAME).user_state_path


def make_private_folder(path: Path) -> None:
    """Make a folder, and those above it that are missing, for its owner alone, whatever the umask; one that is there
    stays as it is.
    """
    missing = []
    for each in (path, *path.parents):
        if each.exists():
            break
        missing.append(each)
    for each in reversed(missing):
        try:
            each.mkdir(mode=0o700)
        except FileExistsError:
            continue  # somebody else was faster
        each.chmod(0o700)
    path.mkdir(exist_ok=True)  # says what is wrong where it is a file
