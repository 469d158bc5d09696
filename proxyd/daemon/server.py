"""The process: sockets, signals, drain, reload.

Start (docs/spec/operations.md#a1): the configuration is valid before anything is bound. Stop
(docs/spec/operations.md#a2), in this order:

1. readiness turns 503, the listening sockets and idle connections close;
2. new requests on open connections are answered 529, and answers say ``Connection: close``;
3. the calls in flight run on, up to ``drain_timeout_s``, with a progress line every 5 s;
4. those that are left end with one error event; a second signal comes here at once;
5. upstream connections close.
"""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import signal
import socket
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web, web_response
from aiohttp.http_exceptions import HttpProcessingError

import proxyd
from proxyd.api.app import build_app
from proxyd.api.status import Observers
from proxyd.daemon.config_reloader import Reloader
from proxyd.daemon.demo.server import DemoServer, start_demo
from proxyd.daemon.gc_policy import CollectionPolicy
from proxyd.daemon.listener import Listener
from proxyd.daemon.loaded_config import LoadConfig, LoadedConfig
from proxyd.daemon.loop_lag import LoopLag
from proxyd.daemon.systemd import Notifier
from proxyd.errors import AddressInUse, BodyTimedOut, ConfigError, Overloaded
from proxyd.logs.rotation import LogFile
from proxyd.logs.setup import configure, get_logger
from proxyd.prompt_cache import prefix as prefixes
from proxyd.proxy.held_bodies import HeldBodies
from proxyd.proxy.learned_file import FILE as LEARNED_FILE
from proxyd.proxy.learned_file import LearnedQuirkFile
from proxyd.proxy.relay import Relay
from proxyd.recording.recorder import Recorder
from proxyd.recording.store import FOLDER as RECORDS_FOLDER
from proxyd.telemetry.batcher import one_by_one
from proxyd.telemetry.ledger import Ledger
from proxyd.telemetry.ledger_schema import FILE as LEDGER_FILE
from proxyd.telemetry.live_feed import LiveFeed
from proxyd.telemetry.metrics import Metrics, Sources
from proxyd.telemetry.token_calibration import FILE as CALIBRATION_FILE
from proxyd.telemetry.token_calibration import Calibration
from proxyd.transport.client import UpstreamClient

__all__ = ["Daemon", "LoadConfig", "LoadedConfig", "Service"]

log = get_logger("server")

# aiohttp tells its version and Python's in every response, those to requests that it cannot parse included.
setattr(web_response, "SERVER_SOFTWARE", "claude-proxy")  # noqa: B010 - typing does not know that it is there

#: Time for the open handlers to write their last bytes after they were told to end, then for those that were cut
#: (docs/spec/operations.md#a3: drain + 5 s in all; the runner takes its own twice).
_END_S, _CUT_S = 3.0, 0.5
#: What of a body nobody wants is still read, so that its sender gets to read the answer.
_LINGER_S = 2.0
_FILES_LOG_EVERY_S = 60.0
_PROGRESS_S = 5.0
#: File descriptors: two sockets a stream, with room (docs/spec/operations.md#c8).
_WANTED_FILES = 65_536


@dataclass(frozen=True, slots=True)
class Service:
    """Who runs the daemon, and what it was given.

    Attributes:
        supervisor: ``systemd``, ``launchd``, ``detached`` (``claude-proxy start``), or None in the foreground.
        sockets: already listening; closed by the daemon at its end.
    """

    supervisor: str | None = None
    notifier: Notifier = field(default_factory=lambda: Notifier({}))
    sockets: tuple[socket.socket, ...] = ()


