"""Files of the distribution that are copied to the user, and the command of this installation."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from proxyd.cli.exit_codes import CommandFailed

__all__ = ["below_folder", "own_command", "own_words", "packaged_path"]


def packaged_path(*parts: str) -> Path:
    """Return the path of a packaged file or folder.

    Raises:
        CommandFailed: the installation lacks it.
    """
    from proxyd.config.package_files import find_packaged

    path = find_packaged(*parts)
    if path is None:
        raise CommandFailed(f"this installation lacks {'/'.join(parts)}; install claude-proxy again")
    return path


def own_command() -> list[str]:
    """Return the command line that runs this installation, by absolute path."""
    script = Path(sys.executable).parent / "claude-proxy"
    return [str(script)] if script.exists() else [sys.executable, "-m", "proxyd"]


def own_words() -> list[str]:
    """Return the words that call this program from the working directory, for a line that a person copies."""
    script, *rest = own_command()
    found = shutil.which("claude-proxy")
    if found is not None and not rest and os.path.realpath(found) == os.path.realpath(script):
        return ["claude-proxy"]
    return [below_folder(Path(script)), *rest]


def below_folder(path: Path) -> str:
    """Return `path` relative to the working directory, if it is below that."""
    folder = os.path.join(os.getcwd(), "")
    return str(path).removeprefix(folder)
