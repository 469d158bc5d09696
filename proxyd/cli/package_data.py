"""Files of the distribution that are copied to the user, and the command of this installation."""

from __future__ import annotations

import sys
from pathlib import Path

from proxyd.cli.exit_codes import CommandFailed

__all__ = ["own_command", "packaged_path"]


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
