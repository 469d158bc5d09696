"""Files of the distribution outside the package: configuration, hooks, service files.

A checkout has them at its root, an installation under ``share/claude-proxy`` (setup.cfg).
"""

from __future__ import annotations

import site
import sys
import sysconfig
from pathlib import Path

import proxyd

__all__ = ["find_packaged"]


def find_packaged(*parts: str) -> Path | None:
    """Return the path of a packaged file or folder, or None if the installation lacks it."""
    checkout = Path(proxyd.__file__).resolve().parents[1]
    bases = [checkout] if (checkout / "setup.cfg").exists() else []
    bases += [
        Path(root) / "share" / "claude-proxy"
        for root in (sysconfig.get_path("data"), site.getuserbase(), sys.prefix)
    ]
    return next((path for base in bases if (path := base.joinpath(*parts)).exists()), None)
