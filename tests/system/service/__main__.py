"""``python -m tests.system.service``: the service under a real ``systemd --user``, and a transcript of what happened.

The user's systemd of this machine is left alone: another one runs in a mount and PID namespace of its own, with its own
``/run`` and HOME. Where that is not possible, this says so and ends with 0, as a skipped test does;
``SYSTEMD_REQUIRED=1`` makes it a failure.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from tests.support.harness import chunk, running_upstream, sse
from tests.support.paths import ROOT
from tests.support.ports import free_port

SYSTEMD = "/lib/systemd/systemd"
INSIDE = "PROXYD_TEST_SYSTEMD_HOME"
#: Long enough for a machine that has other things to do.
PATIENCE_S = 30.0
_POLL_S = 0.05


def main() -> int:
    if INSIDE in os.environ:
        return inside(Path(os.environ[INSIDE]))
    missing = why_not()
    if missing:
        print(f"systemd test skipped: {missing}")
        return int(os.environ.get("SYSTEMD_REQUIRED") == "1")
    with tempfile.TemporaryDirectory(prefix="proxyd-systemd-") as folder:
        environ = {
            "PATH": os.environ["PATH"],
            "HOME": folder,
            "LANG": "C.UTF-8",
            "PYTHONPATH": str(ROOT),
            "PYTHONDONTWRITEBYTECODE": "1",
            INSIDE: folder,
        }
        command = ["unshare", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child"]
        return subprocess.run(
            [*command, sys.executable, "-m", "tests.system.service"], env=environ, cwd=ROOT
        ).returncode


def why_not() -> str | None:
    """Return what this machine lacks."""
    if not os.access(SYSTEMD, os.X_OK):
        return f"there is no {SYSTEMD}"
    if shutil.which("unshare") is None:
        return "there is no unshare"
    tried = subprocess.run(
        ["unshare", "--mount", "--pid", "--fork", "--mount-proc", "mount", "-t", "tmpfs", "tmpfs", "/run"],
        capture_output=True,
        text=True,
    )
    if tried.returncode:
        return f"no mount namespace can be made here ({tried.stderr.strip()})"
    return None


def inside(home: Path) -> int:
    """Run everything below in namespaces."""
    for command in (
        ("mount", "--make-rprivate", "/"),
        ("mount", "-t", "tmpfs", "tmpfs", "/run"),
        ("mkdir", "-p", "/run/systemd/system", "/run/user/0"),
        ("chmod", "700", "/run/user/0"),
    ):
        subprocess.run(command, check=True)
    os.environ["XDG_RUNTIME_DIR"] = "/run/user/0"
    with (home / "systemd.log").open("wb") as log:
        manager = subprocess.Popen([SYSTEMD, "--user"], stdout=log, stderr=log)
    try:
        until(
            "systemd --user runs",
            lambda: systemctl("is-system-running", check=False) in ("running", "degraded"),
        )
        return asyncio.run(run_steps(Session(home)))
    finally:
        manager.terminate()
        manager.wait()


async def run_steps(session: Session) -> int:
    """Run the steps in order; each depends on the previous one."""
    async with session.upstream_and_models():
        for step in STEPS:
            begun = time.monotonic()
            try:
                await step(session)
            except Exception as exc:
                print(f"FAIL {step.__doc__}: {type(exc).__name__}: {exc}")
                print(systemctl("status", "--no-pager", "--full", "claude-proxy.service", check=False))
                print((session.home / "systemd.log").read_text(errors="replace")[-3000:])
                return 1
            print(f"ok   {step.__doc__} ({time.monotonic() - begun:.1f} s)", flush=True)
    print(f"all {len(STEPS)} steps passed")
    return 0


def systemctl(*arguments: str, check: bool = True) -> str:
    done = subprocess.run(["systemctl", "--user", *arguments], capture_output=True, text=True, timeout=90)
    if check and done.returncode:
        raise AssertionError(f"systemctl {' '.join(arguments)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout.strip()


def show(key: str) -> str:
    return systemctl("show", "claude-proxy.service", "-p", key, "--value")


def until(what: str, holds: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        found = holds()
        if found:
            return found
        time.sleep(_POLL_S)
    raise AssertionError(f"not within {PATIENCE_S:g} s: {what}")


def check(holds: object, otherwise: str) -> None:
    if not holds:
        raise AssertionError(otherwise)


class Session:
    """A user's folder, an upstream whose streams end on demand, and claude-proxy."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.config = home / ".config" / "claude-proxy"
        self.port = free_port()
        self.may_end = asyncio.Event()
        self.base = ""

    @asynccontextmanager
    async def upstream_and_models(self) -> AsyncIterator[None]:
        async def respond(request: web.Request) -> web.StreamResponse:
            response = web.StreamResponse(headers={"content-type": "text/event-stream"})
            await response.prepare(request)
            await response.write(sse(chunk({"content": "begun "}), done=False))
            await self.may_end.wait()
            await response.write(sse(chunk({"content": "whole"}), chunk({}, "stop")))
            return response

        async with running_upstream(respond) as upstream:
            self.base = upstream.base
            self.config.mkdir(parents=True)
            self.write_models("m")
            yield

    def write_models(self, *ids: str) -> None:
        entries = "".join(f"- {{model_id: {name}, api_base: '{self.base}/v1'}}\n" for name in ids)
        (self.config / "models.yaml").write_text(f"settings: {{port: {self.port}}}\nmodels:\n{entries}")

    def command(self, *arguments: str, code: int = 0) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "proxyd", *arguments], capture_output=True, text=True, timeout=120
        )
        check(
            done.returncode == code,
            f"claude-proxy {' '.join(arguments)} ended with {done.returncode}: {done.stderr}",
        )
        return done.stdout

    def about(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.command("status", "--json"))
        return found

    def main_pid(self) -> int:
        return int(show("MainPID"))

    def answers(self) -> bool:
        """Return whether the main process of the service listens on the port."""
        done = subprocess.run(
            [sys.executable, "-m", "proxyd", "status", "--json"], capture_output=True, text=True, timeout=30
        )
        return done.returncode == 0 and json.loads(done.stdout)["pid"] == self.main_pid()

    @asynccontextmanager
    async def open_stream(self) -> AsyncIterator[Callable[[], Any]]:
        """Start a stream; return a function that reads the rest."""
        self.may_end.clear()
        body = {"model": "m", "max_tokens": 9, "stream": True, "messages": [{"role": "user", "content": "x"}]}
        async with (
            aiohttp.ClientSession() as client,
            client.post(f"http://127.0.0.1:{self.port}/v1/messages", json=body) as response,
        ):
            begun = bytearray()
            while b"begun" not in begun:
                begun += await response.content.readany()

            async def rest() -> bytes:
                self.may_end.set()
                return bytes(begun + await response.read())

            yield rest


