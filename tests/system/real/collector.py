"""``python -m tests.system.real.collector``: spans and metrics to a real collector (``make real-collector``).

The collector is rotel, which the package index has; it prints what it has received. It goes into a venv of its own.
Exit code 0 when all checks passed, or when this machine cannot have it; else 1.
"""

from __future__ import annotations

import asyncio
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from aiohttp import web

from proxyd.config.otel import Otel
from proxyd.telemetry.otel.measurements import INSTRUMENTS
from tests.support.harness import running_proxy, running_upstream, text_stream
from tests.support.paths import ROOT
from tests.support.ports import free_port
from tests.support.raw_sockets import ask, post
from tests.support.streams import HELLO
from tests.system.real.server import NotAvailableError, install_package

FOLDER = ROOT / ".real-collector"
PACKAGE = "rotel==0.0.1a15"
START_TIMEOUT_S = 30.0
TRACE = "0af7651916cd43dd8448eb211c80319c"


def install() -> Path:
    """Return the collector's program.

    Raises:
        NotAvailableError: it cannot be had here.
    """
    install_package(FOLDER, PACKAGE)
    (program,) = FOLDER.glob("lib/*/site-packages/rotel/rotel-agent")
    return program


@contextmanager
def running_collector(program: Path, signal: str, log: Path) -> Iterator[str]:
    """Run the collector, which writes what it receives of `signal` into `log`; yield its address."""
    port = free_port()
    listening = [
        "--otlp-http-endpoint",
        f"127.0.0.1:{port}",
        "--otlp-grpc-endpoint",
        f"127.0.0.1:{free_port()}",
    ]
    shown = ["--exporter", "blackhole", "--debug-log", signal, "--debug-log-verbosity", "detailed"]
    with log.open("wb") as output:
        process = subprocess.Popen([str(program), "start", *listening, *shown], stdout=output, stderr=output)
    try:
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            assert process.poll() is None, log.read_text(errors="replace")
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                assert time.monotonic() < deadline, "the collector does not listen"
                time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(START_TIMEOUT_S)


async def make_calls(collector: str) -> None:
    """Make a call that needs a retry."""
    answers = iter([503])

    async def respond(request: web.Request) -> web.StreamResponse:
        if (status := next(answers, None)) is not None:
            return web.json_response({"error": {"message": "busy"}}, status=status)
        return web.Response(body=text_stream("Hello"), content_type="text/event-stream")

    async with running_upstream(respond) as upstream:
        entry = {"model_id": "m", "api_base": f"{upstream.base}/v1", "api_key": "any-key-will-do"}
        async with running_proxy([entry], otel_target=Otel(collector)) as base:
            context = f"traceparent: 00-{TRACE}-b7ad6b7169203331-01"
            assert (await ask(base, post({**HELLO, "model": "m"}, context))).status == 200


def received(program: Path, signal: str) -> str:
    """Return what the collector says that it has received."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        with running_collector(program, signal, log) as address:
            asyncio.run(make_calls(address))
        return log.read_text(errors="replace")


def main() -> int:
    """Run the checks."""
    try:
        program = install()
    except NotAvailableError as exc:
        print(f"skipped: {exc}")
        return 0
    traces = received(program, "traces")
    spans = re.findall(rf"Trace ID +: {TRACE}\n.*\n.*\n +Name +: (.*)\n +Kind +: (.*)\n", traces)
    attempt = ("chat m", "SPAN_KIND_CLIENT")
    assert spans == [("POST /v1/messages", "SPAN_KIND_SERVER"), attempt, attempt], traces
    metrics = received(program, "metrics")
    assert set(re.findall(r"-> Name: (\S+)", metrics)) == set(INSTRUMENTS), metrics
    print(f"{len(spans)} spans and {len(INSTRUMENTS)} metrics in {PACKAGE}: passed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
