"""Start-up times of the commands and of the daemon: ``python -m bench.startup``."""

from __future__ import annotations

import json
import os
import socket
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

__all__ = ["measure"]

#: A figure to compare the others with: it depends on the machine alone.
_REFERENCE = "import of aiohttp.web alone, s"

_ROOT = Path(__file__).resolve().parents[1]
#: Limits in seconds, and in imported modules.
LIMITS = {"--help, s": 0.15, "status, s": 0.15, "run until ready, s": 0.6, "run, modules": 750}


def measure(times: int = 5) -> dict[str, float]:
    """Return the medians of `times` starts; an uncounted first one fills the file cache."""
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

        def command(*arguments: str) -> Callable[[], float]:
            def once() -> float:
                started_at = monotonic()
                subprocess.run(
                    [sys.executable, *arguments],
                    env=environment,
                    cwd=name,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    timeout=30,
                    check=False,
                )
                return monotonic() - started_at

            return once

        def run() -> float:
            port = free_port()
            started_at = monotonic()
            arguments = [sys.executable, "-m", "proxyd", "--port", str(port), "--models", str(models)]
            process = Process(arguments, folder, environment, folder / "log")
            try:
                until_ready(process, port)
                return monotonic() - started_at
            finally:
                process.stop()

        figures = {}
        for figure, once in (
            (_REFERENCE, command("-c", "import aiohttp.web")),
            ("--help, s", command("-m", "proxyd", "--help")),
            ("status, s", command("-m", "proxyd", "status")),
            ("run until ready, s", run),
        ):
            once()
            figures[figure] = statistics.median(once() for _ in range(times))
        figures["run, modules"] = _modules(environment, name)
        return figures


def _modules(environment: dict[str, str], folder: str) -> int:
    """Return the number of modules that a running daemon has imported."""
    program = "import sys, proxyd.daemon.load_config, proxyd.daemon.server; print(len(sys.modules))"
    result = subprocess.run(
        [sys.executable, "-c", program],
        env=environment,
        cwd=folder,
        capture_output=True,
        check=True,
        timeout=30,
    )
    return int(result.stdout)


def until_ready(process: Process, port: int, limit_s: float = 20.0) -> None:
    """Poll ``/readyz`` until it returns 200."""
    deadline = monotonic() + limit_s
    while monotonic() < deadline and not process.has_ended:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=1):
                return
        except (urllib.error.URLError, OSError):
            sleep(0.01)
    raise RuntimeError(f"the daemon was not ready within {limit_s:g} s: {process.log_tail()}")


def free_port() -> int:
    """Return a port that is free now."""
    with socket.socket() as each:
        each.bind(("127.0.0.1", 0))
        port: int = each.getsockname()[1]
        return port


def main() -> None:
    """Print the figures with their limits."""
    for name, value in measure().items():
        if name in LIMITS:
            verdict = "met" if value <= LIMITS[name] else "**missed**"
            print(f"| {name} | ≤ {LIMITS[name]:g} | {value:.3g} | | {verdict} |")
        else:
            print(f"| {name} | | {value:.3g} | | |")


if __name__ == "__main__":
    main()
