"""The parent of the workers: it owns the listening sockets, starts the workers, and keeps them running.

::

    clients ─▶ Acceptor ─▶ worker 1 … N      each a whole daemon, without a socket of its own
                             │  READY, WATCHDOG …
    systemd ◀─ Supervisor ◀──┘

A worker that ends is started again, after a pause that grows with each end in a row; one that hangs is killed first.
What is said to the parent by signals it says to all workers. It serves nothing and reads no request but for its session
id, so there is little in it that can fail; workers whose parent is gone drain and end.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from proxyd.config.settings import Settings
from proxyd.daemon.controlling_terminal import ends_with_terminal, has_terminal
from proxyd.daemon.rlimits import forbid_core_dumps, raise_file_limit
from proxyd.daemon.sockets import bind_sockets
from proxyd.daemon.systemd import Notifier
from proxyd.daemon.workers.acceptor import Acceptor
from proxyd.daemon.workers.notices import Notices
from proxyd.daemon.workers.place import VARIABLE, WorkerPlace
from proxyd.errors import ConfigError
from proxyd.logs.rotation import LogFile
from proxyd.logs.setup import get_logger

__all__ = ["Supervisor"]

log = get_logger("workers")

#: Pause before a worker that has ended is started again; it doubles with each end in a row.
_FIRST_PAUSE_S, _MAX_PAUSE_S = 0.5, 30.0
#: A worker that has run for so long has not ended in a row.
_STEADY_S = 60.0
#: A worker whose event loop has not run for so long is killed.
_WATCHDOG_S = 60.0
_LATE_S = 5.0
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


@dataclass
class _Worker:
    """One worker and its processes, one after the other.

    Attributes:
        socket: our end of its channel.
        state: ``starting``, ``ready`` or ``reloading``; None while it does not run.
        seen_at: when its event loop ran last.
    """

    number: int
    socket: socket.socket = field(init=False)
    process: asyncio.subprocess.Process | None = None
    state: str | None = None
    seen_at: float = 0.0

    def send(self, number: signal.Signals) -> None:
        if self.process is not None and self.process.returncode is None:
            with suppress(ProcessLookupError):
                self.process.send_signal(number)


class Supervisor:
    """Runs the workers of one daemon.

    Args:
        sockets: already listening; without them it opens its own.
        supervisor: the service manager that runs us.
    """

    def __init__(
        self, settings: Settings, supervisor: str | None, notifier: Notifier, sockets: Sequence[socket.socket]
    ) -> None:
        self._settings, self._manager, self._notifier = settings, supervisor, notifier
        self._sockets = list(sockets)
        self._tls_sockets: list[socket.socket] = []
        self._folder = Path()
        self._workers = [_Worker(number) for number in range(1, settings.workers + 1)]
        self._acceptor: Acceptor | None = None
        self._stop = asyncio.Event()
        self._is_ready = asyncio.Event()
        self._is_reloading = False
        self._stops_with_terminal = ends_with_terminal()
        self._code = 0

    @property
    def addresses(self) -> list[tuple[str, int]]:
        return [each.getsockname()[:2] for each in self._sockets]

    def handle_signals(self) -> None:
        """Install the signal handlers; to be called before `start`, as `proxyd.daemon.server.Daemon.handle_signals`."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_stop, number.name)
        loop.add_signal_handler(signal.SIGHUP, self._on_hangup)
        for number in (signal.SIGUSR1, signal.SIGUSR2):
            loop.add_signal_handler(number, self._pass_on, number)

    def start(self) -> None:
        """Listen.

        Raises:
            AddressInUse, ConfigError: as `bind_sockets`.
        """
        raise_file_limit()
        forbid_core_dumps()
        settings = self._settings
        try:
            self._folder = Path(tempfile.mkdtemp(prefix="claude-proxy-"))
        except OSError as exc:
            raise ConfigError(
                f"workers: no folder for their sockets can be made ({exc}): set TMPDIR to one that can be written"
            ) from None
        try:
            self._sockets = self._sockets or bind_sockets(settings.host, settings.port)
            if settings.tls_address is not None:
                self._tls_sockets = bind_sockets(settings.tls_address.host, settings.tls_address.port)
        except BaseException:
            for each in self._sockets:
                each.close()
            self._folder.rmdir()
            raise
        self._acceptor = Acceptor(
            self._sockets,
            self._tls_sockets,
            lambda: [each for each in self._workers if each.state in ("ready", "reloading")],
        )

    async def run(self) -> int:
        """Serve until a signal to stop, then let the workers drain; return the exit code. Requires `start`."""
        acceptor = self._acceptor
        assert acceptor is not None, "it was started"
        host, port = self.addresses[0]
        place = WorkerPlace(
            0, len(self._workers), str(self._folder), -1, self.addresses,
            [each.getsockname()[:2] for each in self._tls_sockets], os.getpid(), self._manager,
        )  # fmt: skip
        keepers = [asyncio.ensure_future(self._keep(each, place)) for each in self._workers]
        watching = asyncio.ensure_future(self._watch())
        acceptor.start()
        try:
            await _first_of(self._is_ready, self._stop)
            if not self._stop.is_set():
                log.info("workers.started", address=f"http://{host}:{port}", workers=len(self._workers))
            await self._stop.wait()
            acceptor.close()
            for each in self._workers:
                each.send(signal.SIGTERM)
            await asyncio.gather(*keepers)
        finally:
            watching.cancel()
            for keeper in keepers:
                keeper.cancel()
            await asyncio.gather(watching, *keepers, return_exceptions=True)
            acceptor.close()
            shutil.rmtree(self._folder, ignore_errors=True)
            for number in _SIGNALS:
                asyncio.get_running_loop().remove_signal_handler(number)
        log.info("workers.stopped")
        return self._code

    # -- one worker

    async def _keep(self, worker: _Worker, place: WorkerPlace) -> None:
        """Run a worker, and again whenever it ends, until the stop."""
        loop, pause_s = asyncio.get_running_loop(), _FIRST_PAUSE_S
        while not self._stop.is_set():
            began_at = loop.time()
            code = await self._run_once(worker, place)
            if self._stop.is_set():
                if code not in (0, -signal.SIGTERM):  # it had not begun to handle signals
                    self._code = 1
                return
            if not self._is_ready.is_set() and code > 0:
                log.error(
                    "workers.failed", number=worker.number, exit_code=code, then="all others are stopped"
                )
                self._code = code
                self._stop.set()
                return
            if loop.time() - began_at >= _STEADY_S:
                pause_s = _FIRST_PAUSE_S
            log.error("workers.ended", number=worker.number, exit_code=code, again_in_s=pause_s)
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._stop.wait(), pause_s)
            pause_s = min(2 * pause_s, _MAX_PAUSE_S)

    async def _run_once(self, worker: _Worker, place: WorkerPlace) -> int:
        """Start a worker and wait for its end; return its exit code, negative for a signal."""
        ours, theirs = socket.socketpair()
        path = self._folder / f"{worker.number}.notify"
        path.unlink(missing_ok=True)
        notices = Notices(path, partial(self._on_notice, worker))
        try:
            ours.setblocking(False)
            worker.socket, worker.state = ours, "starting"
            worker.seen_at = asyncio.get_running_loop().time()
            own = replace(place, number=worker.number, channel=theirs.fileno())
            worker.process = process = await asyncio.create_subprocess_exec(
                *(sys.executable, *sys.orig_argv[1:]),
                pass_fds=(theirs.fileno(),),
                stdin=asyncio.subprocess.DEVNULL,
                # Ctrl-C in the terminal is for the parent, which says it to the workers.
                start_new_session=True,
                env={
                    **os.environ,
                    VARIABLE: own.as_variable(),
                    "NOTIFY_SOCKET": str(path),
                    "WATCHDOG_USEC": str(int(_WATCHDOG_S * 1e6)),
                },
            )
            theirs.close()
            if self._stop.is_set():  # which it has not heard of
                worker.send(signal.SIGTERM)
            try:
                code = await process.wait()
            except asyncio.CancelledError:
                process.kill()
                await process.wait()
                raise
            return code
        finally:
            worker.state = None
            notices.close()
            ours.close()
            theirs.close()

    def _on_notice(self, worker: _Worker, line: str) -> None:
        worker.seen_at = asyncio.get_running_loop().time()
        if line == "RELOADING=1" and worker.state == "ready":
            worker.state = "reloading"
        if line != "READY=1":
            return
        worker.state = "ready"
        if self._acceptor is not None:
            self._acceptor.pass_waiting()
        if all(each.state == "ready" for each in self._workers) and not self._stop.is_set():
            if self._is_reloading or not self._is_ready.is_set():
                self._notifier.ready(self._status())
            self._is_reloading = False
            self._is_ready.set()

    async def _watch(self) -> None:
        """Kill workers that hang, and notify the watchdog of the service manager."""
        loop = asyncio.get_running_loop()
        every_s = min(self._notifier.watchdog_s or _WATCHDOG_S, _WATCHDOG_S) / 2
        while True:
            if self._notifier.watchdog_s is not None:
                self._notifier.alive()
                self._notifier.status(self._status())
            due = loop.time() + every_s
            await asyncio.sleep(every_s)
            if (
                loop.time() - due > _LATE_S
            ):  # we were stopped ourselves, and have not read what the workers said
                for each in self._workers:
                    each.seen_at = loop.time()
            for each in self._workers:
                silent_s = loop.time() - each.seen_at
                if each.state is not None and silent_s > _WATCHDOG_S:
                    log.error(
                        "workers.hung", number=each.number, silent_s=round(silent_s), then="it is killed"
                    )
                    each.send(signal.SIGKILL)

    def _status(self) -> str:
        host, port = self.addresses[0]
        ready = sum(each.state in ("ready", "reloading") for each in self._workers)
        return f"http://{host}:{port}, {ready} of {len(self._workers)} workers are ready"

    # -- signals

    def _on_stop(self, name: str) -> None:
        log.info("workers.stopping", signal=name)
        if self._stop.is_set():
            for each in self._workers:
                each.send(signal.SIGINT)  # which ends the drain
            return
        self._notifier.stopping(f"draining {len(self._workers)} workers")
        self._stop.set()

    def _on_hangup(self) -> None:
        """Stop if the controlling terminal was closed; reload otherwise."""
        if self._stops_with_terminal and not has_terminal():
            self._on_stop(signal.SIGHUP.name)
            return
        self._notifier.reloading()
        self._is_reloading = True
        for each in self._workers:
            if each.state == "ready":  # one that starts reads the newest configuration
                each.state = "reloading"
                each.send(signal.SIGHUP)

    def _pass_on(self, number: signal.Signals) -> None:
        if number == signal.SIGUSR1:
            LogFile().reopen()
        for each in self._workers:
            if each.state in ("ready", "reloading"):
                each.send(number)


async def _first_of(*events: asyncio.Event) -> None:
    tasks = [asyncio.ensure_future(each.wait()) for each in events]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
