"""``python -m tests.client_diff OLD NEW``: install two versions of Claude Code and print what changed between them.

Exit code 0 also where this machine has no npm or no registry; 1 where a conversation failed.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from pathlib import Path

from tests.client_diff.calls import record_calls
from tests.client_diff.compare import report
from tests.support.paths import ROOT
from tests.system.e2e.install import InstallError, UnreachableRegistryError, installed_claude

INSTALLED = ROOT / ".e2e"


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="make client-diff", description="Compare two versions of Claude Code."
    )
    parser.add_argument("old", metavar="OLD", help="a version of npm, such as 2.1.330")
    parser.add_argument("new", metavar="NEW", help="a later version, or latest")
    options = parser.parse_args(arguments)
    try:
        installed = [installed_claude(INSTALLED, version) for version in (options.old, options.new)]
    except UnreachableRegistryError as exc:
        print(f"client-diff skipped: {exc}")
        return 0
    except InstallError as exc:
        print(f"client-diff: {exc}", file=sys.stderr)
        return 1
    return asyncio.run(_compare(*installed))


async def _compare(old: tuple[Path, str], new: tuple[Path, str]) -> int:
    started = time.monotonic()
    before, after = await record_calls(*old), await record_calls(*new)
    print(f"recorded in {time.monotonic() - started:.0f} s\n")
    print(report(before, after), end="")
    return 1 if before.failures or after.failures else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
