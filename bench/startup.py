"""How long the command takes to be of use: ``python -m bench.startup``."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from time import monotonic, sleep

from bench.processes import Process
from tests.support.ports import free_port

__all__ = ["measure"]

#: What the machine makes of something that is none of ours, in the same minute.
_YARDSTICK = "import of aiohttp.web alone, s"

_ROOT = Path(__file__).resolve().parents[1]
#: Seconds, and the modules that may be imported until then (the budget; raise it knowingly).
LIMITS = {"--help, s": 0.15, "status, s": 0.15, "run until ready, s": 0.6, "run, modules": 820}


def measure(times: int = 5) -> dict[str, float]:
    """Medians of `times` starts; files are in the cache from a first one that is not counted."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        environment = {
            "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
            "HOME": name,
            "XDG_STATE_HOME": str(folder / "state"),
            "PYTHONPATH": str(_ROOT),
            "PYTHONPYCACHEPREFIX": str(folder / "pycache"),
            "PORT": str(free_port()),
        }
        models = folder / "models.yaml"
        models.write_text(json.dumps([{"model_id": "demo", "api_base": "builtin:demo"}]))

        def quick(*arguments: str) -> Callable[[], float]:
            def once() -> float:
                begun = monotonic()
                subprocess.run(
                    [sys.executable, *arguments],
                    env=environment,
                    cwd=name,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    timeout=30,
                    check=False,
                )
                return monotonic() - begun

            return once

        def run() -> float:
            port = free_port()
            begun = monotonic()
            arguments = [sys.executable, "-m", "proxyd", "--port", str(port), "--models", str(models)]
            process = Process(arguments, folder, environment, folder / "log")
            try:
                until_ready(process, port)
                return monotonic() - begun
            finally:
                process.stop()

        figures = {}
        for figure, once in (
            (_YARDSTICK, quick("-c", "import aiohttp.web")),
            ("--help, s", quick("-m", "proxyd", "--help")),
            ("status, s", quick("-m", "proxyd", "status")),
            ("run until ready, s", run),
        ):
            once()
            figures[figure] = statistics.median(once() for _ in range(times))
        figures["run, modules"] = _modules(environment, name)
        return figures


def _modules(environment: dict[str, str], folder: str) -> int:
    """How many modules a running daemon has imported."""
    program = "import sys, proxyd.daemon.configuration, proxyd.daemon.server; print(len(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environment,
        cwd=folder,
        capture_output=True,
        check=True,
        timeout=30,
    )
    return int(done.stdout)


def until_ready(process: Process, port: int, limit_s: float = 20.0) -> None:
    """Ask ``/readyz`` until it says yes."""
    deadline = monotonic() + limit_s
    while monotonic() < deadline and not process.has_ended:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=1):
                return
        except (urllib.error.URLError, OSError):
            sleep(0.01)
    raise RuntimeError(f"the daemon was not ready within {limit_s:g} s: {process.log_tail()}")


def main() -> None:
    """Print the figures beside their limits."""
    for name, value in measure().items():
        if name in LIMITS:
            verdict = "met" if value <= LIMITS[name] else "**missed**"
            print(f"| {name} | ≤ {LIMITS[name]:g} | {value:.3g} | | {verdict} |")
        else:
            print(f"| {name} | | {value:.3g} | | |")


if __name__ == "__main__":
    main()
