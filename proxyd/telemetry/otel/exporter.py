"""The observer that sends finished calls to a collector of OpenTelemetry.

::

    observe ─▶ at most `_MAX_WAITING` calls ─▶ thread ─▶ spans once a second, metrics once in ``interval_s``
                     └─full─▶ counted                      └─fails─▶ reported once; the spans are counted as lost

No call waits for it. Metrics are sums since the start, so a transfer that fails loses none of them.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from time import monotonic

from proxyd.config.otel import Otel
from proxyd.logs.setup import get_logger
from proxyd.telemetry.call_trace import CallTrace
from proxyd.telemetry.finished_call import FinishedCall
from proxyd.telemetry.otel.content import CallContent
from proxyd.telemetry.otel.measurements import Measurement, measurements_of
from proxyd.telemetry.otel.sdk import Sdk
from proxyd.telemetry.otel.spans import SpanData, spans_of, trace_of
from proxyd.telemetry.otel.traced_call import TracedCall

__all__ = ["OtelExporter"]

log = get_logger("otel")

#: Calls that wait to be sent, of some 3 KB each, and bytes of what was said in them.
_MAX_WAITING, _MAX_WAITING_BYTES = 2_048, 64 * 1024 * 1024
#: Calls of one transfer, without and with what was said in them, and how long the first of them waits for others.
_BATCH, _BATCH_WITH_CONTENT, _PAUSE_S = 256, 16, 1.0
#: How long `OtelExporter.close` waits for the last transfer, and then for its end.
_CLOSE_S, _STOP_S = 3.0, 1.0


@dataclass(frozen=True, slots=True)
class _Waiting:
    """What a call adds to the next transfer."""

    spans: list[SpanData]
    measurements: list[Measurement]
    content: CallContent | None

    @property
    def size(self) -> int:
        """The bytes of what was said."""
        return 0 if self.content is None else self.content.size


class OtelExporter:
    """Sends spans and metrics.

    Args:
        provider_of: id of an entry and URL -> name of the profile.
        trust_env, ca_file: the settings.

    Attributes:
        trouble: why the last transfer failed; None if it did not.
        lost: calls whose spans could not be sent.
    """

    def __init__(
        self,
        otel: Otel,
        provider_of: Callable[[str, str], str],
        *,
        trust_env: bool = False,
        ca_file: str = "",
    ) -> None:
        self.trouble: str | None = None
        self.lost = 0
        self._otel, self._provider_of = otel, provider_of
        self._sdk = Sdk(otel, trust_env=trust_env, ca_file=ca_file)
        self._waiting: deque[_Waiting] = deque()
        self._waiting_bytes = 0
        self._batch = _BATCH_WITH_CONTENT if otel.content else _BATCH
        self._change = threading.Condition()
        self._is_closing = False
        self._thread: threading.Thread | None = None

    def new_trace(self, in_force: object, body: bytes, headers: Mapping[str, str]) -> CallTrace:
        """Return the trace of a call that begins."""
        otel = self._otel
        return TracedCall(in_force, len(body), headers, otel.sample, body if otel.content else None)

    def start(self) -> None:
        """Start the thread."""
        if self._otel.content:
            log.warning(
                "otel.sends_content",
                what="prompts and responses are sent to the collector, in plain text; keys are masked",
                endpoint=self._otel.endpoint,
            )
        self._thread = threading.Thread(target=self._run, name="otel", daemon=True)
        self._thread.start()

    def observe(self, calls: Sequence[FinishedCall]) -> None:
        """Queue finished calls. Does not block."""
        # Made now: a call may hold its bodies, which would wait as well.
        found = [
            _Waiting(
                spans_of(call, self._provider_of), measurements_of(call, self._provider_of), _content_of(call)
            )
            for call in calls
        ]
        with self._change:
            for each in found:
                if len(self._waiting) >= _MAX_WAITING or self._waiting_bytes + each.size > _MAX_WAITING_BYTES:
                    self.lost += 1
                    continue
                self._waiting.append(each)
                self._waiting_bytes += each.size
            self._change.notify_all()

    async def close(self) -> None:
        """Send what is left, for at most `_CLOSE_S`, and stop. Nothing more is tried where the last transfer failed."""
        thread, self._thread = self._thread, None
        with self._change:
            self._is_closing = True
            self._change.notify_all()
        if thread is not None:
            if self.trouble is None:
                await asyncio.to_thread(thread.join, _CLOSE_S)
            self._sdk.stop()
            await asyncio.to_thread(thread.join, _STOP_S)

    def _run(self) -> None:
        metrics_at = monotonic() + self._otel.interval_s
        try:
            while True:
                with self._change:
                    self._change.wait_for(self._has_work, max(0.0, metrics_at - monotonic()))
                    if self._waiting and not self._has_full_batch():
                        self._change.wait_for(self._has_full_batch, _PAUSE_S)
                    batch = [self._waiting.popleft() for _ in range(min(self._batch, len(self._waiting)))]
                    self._waiting_bytes -= sum(each.size for each in batch)
                    is_last = self._is_closing and not self._waiting
                self._send(batch)
                if is_last or monotonic() >= metrics_at:
                    self._note(self._sdk.send_metrics(), 0)
                    metrics_at = monotonic() + self._otel.interval_s
                if is_last:
                    return
        except Exception:
            log.error("otel.crashed", exc_info=True)
            self.trouble = "internal error in claude-proxy; see its log"
        finally:
            self._sdk.close()

    def _has_work(self) -> bool:
        return bool(self._waiting) or self._is_closing

    def _has_full_batch(self) -> bool:
        return len(self._waiting) >= self._batch or self._is_closing

    def _send(self, batch: Sequence[_Waiting]) -> None:
        for each in batch:
            self._sdk.record(each.measurements)
            if each.content is not None and len(each.spans) > 1:
                each.spans[-1].attributes.update(each.content.attributes())
        spans = [span for each in batch for span in each.spans]
        if spans:
            self._note(self._sdk.send_spans(spans), sum(1 for each in batch if each.spans))

    def _note(self, trouble: str | None, calls: int) -> None:
        """Note the result of a transfer of the spans of `calls`; log it where it differs from that of the last one."""
        if trouble is not None:
            self.lost += calls
            if self.trouble is None:
                log.warning(
                    "otel.export_failed",
                    endpoint=self._otel.endpoint,
                    why=trouble,
                    then="spans are dropped until the collector takes some again; no call waits for it",
                )
        elif self.trouble is not None:
            log.info("otel.export_recovered", endpoint=self._otel.endpoint, calls_lost=self.lost)
        self.trouble = trouble


def _content_of(call: FinishedCall) -> CallContent | None:
    trace = trace_of(call)
    return None if trace is None else trace.content
