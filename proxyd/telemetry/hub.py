"""All observers of finished calls, in the order in which they are notified, and what can be read from them."""

from __future__ import annotations

from proxyd.telemetry.access_log import log_calls
from proxyd.telemetry.batcher import Observer, one_by_one
from proxyd.telemetry.finished_call import FinishedCall
from proxyd.telemetry.ledger import Ledger
from proxyd.telemetry.ledger_forwarder import LedgerForwarder
from proxyd.telemetry.ledger_schema import row_of
from proxyd.telemetry.live_feed import LiveFeed
from proxyd.telemetry.metrics import Metrics, Sources

__all__ = ["TelemetryHub"]


class TelemetryHub:
    """The access log, the metrics, the ledger and the live feed of one daemon.

    Args:
        ledger: None where nothing is kept.
        forwarder: copies the ledger into a database; None where there is none.
    """

    def __init__(
        self,
        sources: Sources,
        live: LiveFeed,
        metrics: Metrics,
        ledger: Ledger | None,
        forwarder: LedgerForwarder | None = None,
    ) -> None:
        self.sources = sources
        self.live = live
        self.metrics = metrics
        self.ledger = ledger
        self.forwarder = forwarder

    @property
    def observers(self) -> tuple[Observer, ...]:
        """The observers, for `proxyd.telemetry.batcher`."""
        return (
            log_calls,
            self.metrics.observe,
            one_by_one(self._store),
        )

    def _store(self, record: FinishedCall) -> None:
        row = row_of(record)
        if self.ledger is not None:
            self.ledger.observe(row)
        self.live.observe(record, row)
