"""The record of a call in flight. When it is over, `proxyd.telemetry.finished_call` is made of it.

Counts, times, ids and model names only; never a prompt, a response or a key (docs/spec/design.md#p12).
"""

from __future__ import annotations

import secrets
import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import monotonic, time

from proxyd.codecs.anthropic.usage import Usage
from proxyd.codecs.translation.translation_notes import Note
from proxyd.config.routes import Pricing
from proxyd.redaction import redacted
from proxyd.store.virtual_keys import VirtualKey
from proxyd.telemetry.call_trace import CallTrace

__all__ = ["MAX_MODEL_CHARS", "UPSTREAM_TEXTS", "CallRecord", "masked_texts", "new_id"]

#: With a glob as alias, a client may ask for a model by a name of any length.
MAX_MODEL_CHARS = 200

_ALPHABET = string.ascii_letters + string.digits
#: The characters of random bytes. 256 is no multiple of 62, which makes the first eight slightly more frequent.
_CHARACTERS = "".join(_ALPHABET[byte % len(_ALPHABET)] for byte in range(256)).encode()


def new_id(prefix: str, length: int = 24) -> str:
    """Create a random id, of 22 characters for requests and 24 elsewhere, as the Anthropic API has them.

    See docs/spec/operations.md#f2.
    """
    return prefix + secrets.token_bytes(length).translate(_CHARACTERS).decode()


#: Texts that come from the client. They are masked when the record is made, and not set later.
_CLIENT_TEXTS = ("model", "session_id", "agent_id", "agent_type", "prompt_id", "client_request_id")
#: Texts that come from upstreams while the call lasts. They are masked when it ends.
UPSTREAM_TEXTS = (
    "upstream_request_id",
    "response_model",
    "address",
    "error_type",
    "error",
    "stop_reason",
)


def masked_texts(record: CallRecord, names: Sequence[str]) -> dict[str, str]:
    """Return those fields of `record` that hold a key, masked; all that have a text if one does."""
    texts = {name: text for name in names if (text := getattr(record, name))}
    joined = "\n".join(texts.values())
    if redacted(joined) == joined:
        return {}
    return {name: redacted(text) for name, text in texts.items()}


@dataclass(slots=True)
class CallRecord:
    """The counters, times and names of one call. Times are of the monotonic clock; `started_at` is Unix time.

    Attributes:
        model: what the client asked for, its first `MAX_MODEL_CHARS` characters; `route` is the entry that served it,
            `fallback_from` the entry that was chosen first.
        response_model: the model that has responded, as the upstream names it.
        kind: the purpose of the call, one of `proxyd.telemetry.request_kind.KINDS`.
        outcome: ``ok``; ``refused`` (an error status); ``failed`` (an error after the stream had begun);
            ``client_gone``; ``crashed`` (a bug of ours); ``running`` until then.
        address: the URL of the last attempt, without credentials and values of the query.
        usage: as the upstream reported it, or estimated where the response ended before it did.
        estimated_input_tokens: our own count before the call, not calibrated; None where it was not needed.
        estimated_tool_tokens: the part of it that is tool definitions.
        output_so_far: while a response streams, returns its approximate number of tokens up to now.
        prompt_blocks: checksums, see `proxyd.telemetry.cache_breaks`; only of calls that belong to a session.
        rule: the rule of models.yaml that chose the route; None where the client's choice holds.
        agent_type, prompt_id: from the client's hint headers: the type of a subagent; an id that all calls for one
            prompt of the user share.
        served_with: short name of the key, of an entry with several (`proxyd.proxy.key_pools`).
        virtual_key: the proxy's own key that the client has sent; `caller` and `team` are its names.
        client_address: of a client on another machine.
        safeguards: the results of auto mode's check in a few words; None where there was none.
        alterations: what the translation of the request dropped or changed, and why.
        codec_s: seconds spent on turning the upstream's bytes into the client's.
        trace: what a record of the call may need (`proxyd.recording.recorder`); None where it is not to be recorded.
        outline: a trace without chunks and bodies, of a finished call that is not to be recorded.
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
    response_model: str | None = None
    address: str | None = None
    status: int = 0
    outcome: str = "running"
    error_type: str | None = None
    error: str | None = None
    stop_reason: str | None = None
    usage: Usage = field(default_factory=Usage)
    estimated_input_tokens: int | None = None
    estimated_tool_tokens: int = 0
    retries: int = 0
    events: int = 0
    output_so_far: Callable[[], int] | None = None
    codec_s: float = 0.0
    trace: CallTrace | None = None
    outline: CallTrace | None = None
    prompt_blocks: Sequence[int] = ()
    rule: str | None = None
    agent_type: str | None = None
    prompt_id: str | None = None
    served_with: str | None = None
    virtual_key: VirtualKey | None = None
    client_address: str | None = None
    safeguards: str | None = None
    alterations: Sequence[Note] = ()
    bytes_in: int = 0
    bytes_out: int = 0
    started_at: float = field(default_factory=time)
    begun: float = field(default_factory=monotonic)
    first_byte: float | None = None
    ended: float | None = None

    def __post_init__(self) -> None:
        self.model = self.model[:MAX_MODEL_CHARS]
        for name, value in masked_texts(self, _CLIENT_TEXTS).items():
            setattr(self, name, value)

    @property
    def caller(self) -> str | None:
        return None if self.virtual_key is None else self.virtual_key.name

    @property
    def team(self) -> str | None:
        return None if self.virtual_key is None else self.virtual_key.team

    def on_chunk(self, data: bytes) -> None:
        """The upstream has sent `data`."""
        if self.trace is not None:
            self.trace.on_chunk(data)

    def on_written(self, data: bytes) -> None:
        """The client has been sent `data`."""
        self.bytes_out += len(data)
        if self.trace is not None:
            self.trace.on_written(data)

    def on_first_byte(self) -> None:
        """The first byte of the response is written to the client."""
        if self.first_byte is None:
            self.first_byte = monotonic()

    @property
    def ttfb_s(self) -> float | None:
        return None if self.first_byte is None else self.first_byte - self.begun

    @property
    def duration_s(self) -> float:
        return (self.ended or monotonic()) - self.begun
