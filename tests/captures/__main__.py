"""``python -m tests.captures [VERSION…]``: record what Claude Code sends, by default its two newest versions.

Exit code 0 also where this machine has no npm or no registry, and nothing was recorded; 1 where a conversation failed.
"""

from __future__ import annotations

import asyncio
import sys

from tests.captures.recording import record
from tests.system.e2e.daemon import ROOT
from tests.system.e2e.install import InstallError, UnreachableRegistryError, installed_claude

INSTALLED = ROOT / ".e2e"


def main(wanted: list[str]) -> int:
    try:
        if not wanted:
            _, newest = installed_claude(INSTALLED, "latest")
            line, _, patch = newest.rpartition(".")
            wanted = [newest, f"{line}.{int(patch) - 1}"]
        binaries = [installed_claude(INSTALLED, version) for version in wanted]
    except UnreachableRegistryError as exc:
        print(f"captures skipped: {exc}")
        return 0
    except InstallError as exc:
        print(f"captures: {exc}", file=sys.stderr)
        return 1
    failures = [failure for binary, version in binaries for failure in asyncio.run(record(binary, version))]
    print("\n".join(failures) or "all recorded; read the diff")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