async def in_thread(function: Callable[..., Any], *arguments: Any) -> Any:
    """Run systemctl in a thread: it waits for the daemon, which waits for our upstream on this loop."""
    return await asyncio.get_running_loop().run_in_executor(None, lambda: function(*arguments))


def check_whole(data: bytes) -> None:
    check(
        b"whole" in data and data.rstrip().endswith(b'{"type":"message_stop"}'),
        f"the stream was cut: {data[-200:]!r}",
    )


async def installs(session: Session) -> None:
    """service install: written, enabled, started, answering; notify-type start seen by systemd"""
    said = session.command("service", "install")
    check("answers on" in said, said)
    check(show("ActiveState") == "active", show("ActiveState"))
    check(systemctl("is-enabled", "claude-proxy.service") == "enabled", "it is not enabled")
    check(f":{session.port}, 1 models" in show("StatusText"), show("StatusText"))
    check("active (running)" in session.command("service", "status"), "service status")
    check(session.about()["supervisor"] == "systemd", "it does not know who runs it")


async def starts_and_stops(session: Session) -> None:
    """stop and start hand over to systemd; systemctl start works as well"""
    session.command("stop")
    check(show("ActiveState") == "inactive", show("ActiveState"))
    check("journalctl" in session.command("start"), "start does not name the journal")
    session.command("stop")
    systemctl("start", "claude-proxy.service")
    check(session.answers(), "it does not answer")


async def streams(session: Session) -> None:
    """a streamed call"""
    async with session.open_stream() as rest:
        check_whole(await rest())


async def reloads(session: Session) -> None:
    """reload during a stream: the new model is there, the stream goes on"""
    pid = session.main_pid()
    async with session.open_stream() as rest:
        session.write_models("m", "second")
        await in_thread(systemctl, "reload", "claude-proxy.service")
        await in_thread(until, "the new model", lambda: session.about()["models"] == ["m", "second"])
        check_whole(await rest())
    check(session.main_pid() == pid, "the process is another one")


async def survives_a_bad_reload(session: Session) -> None:
    """reload with a broken models.yaml: the old one stays in force"""
    (session.config / "models.yaml").write_text("- {}\n")
    pid = session.main_pid()
    systemctl("reload", "claude-proxy.service")
    until("it is active again", lambda: show("ActiveState") == "active")
    check(session.main_pid() == pid, "the process is another one")
    session.write_models("m", "second")
    check(session.about()["models"] == ["m", "second"], "the old models are gone")


async def is_restarted_after_a_crash(session: Session) -> None:
    """kill -9: restarted"""
    pid = session.main_pid()
    os.kill(pid, signal.SIGKILL)
    until("another process answers", lambda: session.main_pid() not in (0, pid) and session.answers())


