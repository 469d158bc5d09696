"""Files of the package that are copied to the user: the example models.yaml, hooks, service files.

A checkout has them at its root, an installation under ``share/claude-proxy`` (setup.cfg).
"""

from __future__ import annotations

import site
import sys
import sysconfig
from pathlib import Path

import proxyd
from proxyd.cli.exit_codes import CommandFailed

__all__ = ["own_command", "packaged_path"]


def packaged_path(*parts: str) -> Path:
    """Return the path of a packaged file or folder.

    Raises:
        CommandFailed: the installation lacks it.
    """
    checkout = Path(proxyd.__file__).resolve().parents[1]
    bases = [checkout] if (checkout / "setup.cfg").exists() else []
    bases += [
        Path(root) / "share" / "claude-proxy"
        for root in (sysconfig.get_path("data"), site.getuserbase(), sys.prefix)
    ]
    for base in bases:
        path = base.joinpath(*parts)
        if path.exists():
            return path
    raise CommandFailed(f"this installation lacks {'/'.join(parts)}; install claude-proxy again")


def own_command() -> list[str]:
    """Return the command line that runs this installation, by absolute path."""
    script = Path(sys.executable).parent / "claude-proxy"
    return [str(script)] if script.exists() else [sys.executable, "-m", "proxyd"]
