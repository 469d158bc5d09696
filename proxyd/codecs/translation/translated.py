"""What every translation of a request takes and gives: options of the route, and the upstream request."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from proxyd.codecs.cache.tools import SystemPrompt
from proxyd.codecs.translation.tools import Tools
from proxyd.codecs.translation.translation_notes import Note
from proxyd.codecs.wire import large_json

__all__ = ["PLACEHOLDER", "RequestOptions", "Translated", "hex_digest", "merge", "run_to_end", "with_literal"]

#: Stands for a text whose JSON is known; no string of a request can contain it.
PLACEHOLDER = "\0"

_T = TypeVar("_T")


def _nothing_is_refused(data: str) -> bool:
    return False


@dataclass(slots=True)
class RequestOptions:
    """The route's configuration (docs/spec/design.md#models-yaml).

    Args:
        model: the upstream's name of the model.
        stream: whether to request a stream, whatever the client requested.
        max_tokens: upper limit of the request's.
        temperature: overrides the request's, as `top_p` does.
        reasoning_effort: ``minimal`` and ``none`` mean no thinking.
        vision: None means as the dialect says.
        extra_body: deep-merged into the body at the end.
        session_id: Claude Code's, for upstreams that route their cache by it.
        is_refused: whether the upstream has refused these signed data of earlier turns, which are left out then.
        signed_as: the ``m`` of the model's signatures; empty where that is `model`.
    """

    model: str
    stream: bool
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    reasoning_effort: str | None = None
    vision: bool | None = None
    extra_body: Mapping[str, Any] = field(default_factory=dict)
    session_id: str | None = None
    is_refused: Callable[[str], bool] = _nothing_is_refused
    signed_as: str = ""

    @property
    def signer(self) -> str:
        """The ``m`` of signatures that this model can read."""
        return self.signed_as or self.model


@dataclass(slots=True)
class Translated(ABC):
    """The upstream request, of one dialect.

    Args:
        body: the request to send, see `written`.
        tools: their ``offered`` may be shared with other requests.
        notes: what was dropped or altered and why; never content.
        tool_ids: the client's ids of all tool calls in the history.
        input_tokens: `estimate_input_tokens` of the client's request.
        system: the cached system prompt, if it is known.
        max_tokens: the output limit as it is sent.
    """

    body: dict[str, Any]
    tools: Tools
    notes: tuple[Note, ...]
    tool_ids: Collection[str] = ()
    input_tokens: int = 1
    system: SystemPrompt | None = None
    max_tokens: int | None = None

    @property
    def tool_names(self) -> dict[str, str]:
        """Upstream name -> the client's name, only for altered names."""
        return self.tools.names

    @abstractmethod
    def written(self) -> bytes:
        """Serialise `body`.

        Raises:
            JSONError: it holds NaN or Infinity.
        """

    def written_in_pieces(self) -> bytes:
        """Serialise the `body` of a large request, by many short calls.

        Raises:
            JSONError: as `written`.
        """
        return large_json.dumps(self.body)


def run_to_end(steps: Generator[None, None, _T]) -> _T:
    """Run a generator to its end and return its result."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: _T = end.value
            return result


def with_literal(written: bytes, member: str, literal: bytes) -> tuple[memoryview, bytes, memoryview]:
    """Return `written`, JSON in which `PLACEHOLDER` is the value of one `member`, with `literal` in its place."""
    name = b'"%b":' % member.encode()
    found = name + b'"\\u0000"'
    at, view = written.index(found), memoryview(written)  # no copy
    return view[:at], name + literal, view[at + len(found) :]


def hex_digest(text: str) -> str:
    """Return 64 characters that identify a text without revealing it."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def merge(body: Mapping[str, Any], extra: Mapping[str, Any]) -> dict[str, Any]:
    """Merge `extra` into a copy of `body`, objects member by member; the result shares no object with `extra`."""
    merged = dict(body)
    for key, value in extra.items():
        if isinstance(value, Mapping):
            present = merged.get(key)
            value = merge(present if isinstance(present, Mapping) else {}, value)
        merged[key] = value
    return merged
