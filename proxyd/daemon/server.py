"""The daemon: start, signals, drain and reload.

Start (docs/spec/operations.md#a1): the configuration is valid before a socket is bound. Stop
(docs/spec/operations.md#a2), in this order:

1. readiness becomes 503; the listening sockets and idle connections close;
2. new requests on open connections get a 529, and responses carry ``Connection: close``;
3. the calls in flight continue for up to ``drain_timeout_s``, with a progress line every 5 s;
4. the remaining ones end with one error event; a second signal skips to this step;
5. upstream connections close.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiohttp import web

import proxyd
from proxyd.api.app import build_app
from proxyd.api.call_details import CallDetails
from proxyd.api.client_address import is_trusted_proxy
from proxyd.api.peers import Peers
from proxyd.daemon.config_reloader import Reloader
from proxyd.daemon.configuration import LoadConfig, LoadedConfig, checks, hooks_folder
from proxyd.daemon.controlling_terminal import ends_with_terminal, has_terminal
from proxyd.daemon.demo.server import DemoServer, start_demo
from proxyd.daemon.gc_policy import CollectionPolicy
from proxyd.daemon.library_logs import HttpLogger, LoopExceptionHandler
from proxyd.daemon.listener import Listener
from proxyd.daemon.loop_lag import LoopLag
from proxyd.daemon.rlimits import forbid_core_dumps, raise_file_limit
from proxyd.daemon.shared_state import SharedState
from proxyd.daemon.sockets import bind_sockets
from proxyd.daemon.state_log import log_state
from proxyd.daemon.systemd import Notifier
from proxyd.daemon.tls_listener import TlsListener
from proxyd.daemon.workers.channel import Receiver
from proxyd.daemon.workers.place import WorkerPlace
from proxyd.errors import ConfigError, Overloaded
from proxyd.hooks.loader import find_hook_files
from proxyd.logs.rotation import LogFile
from proxyd.logs.setup import configure, get_logger
from proxyd.prompt_cache.cache import PromptCache
from proxyd.providers.registry import profile_for
from proxyd.proxy.aiohttp_server import hide_versions, wrap_handler
from proxyd.proxy.held_bodies import HeldBodies
from proxyd.proxy.learned_file import FILE as LEARNED_FILE
from proxyd.proxy.learned_file import LearnedQuirkFile
from proxyd.proxy.relay import Relay
from proxyd.recording.recorder import Recorder
from proxyd.recording.store import FOLDER as RECORDS_FOLDER
from proxyd.telemetry.batcher import one_by_one
from proxyd.telemetry.hub import TelemetryHub
from proxyd.telemetry.ledger import Ledger
from proxyd.telemetry.ledger_forwarder import LedgerForwarder
from proxyd.telemetry.ledger_schema import FILE as LEDGER_FILE
from proxyd.telemetry.live_feed import LiveFeed
from proxyd.telemetry.metrics import Metrics, Sources
from proxyd.telemetry.token_calibration import FILE as CALIBRATION_FILE
from proxyd.telemetry.token_calibration import Calibration
from proxyd.transport.client import UpstreamClient

if TYPE_CHECKING:
    from proxyd.telemetry.otel.exporter import OtelExporter

__all__ = ["Daemon", "Service"]

log = get_logger("server")

hide_versions()

#: Time for open handlers to write their last bytes after they were ended, then for those that were cut
#: (docs/spec/operations.md#a3: drain + 5 s in all; the runner waits its own timeout twice).
_END_S, _CUT_S = 3.0, 0.5
#: For how long an unwanted body is still read, so that its sender gets to read the response.
_LINGER_S = 2.0
#: How long a thread keeps the interpreter's lock while the event loop waits for it. The loop waits after each system
#: call, of which a chunk takes three; with Python's 5 ms a large request would delay each chunk by 15 ms.
_SWITCH_S = 0.0005
_PROGRESS_S = 5.0


@dataclass(frozen=True, slots=True)
class Service:
    """The service manager that runs the daemon, and what it passed to it.

    Attributes:
        supervisor: ``systemd``, ``launchd``, ``detached`` (``claude-proxy start``), or None in the foreground.
        sockets: already listening; the daemon closes them when it ends.
        place: of a worker, whose parent listens for it and is its service manager.
    """

    supervisor: str | None = None
    notifier: Notifier = field(default_factory=lambda: Notifier({}))
    sockets: tuple[socket.socket, ...] = ()
    place: WorkerPlace | None = None


class Daemon:
    """The server around one relay.

    Args:
        loaded: the first configuration.
        reload: reads it again, at SIGHUP or when its file is saved; None if it cannot change.
        state_folder: holds the ledger, the recordings and the calibration of token counts; None keeps nothing.
        service: the service manager; without its sockets the daemon opens its own.

    Attributes:
        shared: virtual keys, and what other daemons on the same store share.
        addresses: on which it listens for plain HTTP.
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
        self._reloader = None if reload is None else Reloader(reload, self._apply, self._reject)
        self._service = service or Service()
        self._started = time.monotonic()
        self._relay: Relay | None = None
        self._runner: web.AppRunner | None = None
        self._upstreams: UpstreamClient | None = None
        self._demo: DemoServer | None = None
        self._state_folder = state_folder
        self._observers: TelemetryHub | None = None
        self._otel: OtelExporter | None = None
        self._recorder = (
            None if state_folder is None else Recorder(state_folder / RECORDS_FOLDER, lambda: self.settings)
        )
        self._listener = Listener(
            self.settings.max_connections,
            self.settings.max_idle_per_peer,
            lambda peer: is_trusted_proxy(peer, self.settings.trusted_proxies),
        )
        self._bodies = HeldBodies()
        self._prompt_cache = PromptCache()
        self._collection_policy = CollectionPolicy(
            self._waiting_bytes, self._open_calls, self._bodies.take_peak
        )
        self.loop_lag = LoopLag(self._beat)
        self._calibration = Calibration(None if state_folder is None else state_folder / CALIBRATION_FILE)
        self._learned = LearnedQuirkFile(None if state_folder is None else state_folder / LEARNED_FILE)
        self.shared = SharedState(lambda: self.settings, state_folder, self._learned, self._calibration)
        self._tls: TlsListener | None = None
        self._receiver: Receiver | None = None
        place = self._service.place
        self._peers = None if place is None else Peers(place.own_socket, place.other_sockets)
        self._renewal: asyncio.Future[None] | None = None
        self._stop = asyncio.Event()
        self._force_stop = asyncio.Event()
        self._stops_with_terminal = False
        self._is_reload_pending = False
        self._config_error: dict[str, Any] | None = None  # of a file that a reload has rejected
        self.addresses: list[tuple[str, int]] = []

    async def start(self) -> None:
        """Bind and serve.

        Raises:
            AddressInUse, ConfigError: as `bind_sockets`.
        """
        raise_file_limit()
        forbid_core_dumps()
        settings = self.settings
        place = self._service.place
        if place is not None:
            sockets = [place.listen()]
        else:
            sockets = list(self._service.sockets) or bind_sockets(settings.host, settings.port)
        try:
            # Always started: a reload may bring the first entry that uses it, and it costs one socket.
            self._demo = await start_demo()
            self._prompt_cache.switch(is_on=settings.prompt_cache)
            self._upstreams = UpstreamClient(settings)
            self._relay = Relay(
                settings,
                self._loaded.config.table,
                self._upstreams,
                demo_base=self._demo.api_base,
                hooks=self._loaded.hooks,
                calibration=self._calibration,
                learned=self._learned,
                prompt_cache=self._prompt_cache,
                key_ring=self.shared.key_ring,
            )
            await self.shared.start_keys()
            self._observers = self._build_observers(self._relay, self._upstreams)
            kept = () if self._recorder is None else (one_by_one(self._recorder.observe),)
            details = CallDetails(
                None if self._recorder is None else self._recorder.folder, lambda: self.settings.record
            )
            self._otel = self._build_otel(self._relay)
            self._relay.finished.observers = (
                *self._observers.observers,
                one_by_one(details.observe),
                *kept,
                *(() if self._otel is None else (self._otel.observe,)),
            )
            self._switch_recording(self._relay)
            app, in_front_of = build_app(
                self._relay, self._observers, self._listener.middleware, self.about, self._bodies, details,
                self._loaded.config.path, checks(), self._peers,
            )  # fmt: skip
            self._runner = web.AppRunner(
                app,
                access_log=None,
                handler_cancellation=True,
                keepalive_timeout=settings.keepalive_s,
                shutdown_timeout=_CUT_S,
                lingering_time=_LINGER_S,
                logger=HttpLogger(),
            )
            if self._observers.ledger is not None:
                self._observers.ledger.start()
            if self._observers.forwarder is not None:
                self._observers.forwarder.start()
            if self._otel is not None:
                self._otel.start()
            await self._runner.setup()
            server = self._runner.server
            assert server is not None, "a runner that is set up has a server"
            wrap_handler(server, in_front_of)
            await self._listener.start(server, sockets)
            if settings.tls_address is not None:
                elsewhere = None if place is None else place.tls_addresses
                self._tls = TlsListener(settings.tls_address, self._listener, elsewhere)
                await self._tls.start()
            if place is not None:
                self._receiver = Receiver(
                    place.channel,
                    self._listener,
                    lambda: None if self._tls is None else self._tls.context,
                    lambda: self._on_stop("the parent has ended"),
                )
                self._receiver.start()
            self.loop_lag.start()
            asyncio.get_running_loop().set_exception_handler(LoopExceptionHandler())
        except BaseException:
            for each in sockets:
                each.close()
            if self._receiver is not None:
                self._receiver.close()
            if self._tls is not None:
                self._tls.close()
            if self._demo is not None:
                await self._demo.close()
            raise
        self.addresses = [each.getsockname()[:2] for each in sockets] if place is None else place.addresses
        await self.shared.start(self.addresses[0][1], lambda: self._loaded.config.hash)
        if self._reloader is not None:
            self._reloader.watch(self._watched_files)

    def _watched_files(self) -> list[Path]:
        path = self._loaded.config.path
        return [
            path,
            path.parent / "env",
            *find_hook_files(hooks_folder(path)),
            *(() if self._tls is None else self._tls.files),
        ]

    def about(self) -> dict[str, Any]:
        """Return what ``claude-proxy status`` shows, for callers on this machine."""
        assert self._relay is not None, "this is called over HTTP, so the daemon has started"
        assert self._upstreams is not None, "created before the relay"
        place = self._service.place
        return {
            "name": "claude-proxy",
            "version": proxyd.__version__,
            "pid": os.getpid() if place is None else place.pid,
            **({} if place is None else {"worker": place.number, "worker_pid": os.getpid()}),
            "supervisor": self._service.supervisor if place is None else place.supervisor,
            "uptime_s": round(time.monotonic() - self._started, 1),
            "address": [*self.addresses[0]],
            **({} if self._tls is None else {"tls_address": [*self._tls.addresses[0]]}),
            "config": str(self._loaded.config.path.resolve()),
            "config_hash": self._loaded.config.hash,
            "replicas": None if self.shared.replicas is None else self.shared.replicas.describe(),
            "models": list(self._relay.table.ids()),
            "calls": self._relay.active_calls,
            "circuits": [
                {
                    "origin": circuit.origin,
                    "state": circuit.state.value,
                    "failures": circuit.failures,
                    "open_for_s": round(circuit.open_for_s, 1),
                    "cause": circuit.cause,
                }
                for circuit in self._upstreams.circuits.states()
            ],
            "keys": self._relay.key_pools.describe(),
            "virtual_keys": self.shared.key_ring.describe(),
            "store": self.shared.describe(),
            "targets": self._relay.target_pools.describe(),
            "hooks": self._relay.hooks.describe(),
            **({} if self._config_error is None else {"config_error": self._config_error}),
        }

    def _status(self) -> str:
        relay = self._relay
        assert relay is not None, "the daemon has started"
        host, port = self.addresses[0]
        calls = relay.active_calls
        what = f"{calls} call{'' if calls == 1 else 's'} in flight"
        return f"http://{host}:{port}, {len(relay.table.routes)} models, {what}"

    async def _notify_watchdog(self) -> None:
        """Notify the watchdog at half of its timeout that the loop runs (docs/spec/operations.md#a8)."""
        notifier = self._service.notifier
        while notifier.watchdog_s is not None:
            notifier.alive()
            notifier.status(self._status())
            await asyncio.sleep(notifier.watchdog_s / 2)

    def _build_observers(self, relay: Relay, upstreams: UpstreamClient) -> TelemetryHub:
        ledger = None
        if self._state_folder is not None:
            ledger = Ledger(self._state_folder / LEDGER_FILE, lambda: self.settings.ledger_days)
        forwarder, url = None, self.settings.store
        if ledger is not None and url is not None:
            forwarder = LedgerForwarder(ledger.path, url, lambda: self.settings.ledger_days)
        sources = Sources(
            active=lambda: relay.records,
            circuits=lambda: {each.origin: each.state.value for each in upstreams.circuits.states()},
            loop_lag_s=lambda: self.loop_lag.last_s,
            hook_errors=lambda: relay.hooks.failures(),
            rows_lost=lambda: 0 if ledger is None else ledger.dropped,
            keys=relay.key_pools.describe,
            targets=relay.target_pools.describe,
            rows_waiting=lambda: None if forwarder is None else forwarder.waiting,
            is_store_up=lambda: None if self.shared.describe() is None else self.shared.trouble is None,
            config_hash=lambda: self._loaded.config.hash,
        )
        live = LiveFeed(lambda: relay.records, lambda: relay.is_draining)
        return TelemetryHub(sources, live, Metrics(sources), ledger, forwarder)

    def _build_otel(self, relay: Relay) -> OtelExporter | None:
        """Build what sends spans and metrics, and have calls traced for it; None where nothing is sent."""
        target = self.settings.otel_target
        if target is None:
            return None
        from proxyd.telemetry.otel.exporter import (
            OtelExporter,
        )  # here, because it imports an optional library

        def provider_of(route: str, url: str) -> str:
            entry = relay.table.resolve(route)  # None if a reload has removed it
            return profile_for(url, None if entry is None else entry.provider).name

        settings = self.settings
        exporter = OtelExporter(target, provider_of, trust_env=settings.trust_env, ca_file=settings.ca_file)
        relay.new_trace = exporter.new_trace
        return exporter

    def handle_signals(self) -> None:
        """Install the signal handlers. To be called before `start`: a process that sees the port open may send one."""
        loop = asyncio.get_running_loop()
        self._stops_with_terminal = ends_with_terminal()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_stop, number.name)
        loop.add_signal_handler(signal.SIGHUP, self._on_hangup)
        loop.add_signal_handler(signal.SIGUSR1, LogFile().reopen)
        loop.add_signal_handler(signal.SIGUSR2, self.dump_state)

    async def run(self) -> None:
        """Serve until a signal to stop, then drain. Requires `handle_signals` and `start`."""
        loop = asyncio.get_running_loop()
        host, port = self.addresses[0]
        if self.settings.log_bodies:
            log.warning(
                "server.logs_bodies",
                what="prompts and responses go to the log at level debug, in plain text; keys are masked",
            )
        self._warn_about_bodies()
        log.info(
            "server.started",
            address=f"http://{host}:{port}",
            **({} if self._tls is None else {"tls": "https://{}:{}".format(*self._tls.addresses[0])}),
            models=len(self._loaded.config.table.routes),
            config=str(self._loaded.config.path),
        )
        self._loaded.hooks.report()
        _log_warnings(self._loaded)
        self._collection_policy.start()
        sys.setswitchinterval(_SWITCH_S)
        self._service.notifier.ready(self._status())
        if self._is_reload_pending:
            self.reload()
        watchdog = asyncio.ensure_future(self._notify_watchdog())
        try:
            await self._stop.wait()
            await self.drain()
        finally:
            watchdog.cancel()
            await self.close()
            self._collection_policy.stop()
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
                loop.remove_signal_handler(number)

    def _waiting_bytes(self) -> int:
        records = [] if self._relay is None else self._relay.records
        return sum(each.bytes_in for each in records if each.first_byte is None)

    def _open_calls(self) -> int:
        return 0 if self._relay is None else self._relay.active_calls

    def _on_stop(self, name: str) -> None:
        # The parent of a worker signals it when it has been signalled twice; systemd may signal both of them once.
        if self._stop.is_set() and (self._service.place is None or name == signal.SIGINT.name):
            self._force_stop.set()
        self._stop.set()
        log.info("server.stopping", signal=name)

    def _on_hangup(self) -> None:
        """Stop if the controlling terminal was closed; reload otherwise."""
        if self._stops_with_terminal and not has_terminal():
            self._on_stop(signal.SIGHUP.name)
        elif self.addresses:
            self.reload()
        else:
            self._is_reload_pending = True

    def reload(self) -> None:
        """Read the configuration again; an invalid one changes nothing (docs/spec/operations.md#a4)."""
        if self._reloader is not None:
            self._service.notifier.reloading()
            self._reloader.request()

    def _reject(self, exc: ConfigError) -> None:
        if self._observers is not None:
            self._observers.sources.is_reload_good = False
        faults = exc.message.splitlines()
        self._config_error = {"at": time.time(), "faults": faults}
        log.error("config.rejected", faults=faults, in_force="the configuration before")
        self._service.notifier.ready(self._status())

    def _apply(self, loaded: LoadedConfig) -> None:
        relay = self._relay
        assert relay is not None, "reloads begin after the start"
        settings, waiting = self.settings.after_reload(loaded.settings)
        if settings.log_level != self.settings.log_level:
            configure(settings.log_level, settings.log_format)
        bodies_before = self.settings.record_bodies
        self.settings = settings
        self._loaded = loaded
        self._config_error = None
        self._switch_recording(relay)
        if not bodies_before:
            self._warn_about_bodies()
        if self._tls is not None:
            self._renewal = asyncio.ensure_future(self._tls.renew())
        relay.swap(settings, loaded.config.table, loaded.hooks)
        if self._observers is not None:
            self._observers.sources.is_reload_good = True
        log.info(
            "config.reloaded", models=len(loaded.config.table.routes), ignored_until_restart=list(waiting)
        )
        loaded.hooks.report()
        _log_warnings(loaded)
        self._service.notifier.ready(self._status())

    def _switch_recording(self, relay: Relay) -> None:
        """Trace the calls that begin from now on if the settings say so."""
        is_recorded = self._recorder is not None and self.settings.record != "off"
        relay.is_traced = is_recorded or self._otel is not None

    def _warn_about_bodies(self) -> None:
        if self._recorder is not None and self.settings.record_bodies and self.settings.record != "off":
            log.warning(
                "server.records_bodies",
                what="prompts and responses of recorded calls are written to disk; keys are masked",
                folder=str(self._recorder.folder),
            )

    def dump_state(self) -> None:
        """Log each call in flight and each circuit breaker that is not closed (docs/spec/operations.md#a5)."""
        if self._relay is not None and self._upstreams is not None:
            log_state(self._relay, self._upstreams, self._listener, self.loop_lag.last_s)

    async def drain(self) -> None:
        """Stop accepting and finish the open calls: steps 1 to 4 of the module docstring."""
        relay = self._relay
        if relay is None:
            return
        relay.is_draining = True
        self._service.notifier.stopping(f"draining, {relay.active_calls} calls in flight")
        self._stop_accepting()
        self._listener.close_idle()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.settings.drain_timeout_s
        while relay.active_calls and not self._force_stop.is_set() and (left := deadline - loop.time()) > 0:
            log.info("server.draining", calls=relay.active_calls, seconds_left=round(left))
            forced = asyncio.ensure_future(self._force_stop.wait())
            idle = asyncio.ensure_future(relay.until_idle())
            await asyncio.wait(
                (forced, idle), timeout=min(left, _PROGRESS_S), return_when=asyncio.FIRST_COMPLETED
            )
            for task in (forced, idle):
                task.cancel()
        if relay.active_calls:
            relay.end_all(Overloaded("claude-proxy is shutting down", headers={"retry-after": "1"}))
            try:
                await asyncio.wait_for(relay.until_idle(), _END_S)
            except asyncio.TimeoutError:
                log.warning("server.calls_cut", calls=relay.active_calls)
                relay.cut_all()

    def _stop_accepting(self) -> None:
        if self._renewal is not None:
            self._renewal.cancel()
        if self._receiver is not None:
            self._receiver.close()
        self._listener.stop_accepting()
        if self._tls is not None:
            self._tls.close()

    def _beat(self) -> None:
        """Do the periodic work that does not depend on calls."""
        self._collection_policy.check()
        self._prompt_cache.evict_unused()

    async def close(self) -> None:
        """Release all resources."""
        if self._reloader is not None:
            await self._reloader.close()
        self.loop_lag.stop()
        self._stop_accepting()
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
        await self.shared.close()
        self._calibration.save()
        if self._observers is not None and self._observers.ledger is not None:
            await self._observers.ledger.close()
        if self._observers is not None and self._observers.forwarder is not None:
            await self._observers.forwarder.close()  # what the ledger has just written, too
        if self._otel is not None:
            await self._otel.close()
        if self._recorder is not None:
            await asyncio.to_thread(self._recorder.close)
        log.info("server.stopped")


def _log_warnings(loaded: LoadedConfig) -> None:
    """Log what is allowed but unwise: a key file that others can read, a variable that looks misspelled."""
    for line in (*loaded.config.warnings, *loaded.settings.warnings):
        log.warning("config.warning", what=line)
