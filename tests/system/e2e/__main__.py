"""``python -m tests.system.e2e [NAME…]``: install Claude Code, run the scenarios, report their results.

Exit code 0 if all passed, or if npm or its registry is missing; else 1. ``CLAUDE_VERSION`` selects another version than
the pinned one, ``latest`` the newest. ``E2E_REQUIRED=1`` makes the line about skipped scenarios conspicuous. A run of
all scenarios in which none fails writes its row of docs/compatibility.md.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import sys
import tempfile
import textwrap
import time
import traceback
from pathlib import Path

from tests.system.e2e.compatibility import PAGE, with_version
from tests.system.e2e.daemon import ROOT, DaemonError
from tests.system.e2e.install import PINNED_VERSION, InstallError, UnreachableRegistryError, installed_claude
from tests.system.e2e.stage import Scenario, ScenarioError, ScenarioSkipped, Stage, all_scenarios

#: Columns for a scenario's name.
NAME_WIDTH = 42


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.system.e2e", description="Claude Code against the daemon"
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="the scenarios to run; all by default")
    parser.add_argument("--list", action="store_true", help="list the scenarios")
    options = parser.parse_args(arguments)
    scenarios = all_scenarios()
    if options.list:
        for name, function in scenarios.items():
            print(f"{name:{NAME_WIDTH}} {_title(function)}")
        return 0
    unknown = [name for name in options.names if name not in scenarios]
    if unknown:
        print(f"no scenario {', '.join(unknown)}; there are: {', '.join(scenarios)}", file=sys.stderr)
        return 1
    chosen = {name: scenarios[name] for name in options.names or scenarios}
    try:
        binary, version = installed_claude(ROOT / ".e2e", os.environ.get("CLAUDE_VERSION") or PINNED_VERSION)
    except UnreachableRegistryError as exc:
        _say_skipped(str(exc), len(chosen))
        return 0
    except InstallError as exc:
        print(f"e2e: {exc}", file=sys.stderr)
        return 1
    print(f"Claude Code {version}, {len(chosen)} scenario(s)", flush=True)
    outcomes = []
    for name, function in chosen.items():
        with tempfile.TemporaryDirectory(prefix="proxyd-e2e-", ignore_cleanup_errors=True) as folder:
            stage = Stage(Path(folder).resolve(), binary)
            outcomes.append(asyncio.run(_run(name, function, stage)))
    failed, skipped = outcomes.count("FAIL"), outcomes.count("SKIP")
    summary = f"{outcomes.count('PASS')} passed"
    print(f"{summary}{f', {skipped} skipped' if skipped else ''}, {failed} failed")
    if not failed and not options.names:
        scenarios_run = f"{summary}, {skipped} skipped" if skipped else f"all {len(chosen)}"
        python = ".".join(platform.python_version_tuple()[:2])
        date = time.strftime("%Y-%m-%d", time.gmtime())
        try:
            PAGE.write_text(with_version(PAGE.read_text(), version, date, python, scenarios_run))
        except OSError as exc:  # a checkout that is read-only
            print(f"{PAGE} was not written: {exc.strerror}")
    return 1 if failed else 0


def _say_skipped(reason: str, count: int) -> None:
    if os.environ.get("E2E_REQUIRED") == "1":
        print(
            f"*** e2e SKIPPED: {reason}; none of the {count} scenarios with the real Claude Code was run ***"
        )
    else:
        print(f"e2e skipped: {reason}")


async def _run(name: str, function: Scenario, stage: Stage) -> str:
    """Run it and print its result; return the first word of that."""
    started = time.monotonic()
    failures = []
    skipped = ""
    try:
        await function(stage)
    except ScenarioSkipped as exc:
        skipped = str(exc)
    except (ScenarioError, DaemonError) as exc:
        failures.append(str(exc))
    except Exception:
        failures.append(traceback.format_exc())
    finally:
        failures += await stage.close()
    seconds = time.monotonic() - started
    outcome = "FAIL" if failures else "SKIP" if skipped else "PASS"
    print(f"{outcome} {name:{NAME_WIDTH}} {seconds:5.1f} s  {_title(function)}", flush=True)
    for note in [skipped] if skipped else stage.notes:
        print(f"     {note}", flush=True)
    if failures:
        print(textwrap.indent("\n".join(failures), "     ! "))
        print(textwrap.indent(stage.report(), "     | "), flush=True)
    return outcome


def _title(function: Scenario) -> str:
    return (function.__doc__ or "").strip().partition("\n")[0]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