async def is_restarted_when_it_hangs(session: Session) -> None:
    """a hung process: the watchdog restarts it"""
    with drop_in(session, "WatchdogSec=2\nTimeoutAbortSec=1\n"):
        systemctl("restart", "claude-proxy.service")
        pid = session.main_pid()
        fed = int(show("WatchdogTimestampMonotonic"))
        timeout_us = 3_000_000  # longer than the watchdog waits
        until("the watchdog is fed", lambda: int(show("WatchdogTimestampMonotonic")) > fed + timeout_us)
        check(session.main_pid() == pid, "the watchdog restarted a daemon that was well")
        os.kill(pid, signal.SIGSTOP)
        until("another process answers", lambda: session.main_pid() not in (0, pid) and session.answers())


async def gives_up_on_a_bad_configuration(session: Session) -> None:
    """a broken models.yaml at start: exit 78, and no restarts"""
    session.command("stop")
    (session.config / "models.yaml").write_text(f"settings: {{port: {session.port}}}\nmodels: [{{}}]\n")
    systemctl("start", "claude-proxy.service", check=False)
    check(show("ExecMainStatus") == "78", show("ExecMainStatus"))
    check(show("ActiveState") == "failed", show("ActiveState"))
    session.write_models("m", "second")
    systemctl("reset-failed", "claude-proxy.service")
    systemctl("start", "claude-proxy.service")


async def drains(session: Session) -> None:
    """stop with an open stream: it finishes, then the service is gone"""
    async with session.open_stream() as rest:
        stopping = asyncio.ensure_future(in_thread(session.command, "stop"))
        await in_thread(until, "it drains", lambda: show("ActiveState") == "deactivating")
        check(not stopping.done(), "stop did not wait")
        check_whole(await rest())
        await stopping
    check(show("Result") == "success", show("Result"))


async def holds_the_port(session: Session) -> None:
    """socket activation: no refused connection across two restarts"""
    session.command("service", "install", "--socket")
    check(systemctl("is-active", "claude-proxy.socket") == "active", "the socket is not active")
    refused, answered = [], 0
    is_over = asyncio.Event()

    async def knock() -> None:
        nonlocal answered
        async with aiohttp.ClientSession() as client:
            while not is_over.is_set():
                try:
                    async with client.get(
                        f"http://127.0.0.1:{session.port}/healthz", headers={"connection": "close"}
                    ) as response:
                        answered += response.status == 200
                except aiohttp.ClientConnectorError as exc:
                    refused.append(str(exc))
                except aiohttp.ClientError:
                    pass  # accepted by a process that was about to end; not refused

    knocking = asyncio.ensure_future(knock())
    for _ in range(2):
        pid = session.main_pid()
        await in_thread(session.command, "restart")
        check(session.main_pid() != pid, "the process is the same")
    is_over.set()
    await knocking
    check(not refused, f"{len(refused)} connections were refused: {refused[:1]}")
    check(answered > 10, f"only {answered} were answered")


async def starts_at_the_first_connection(session: Session) -> None:
    """socket activation: a stopped daemon starts with the first call"""
    systemctl("stop", "claude-proxy.service")
    systemctl("start", "claude-proxy.socket")
    check(session.main_pid() == 0, "it runs already")
    async with session.open_stream() as rest:
        check_whole(await rest())
    check(session.main_pid() > 0, "it does not run")


async def uninstalls(session: Session) -> None:
    """service uninstall: nothing is left but models.yaml, hooks, env and the ledger"""
    session.command("service", "uninstall")
    left = [path for path in (session.home / ".config" / "systemd").rglob("*") if not path.is_dir()]
    check(not left, f"left behind: {left}")
    check(systemctl("is-active", "claude-proxy.service", check=False) == "inactive", "it runs")
    session.command("status", code=3)
    session.command("service", "status", code=3)
    check((session.config / "models.yaml").exists(), "models.yaml is gone")


@contextmanager
def drop_in(session: Session, lines: str) -> Iterator[None]:
    folder = session.home / ".config" / "systemd" / "user" / "claude-proxy.service.d"
    folder.mkdir()
    path = folder / "test.conf"
    path.write_text(f"[Service]\n{lines}")
    systemctl("daemon-reload")
    try:
        yield
    finally:
        path.unlink()
        folder.rmdir()
        systemctl("daemon-reload")


STEPS = (
    installs,
    starts_and_stops,
    streams,
    reloads,
    survives_a_bad_reload,
    is_restarted_after_a_crash,
    is_restarted_when_it_hangs,
    gives_up_on_a_bad_configuration,
    drains,
    holds_the_port,
    starts_at_the_first_connection,
    uninstalls,
)

if __name__ == "__main__":
    sys.exit(main())