class Daemon:
    """The server around one relay.

    Args:
        loaded: the configuration to begin with.
        reload: reads it again, at SIGHUP or when its file is saved; None where it cannot change.
        state_folder: where the ledger, records of calls and what was learnt of token counts are kept; None keeps
            nothing.
        service: what a service manager has given; without it the daemon opens its own sockets.
    """

    def __init__(
        self,
        loaded: LoadedConfig,
        reload: LoadConfig | None = None,
        *,
        state_folder: Path | None = None,
        service: Service | None = None,
    ) -> None:
        self.settings = loaded.settings
        self._loaded = loaded
        self._reloader = None if reload is None else Reloader(reload, self._take_over, self._reject)
        self._service = service or Service()
        self._started = time.monotonic()
        self._relay: Relay | None = None
        self._runner: web.AppRunner | None = None
        self._upstreams: UpstreamClient | None = None
        self._demo: DemoServer | None = None
        self._state_folder = state_folder
        self._observers: Observers | None = None
        self._recorder = (
            None if state_folder is None else Recorder(state_folder / RECORDS_FOLDER, lambda: self.settings)
        )
        self._listener = Listener(self.settings.max_connections, self.settings.max_idle_per_peer)
        self._bodies = HeldBodies()
        self._sweeper = CollectionPolicy(self._waiting_bytes, self._open_calls, self._bodies.take_most)
        self.loop_watch = LoopLag(self._beat)
        self._calibration = Calibration(None if state_folder is None else state_folder / CALIBRATION_FILE)
        self._learned = LearnedQuirkFile(None if state_folder is None else state_folder / LEARNED_FILE)
        self._stop = asyncio.Event()
        self._force_stop = asyncio.Event()
        self.addresses: list[tuple[str, int]] = []

    async def start(self) -> None:
        """Bind and serve.

        Raises:
            AddressInUse: the port is taken.
            ConfigError: the address cannot be listened on.
        """
        _raise_file_limit()
        _forbid_cores()
        settings = self.settings
        sockets = list(self._service.sockets) or _bind(settings.host, settings.port)
        try:
            # Always there: a reload may bring in the first entry that wants it, and it costs one socket.
            self._demo = await start_demo()
            self._upstreams = UpstreamClient(settings)
            self._relay = Relay(
                settings,
                self._loaded.config.table,
                self._upstreams,
                demo_base=self._demo.api_base,
                hooks=self._loaded.hooks,
                calibration=self._calibration,
                learned=self._learned,
            )
            self._observers = self._watch(self._relay, self._upstreams)
            kept = () if self._recorder is None else (one_by_one(self._recorder.observe),)
            self._relay.finished.observers = (*self._observers.observers, *kept)
            self._switch_recording(self._relay)
            app, in_front_of = build_app(
                self._relay, self._observers, self._listener.middleware, self.about, self._bodies
            )
            self._runner = web.AppRunner(
                app,
                access_log=None,
                handler_cancellation=True,
                keepalive_timeout=settings.keepalive_s,
                shutdown_timeout=_CUT_S,
                lingering_time=_LINGER_S,
                logger=_HttpLog(),
            )
            if self._observers.ledger is not None:
                self._observers.ledger.start()
            await self._runner.setup()
            server = self._runner.server
            assert server is not None, "a runner that is set up has a server"
            server.request_handler = in_front_of(server.request_handler)
            await self._listener.start(server, sockets)
            self.loop_watch.start()
            asyncio.get_running_loop().set_exception_handler(_LoopTrouble())
        except BaseException:
            for each in sockets:
                each.close()
            raise
        self.addresses = [each.getsockname()[:2] for each in sockets]
        if self._reloader is not None:
            path = self._loaded.config.path
            self._reloader.watch((path, path.parent / "env"))

    def about(self) -> dict[str, Any]:
        """What ``claude-proxy status`` shows, for callers on this machine."""
        assert self._relay is not None, "asked over HTTP, so it has started"
        assert self._upstreams is not None, "made before the relay"
        return {
            "name": "claude-proxy",
            "version": proxyd.__version__,
            "pid": os.getpid(),
            "supervisor": self._service.supervisor,
            "uptime_s": round(time.monotonic() - self._started, 1),
            "address": [*self.addresses[0]],
            "config": str(self._loaded.config.path.resolve()),
            "models": list(self._relay.table.ids()),
            "calls": self._relay.active_calls,
            "circuits": [
                {"origin": circuit.origin, "state": circuit.state.value, "failures": circuit.failures}
                for circuit in self._upstreams.circuits.states()
            ],
            "hooks": self._relay.hooks.describe(),
        }

    def _status(self) -> str:
        relay = self._relay
        assert relay is not None, "there is nothing to say before the start"
        host, port = self.addresses[0]
        calls = relay.active_calls
        what = f"{calls} call{'' if calls == 1 else 's'} in flight"
        return f"http://{host}:{port}, {len(relay.table.routes)} models, {what}"

    async def _keep_awake(self) -> None:
        """Tell the service manager that the loop answers, at half of its patience (docs/spec/operations.md#a8)."""
        notifier = self._service.notifier
        while notifier.watchdog_s is not None:
            notifier.alive()
            notifier.status(self._status())
            await asyncio.sleep(notifier.watchdog_s / 2)

    def _watch(self, relay: Relay, upstreams: UpstreamClient) -> Observers:
        ledger = None
        if self._state_folder is not None:
            ledger = Ledger(self._state_folder / LEDGER_FILE, lambda: self.settings.ledger_days)
        sources = Sources(
            active=lambda: relay.records,
            circuits=lambda: {each.origin: each.state.value for each in upstreams.circuits.states()},
            loop_lag_s=lambda: self.loop_watch.last_s,
            hook_errors=lambda: relay.hooks.failures(),
            rows_lost=lambda: 0 if ledger is None else ledger.dropped,
        )
        live = LiveFeed(lambda: relay.records, lambda: relay.is_draining)
        return Observers(sources, live, Metrics(sources), ledger)

    async def run(self) -> None:
        """Serve until a signal says to stop, then drain."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_stop, number.name)
        loop.add_signal_handler(signal.SIGHUP, self.reload)
        loop.add_signal_handler(signal.SIGUSR1, LogFile().reopen)
        loop.add_signal_handler(signal.SIGUSR2, self.dump_state)
        # Not before: whoever reads this line may signal us.
        host, port = self.addresses[0]
        if self.settings.log_bodies:
            log.warning(
                "server.logs_bodies",
                what="prompts and answers go to the log at level debug, for whoever can read it; keys are masked",
            )
        self._warn_of_bodies()
        log.info(
            "server.started",
            address=f"http://{host}:{port}",
            models=len(self._loaded.config.table.routes),
            config=str(self._loaded.config.path),
        )
        self._loaded.hooks.report()
        _warn(self._loaded)
        self._sweeper.start()
        self._service.notifier.ready(self._status())
        awake = asyncio.ensure_future(self._keep_awake())
        try:
            await self._stop.wait()
            await self.drain()
        finally:
            awake.cancel()
            await self.close()
            self._sweeper.stop()
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
                loop.remove_signal_handler(number)

    def _waiting_bytes(self) -> int:
        records = [] if self._relay is None else self._relay.records
        return sum(each.bytes_in for each in records if each.first_byte is None)

    def _open_calls(self) -> int:
        return 0 if self._relay is None else self._relay.active_calls

    def _on_stop(self, name: str) -> None:
        if self._stop.is_set():
            self._force_stop.set()
        self._stop.set()
        log.info("server.stopping", signal=name)

    def reload(self) -> None:
        """Read the configuration again; an invalid one leaves the old one in force (docs/spec/operations.md#a4)."""
        if self._reloader is not None:
            self._service.notifier.reloading()
            self._reloader.request()

    def _reject(self, exc: ConfigError) -> None:
        if self._observers is not None:
            self._observers.sources.is_reload_good = False
        log.error("config.rejected", faults=exc.message.splitlines(), in_force="the configuration before")
        self._service.notifier.ready(self._status())

    def _take_over(self, loaded: LoadedConfig) -> None:
        relay = self._relay
        assert relay is not None, "the watch begins with the start"
        settings, waiting = self.settings.after_reload(loaded.settings)
        if settings.log_level != self.settings.log_level:
            configure(settings.log_level, settings.log_format)
        bodies_before = self.settings.record_bodies
        self.settings = settings
        self._loaded = loaded
        self._switch_recording(relay)
        if not bodies_before:
            self._warn_of_bodies()
        relay.swap(settings, loaded.config.table, loaded.hooks)
        if self._observers is not None:
            self._observers.sources.is_reload_good = True
        log.info(
            "config.reloaded", models=len(loaded.config.table.routes), ignored_until_restart=list(waiting)
        )
        loaded.hooks.report()
        _warn(loaded)
        self._service.notifier.ready(self._status())

    def _switch_recording(self, relay: Relay) -> None:
        """Trace the calls that begin from now on, or not."""
        relay.is_traced = self._recorder is not None and self.settings.record != "off"

    def _warn_of_bodies(self) -> None:
        if self._recorder is not None and self.settings.record_bodies and self.settings.record != "off":
            log.warning(
                "server.records_bodies",
                what="prompts and answers of recorded calls are written to disk; keys are masked",
                folder=str(self._recorder.folder),
            )

    def dump_state(self) -> None:
        """Say in the log what is going on: each call in flight, each circuit that is not whole.

        See docs/spec/operations.md#a5.
        """
        relay, upstreams = self._relay, self._upstreams
        if relay is None or upstreams is None:
            return
        records, circuits = relay.records, upstreams.circuits.states()
        log.info(
            "state.daemon",
            calls=len(records),
            connections=self._listener.connections,
            refused_connections=self._listener.refused_total,
            tasks=len(asyncio.all_tasks()),
            circuits=len(circuits),
            loop_lag_ms=round(self.loop_watch.last_s * 1000),
            is_draining=relay.is_draining,
        )
        for record in records:
            record.add_up()
            log.info(
                "state.call",
                request_id=record.request_id,
                model=record.model,
                route=record.route,
                mode=record.mode,
                age_s=round(record.duration_s, 1),
                has_begun=record.first_byte is not None,
                events=record.events,
                retries=record.retries,
            )
        for circuit in circuits:
            log.info(
                "state.circuit",
                origin=circuit.origin,
                state=circuit.state.value,
                failures=circuit.failures,
                open_for_s=round(circuit.open_for_s),
            )

    async def drain(self) -> None:
        """Steps 1 to 4 of the module's text."""
        relay = self._relay
        if relay is None:
            return
        relay.is_draining = True
        self._service.notifier.stopping(f"draining, {relay.active_calls} calls in flight")
        self._listener.stop_accepting()
        self._listener.close_idle()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.settings.drain_timeout_s
        while relay.active_calls and not self._force_stop.is_set() and (left := deadline - loop.time()) > 0:
            log.info("server.draining", calls=relay.active_calls, seconds_left=round(left))
            wait = asyncio.ensure_future(self._force_stop.wait())
            idle = asyncio.ensure_future(relay.until_idle())
            await asyncio.wait(
                (wait, idle), timeout=min(left, _PROGRESS_S), return_when=asyncio.FIRST_COMPLETED
            )
            for task in (wait, idle):
                task.cancel()
        if relay.active_calls:
            relay.end_all(Overloaded("claude-proxy is shutting down", headers={"retry-after": "1"}))
            try:
                await asyncio.wait_for(relay.until_idle(), _END_S)
            except asyncio.TimeoutError:
                log.warning("server.calls_cut", calls=relay.active_calls)
                relay.cut_all()

    def _beat(self) -> None:
        """What is to be done now and then, whether or not there are calls."""
        self._sweeper.beat()
        prefixes.forget_unused()

    async def close(self) -> None:
        """Let go of everything."""
        if self._reloader is not None:
            await self._reloader.close()
        self.loop_watch.stop()
        self._listener.stop_accepting()
        if self._relay is not None:
            self._relay.finished.flush()
        if self._observers is not None:
            await self._observers.live.close()
        if self._runner is not None:
            await self._runner.cleanup()
        if self._upstreams is not None:
            await self._upstreams.close()
        if self._demo is not None:
            await self._demo.close()
        if self._relay is not None:
            self._relay.hooks.close()
            self._relay.finished.flush()
        self._calibration.save()
        if self._observers is not None and self._observers.ledger is not None:
            await self._observers.ledger.close()
        if self._recorder is not None:
            await asyncio.to_thread(self._recorder.close)
        log.info("server.stopped")


def _warn(loaded: LoadedConfig) -> None:
    """Say what is allowed but unwise: a key file that others can read, a variable that looks misspelt."""
    for line in (*loaded.config.warnings, *loaded.settings.warnings):
        log.warning("config.warning", what=line)


def _bind(host: str, port: int) -> list[socket.socket]:
    """Listening sockets for `host`: for 127.0.0.1 also its sister ::1, since ``localhost`` may be either."""
    found: list[socket.socket] = []
    try:
        infos = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as exc:
        raise ConfigError(f"host: {host!r} is no address to listen on: {exc.strerror}") from None
    if host == "127.0.0.1":
        infos.append((socket.AF_INET6, socket.SOCK_STREAM, 0, "", ("::1", port, 0, 0)))
    for family, kind, protocol, _, address in dict.fromkeys(infos):
        is_optional = bool(found)
        try:
            each = socket.socket(family, kind, protocol)
        except OSError:
            continue  # no IPv6 here
        try:
            each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                each.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            if is_optional and port == 0:
                address = (address[0], found[0].getsockname()[1], *address[2:])
            each.bind(address)
            each.listen(1024)
            each.setblocking(False)
        except OSError as exc:
            each.close()
            if is_optional and exc.errno != errno.EADDRINUSE:
                continue  # no such address here: ::1 where IPv6 is off
            for other in found:
                other.close()
            if exc.errno == errno.EADDRINUSE:
                raise AddressInUse(
                    f"{host}:{port} is in use, perhaps by another claude-proxy: stop it, or choose another with --port"
                ) from None
            raise ConfigError(f"host: cannot listen on {host}:{port}: {exc.strerror}") from None
        found.append(each)
    if not found:
        raise ConfigError(f"host: cannot listen on {host!r}")
    return found


class _HttpLog:
    """What the HTTP library has to report. A request that is no HTTP is its sender's fault and is answered 400; the
    library would log it with a traceback that quotes the request's head, keys and all.
    """

    def exception(self, message: str, *args: object, exc_info: BaseException | None = None) -> None:
        if isinstance(exc_info, HttpProcessingError):
            log.info("request.malformed", problem=type(exc_info).__name__, status=exc_info.code)
        elif isinstance(exc_info, (BodyTimedOut, web.RequestPayloadError)):
            pass  # answered and logged as that; the library has met it again in what is left of the body
        else:
            log.error("request.crashed", exc_info=exc_info or True)

    def debug(self, message: str, *args: object, **more: object) -> None:
        log.debug("connection.note", note=message % args if args else message)


class _LoopTrouble:
    """What the event loop has to report, in our log. No free descriptor: accepting rests for a second, as asyncio
    has it, and a minute's trouble is one line (docs/spec/operations.md#c8).
    """

    def __init__(self) -> None:
        self._files_logged_at = float("-inf")

    def __call__(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        exc = context.get("exception")
        if isinstance(exc, OSError) and exc.errno in (errno.EMFILE, errno.ENFILE):
            if loop.time() - self._files_logged_at > _FILES_LOG_EVERY_S:
                self._files_logged_at = loop.time()
                log.error(
                    "server.out_of_files", problem="no file descriptor is free; raise the limit (ulimit -n)"
                )
            return
        log.error("loop.trouble", problem=context.get("message"), exc_info=exc)


def _raise_file_limit() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _WANTED_FILES if hard == resource.RLIM_INFINITY else min(hard, _WANTED_FILES)
    if soft < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        except (OSError, ValueError):
            log.debug("server.file_limit", soft=soft)


def _forbid_cores() -> None:
    """A core would hold keys and prompts (docs/spec/operations.md#e7)."""
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    try:
        resource.setrlimit(resource.RLIMIT_CORE, (0, hard))
    except (OSError, ValueError):
        log.debug("server.core_limit")
