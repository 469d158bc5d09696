"""One call as it is remembered: what the log line, the ledger and the live view are made from.

Counts, times, ids and model names only; never a prompt, an answer or a key (docs/spec/design.md#p12).
"""

from __future__ import annotations

import io
import secrets
import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from time import monotonic, time

from proxyd.codecs.anthropic.usage import Usage
from proxyd.config.routes import Pricing
from proxyd.redaction import redacted
from proxyd.telemetry.call_trace import CallTrace

__all__ = ["MAX_MODEL_CHARS", "MOST_PASSED", "CallRecord", "new_id"]

#: Numbers that wait in `CallRecord.passed`, four a piece.
MOST_PASSED = 4 * 64

#: Where an entry has a glob as alias, a client may ask for a model by a name of any length.
MAX_MODEL_CHARS = 200

_ALPHABET = (string.ascii_letters + string.digits).encode()
#: A random byte -> a character. The first eight come 5 times in 256 and the others 4: unguessable all the same.
_CHARACTERS = bytes(_ALPHABET[byte % len(_ALPHABET)] for byte in range(256))


#: Characters that are asked of the system at once: it takes as long over 24 of them.
_STOCK = 4096
_stock = io.StringIO()


def new_id(prefix: str, length: int = 24) -> str:
    """A random id, 22 characters for requests, 24 elsewhere, as the Anthropic API has them.

    See docs/spec/operations.md#f2.
    """
    global _stock
    characters = _stock.read(length)  # one step, whatever thread asks
    if len(characters) < length:
        fresh = _stock = io.StringIO(secrets.token_bytes(_STOCK).translate(_CHARACTERS).decode())
        characters = fresh.read(length)
    return prefix + characters


#: What a client or an upstream may have written.
_NAMED = (
    "model",
    "session_id",
    "agent_id",
    "client_request_id",
    "upstream_request_id",
    "error_type",
    "error",
    "stop_reason",
)
_named = attrgetter(*_NAMED)


@dataclass(slots=True)
class CallRecord:
    """Filled in as a call goes on. Times are seconds of the monotonic clock; `started_at` is Unix time.

    Attributes:
        model: what the client asked for, its first `MAX_MODEL_CHARS` characters; `route` is the entry that served,
            `fallback_from` the one first chosen.
        address: the URL that was called last, without credentials and the values of its query.
        kind: what the client wants it for, as `proxyd.telemetry.request_kind` tells.
        outcome: ``ok``; ``refused`` (answered with an error status); ``failed`` (an error after the stream had begun);
            ``client_gone``; ``crashed`` (a bug of ours); ``running`` until then.
        usage: as the upstream reported it, or estimated where the answer ended before it did.
        estimated_input_tokens: our own count before the call, not calibrated; None where nobody needed one.
        output_so_far: while an answer streams: about how many tokens it has so far. Asked by whoever watches.
        settle: puts in what the answer has said of usage and its end, which nobody needs before the call is over.
        prompt_blocks: checksums, see `proxyd.telemetry.cache_breaks`; only of calls that belong to a session.
        cache_break: why its cache reads fell, where they did.
        codec_s: processor seconds spent on turning the upstream's bytes into the client's.
        trace: what passes through the call, where a record may be kept of it (`proxyd.recording.recorder`).
        passed: of each piece that became a write at once, the times by the monotonic clock before and after it was
            rewritten, its size, and that of the write. Whoever passes it on appends them, and calls `add_up` when there
            are `MOST_PASSED`: to find all that counts pieces in no cache, at each of them, took a twentieth of it.
            A piece that has only come has 0 for the last, a write that came of none 0 for the last but one.
        events_a_piece: what a piece that became a write at once counts for the client.
        heard_at, written_at: when the upstream was last heard, and when the client was last written to.
    """

    request_id: str
    model: str = ""
    route: str = ""
    mode: str = ""
    upstream_model: str = ""
    fallback_from: str | None = None
    kind: str = "main"
    pricing: Pricing | None = None
    is_stream: bool = False
    session_id: str | None = None
    agent_id: str | None = None
    client_request_id: str | None = None
    upstream_request_id: str | None = None
    address: str = ""
    status: int = 0
    outcome: str = "running"
    error_type: str | None = None
    error: str | None = None
    stop_reason: str | None = None
    usage: Usage = field(default_factory=Usage)
    estimated_input_tokens: int | None = None
    retries: int = 0
    events: int = 0
    output_so_far: Callable[[], int] | None = None
    settle: Callable[[], None] | None = None
    codec_s: float = 0.0
    trace: CallTrace | None = None
    passed: list[float] = field(default_factory=list)
    events_a_piece: int = 0
    heard_at: float = 0.0
    written_at: float = 0.0
    prompt_blocks: Sequence[int] = ()
    cache_break: str | None = None
    bytes_in: int = 0
    bytes_out: int = 0
    started_at: float = field(default_factory=time)
    begun: float = field(default_factory=monotonic)
    first_byte: float | None = None
    ended: float | None = None

    def __post_init__(self) -> None:
        self.model = self.model[:MAX_MODEL_CHARS]
        self.redact()

    def redact(self) -> None:
        """Mask keys in all that others have named: what remembers a call outlives the keys in use."""
        named = _named(self)
        text = "\n".join(filter(None, named))
        if redacted(text) == text:
            return
        for name, value in zip(_NAMED, named, strict=True):
            if value is not None:
                setattr(self, name, redacted(value))

    def settle_now(self) -> None:
        """Read what the answer has said, unless that has been done."""
        settle, self.settle = self.settle, None
        if settle is not None:
            settle()

    def add_up(self) -> None:
        """Count what has `passed`. To be called before anything is read that it counts in."""
        passed = self.passed
        if not passed:
            return
        begun, ended, came, went = (passed[each::4] for each in range(4))
        passed.clear()
        self.codec_s += sum(ended) - sum(begun)
        self.bytes_out += int(sum(went))
        for at, size_came, size_went in zip(ended, came, went, strict=True):
            if size_came:
                self.heard_at = at
            if size_went:
                self.written_at = at
                if size_came:
                    self.events += self.events_a_piece
        if self.trace is not None:
            self.trace.on_passed(ended, came, went)

    def on_chunk(self, data: bytes) -> None:
        """The upstream has sent `data`."""
        self._note(len(data), 0)
        trace = self.trace
        if trace is not None and trace.room is not None:
            trace.on_chunk(data)

    def on_written(self, data: bytes) -> None:
        """The client has taken `data`."""
        self._note(0, len(data))
        trace = self.trace
        if trace is not None and trace.room is not None:
            trace.on_written(data)

    def _note(self, came: int, went: int) -> None:
        now, passed = monotonic(), self.passed
        passed.extend((now, now, came, went))
        if len(passed) >= MOST_PASSED:
            self.add_up()

    def on_first_byte(self) -> None:
        """The first byte of the answer goes to the client now."""
        if self.first_byte is None:
            self.first_byte = monotonic()

    @property
    def ttfb_s(self) -> float | None:
        return None if self.first_byte is None else self.first_byte - self.begun

    @property
    def cost_usd(self) -> float | None:
        """What the call cost by the entry's ``pricing``; None where a price that it needs is not known."""
        return None if self.pricing is None else self.pricing.cost_of(self.usage)

    @property
    def duration_s(self) -> float:
        return (self.ended or monotonic()) - self.begun
