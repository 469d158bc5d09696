"""Stream transcripts: what an upstream sent, and what the client must be given for it.

In ``tests/transcripts/<profile>/``, ``<case>.sse`` is what came from the upstream, byte for byte, whether it is an
event stream or not. ``<case>.expected.sse`` is the stream that the client must see; ``<case>.expected.json`` stands in
its place where the call must be refused before a stream begins, and holds ``status`` and ``body``.
``<case>.options.json``, where present, holds what else matters: ``model_name`` and ``quirks`` of the entry in
models.yaml, and ``request``, fields of the client's request. A README beside them says where each came from and what
is odd about it.

New ids are counted in expectations, where the daemon would draw them at random.

``python -m tests.support.goldens_streams`` rewrites the expectations; review the difference like code.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import Any

from proxyd import errors
from proxyd.codecs.anthropic.events import encode_event
from proxyd.codecs.openai.request import run_to_end
from proxyd.codecs.openai.response_decoder import ResponseDecoder
from proxyd.config.routes import ModelRoute
from proxyd.errors import ProxyError
from proxyd.providers.base import CallTimeouts, ClientKeys
from proxyd.providers.openai_request import TranslatedCall, prepare
from tests.support.paths import TRANSCRIPTS

__all__ = ["ROOT", "Case", "Outcome", "cases", "load", "play"]

ROOT = TRANSCRIPTS

#: Anything on loopback: these routes are never called.
_NOWHERE = "http://127.0.0.1:9/v1"


@dataclass(frozen=True)
class Case:
    """One transcript; `name` is ``profile/case``."""

    name: str
    upstream: bytes = field(repr=False)
    model_name: str
    quirks: dict[str, Any]
    request: dict[str, Any]
    _numbers: list[int] = field(default_factory=lambda: [0], repr=False)

    @property
    def profile(self) -> str:
        return self.name.split("/")[0]

    def payload(self, model: str = "golden") -> dict[str, Any]:
        """The client's request."""
        payload = {"max_tokens": 1024, "messages": [{"role": "user", "content": "Go on."}]}
        return {"model": model, "stream": True, **payload, **self.request}

    def new_decoder(self) -> ResponseDecoder:
        """A reader as the daemon would make it, with ids that are counted from 1."""
        self._numbers[:] = [0]
        return self._call.new_decoder()

    def _new_id(self, prefix: str) -> str:
        self._numbers[0] += 1
        return f"{prefix}{self._numbers[0]:024}"

    @cached_property
    def _call(self) -> TranslatedCall:
        route = ModelRoute(
            model_id="golden",
            api_base=_NOWHERE,
            model_name=self.model_name,
            provider=self.profile,
            quirks=self.quirks,
        )
        steps = prepare(
            route,
            _NOWHERE,
            self.payload(),
            ClientKeys(),
            timeouts=CallTimeouts(),
            new_id=self._new_id,
            warn=lambda oddity: None,
            max_body_bytes=1 << 24,
        )
        return run_to_end(steps)


@dataclass(frozen=True)
class Outcome:
    """What the client gets: a stream, or a refusal."""

    stream: bytes = b""
    refusal: dict[str, Any] | None = None


def cases() -> list[str]:
    """All transcripts as ``profile/case``."""
    names = (str(path.relative_to(ROOT)).removesuffix(".sse") for path in ROOT.glob("*/*.sse"))
    return sorted(name for name in names if not name.endswith(".expected"))


@cache
def load(name: str) -> Case:
    options_file = ROOT / f"{name}.options.json"
    options = json.loads(options_file.read_text("utf-8")) if options_file.exists() else {}
    unknown = options.keys() - {"model_name", "quirks", "request"}
    assert not unknown, f"{options_file}: unknown keys {unknown}"
    return Case(
        name,
        (ROOT / f"{name}.sse").read_bytes(),
        options.get("model_name", "m"),
        options.get("quirks", {}),
        options.get("request", {}),
    )


def play(answer: ResponseDecoder, chunks: Iterable[bytes], *, joins_deltas: bool = True) -> Outcome:
    """What the client gets when the upstream's bytes come in these chunks."""
    answer.joins_deltas = joins_deltas
    made = []
    try:
        for chunk in chunks:
            made.append(b"".join(map(encode_event, answer.feed(chunk))))
            if answer.has_ended:
                break
        else:
            made.append(b"".join(map(encode_event, answer.close())))
    except ProxyError as exc:
        assert not any(made), "a stream that has begun must end in an event"
        return Outcome(refusal={"status": errors.error_response(exc)[0], "body": errors.envelope(exc)})
    return Outcome(stream=b"".join(made))


def expected(name: str) -> Outcome:
    """The stored expectation."""
    stream, refusal = ROOT / f"{name}.expected.sse", ROOT / f"{name}.expected.json"
    assert stream.exists() != refusal.exists(), f"{name}: expected one of {stream.name} and {refusal.name}"
    if stream.exists():
        return Outcome(stream=stream.read_bytes())
    return Outcome(refusal=json.loads(refusal.read_text("utf-8")))


def write(name: str, outcome: Outcome) -> bool:
    """Store an expectation; whether it differs from the one before."""
    stream, refusal = ROOT / f"{name}.expected.sse", ROOT / f"{name}.expected.json"
    if outcome.refusal is None:
        wanted, other, data = stream, refusal, outcome.stream
    else:
        wanted, other = refusal, stream
        data = json.dumps(outcome.refusal, ensure_ascii=False, indent=1).encode() + b"\n"
    is_new = other.exists() or not wanted.exists() or wanted.read_bytes() != data
    other.unlink(missing_ok=True)
    wanted.write_bytes(data)
    return is_new


if __name__ == "__main__":
    for each in cases():
        case = load(each)
        if write(each, play(case.new_decoder(), [case.upstream])):
            print(f"rewritten: {each}")
