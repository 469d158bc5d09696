"""The state of a running daemon as log lines, for SIGUSR2 (docs/spec/operations.md#a5)."""

from __future__ import annotations

import asyncio

from proxyd.daemon.listener import Listener
from proxyd.logs.setup import get_logger
from proxyd.proxy.relay import Relay
from proxyd.transport.client import UpstreamClient

__all__ = ["log_state"]

log = get_logger("server")


def log_state(relay: Relay, upstreams: UpstreamClient, listener: Listener, loop_lag_s: float) -> None:
    """Log the daemon, each call in flight and each circuit breaker that is not closed."""
    records, circuits = relay.records, upstreams.circuits.states()
    log.info(
        "state.daemon",
        calls=len(records),
        connections=listener.connections,
        refused_connections=listener.refused_total,
        tasks=len(asyncio.all_tasks()),
        circuits=len(circuits),
        loop_lag_ms=round(loop_lag_s * 1000),
        is_draining=relay.is_draining,
    )
    for record in records:
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
