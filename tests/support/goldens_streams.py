"""Stream transcripts: an upstream's response, and the client's.

In ``tests/transcripts/<profile>/``, and for other formats than Chat Completions in a folder of theirs, such as
``tests/transcripts/responses/<profile>/``, ``<case>.sse`` holds the bytes of the upstream, whether they are an event
stream or not. ``<case>.expected.sse`` is the client's stream, or ``<case>.expected.json`` the ``status`` and ``body``
of a call that must be refused before a stream begins. ``<case>.options.json``, if present, holds ``model_name`` and
``quirks`` of the entry in models.yaml, and ``request``, fields of the client's request. A README in each folder gives
the source of each case and its irregularity.

Expectations number new ids, where the daemon would draw them at random.

``python -m tests.support.goldens_streams`` rewrites the expectations; review the difference like code.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import Any

from proxyd import errors
from proxyd.codecs.formats import CHAT, FORMATS, Format
from proxyd.codecs.response_decoder import ResponseDecoder
from proxyd.codecs.translation.translated import run_to_end
from proxyd.config.routes import ModelRoute
from proxyd.errors import ProxyError
from proxyd.providers.base import CallTimeouts, ClientKeys
from proxyd.providers.translated_request import TranslatedCall, prepare
from tests.support.paths import TRANSCRIPTS

__all__ = ["ROOT", "Case", "Outcome", "cases", "load", "play"]

ROOT = TRANSCRIPTS

#: Folder of a format's transcripts -> its name.
_FORMATS = {each.folder: each.name for each in FORMATS.values()}

#: These routes are never called.
_UNUSED_BASE = "http://127.0.0.1:9/v1"


@dataclass(frozen=True)
class Case:
    """One transcript; `name` is its path below `ROOT`."""

    name: str
    upstream: bytes = field(repr=False)
    model_name: str
    quirks: dict[str, Any]
    request: dict[str, Any]
    _numbers: list[int] = field(default_factory=lambda: [0], repr=False)

    @property
    def profile(self) -> str:
        return self.name.split("/")[-2]

    @property
    def format(self) -> str:
        return _FORMATS[self.name.rpartition("/")[0].rpartition("/")[0]]

    def payload(self, model: str = "golden") -> dict[str, Any]:
        """The client's request."""
        payload = {"max_tokens": 1024, "messages": [{"role": "user", "content": "Go on."}]}
        return {"model": model, "stream": True, **payload, **self.request}

    def new_decoder(self) -> ResponseDecoder:
        """A decoder as in the daemon, but with ids numbered from 1."""
        self._numbers[:] = [0]
        return self._call.new_decoder()

    def _new_id(self, prefix: str) -> str:
        self._numbers[0] += 1
        return f"{prefix}{self._numbers[0]:024}"

    @cached_property
    def _call(self) -> TranslatedCall:
        route = ModelRoute(
            model_id="golden",
            api_base=_UNUSED_BASE,
            model_name=self.model_name,
            format=self.format,
            provider=self.profile,
            quirks=self.quirks,
        )
        steps = prepare(
            route,
            _UNUSED_BASE,
            self.payload(),
            ClientKeys(),
            timeouts=CallTimeouts(),
            new_id=self._new_id,
            warn=lambda name: None,
            max_body_bytes=1 << 24,
        )
        return run_to_end(steps)


@dataclass(frozen=True)
class Outcome:
    """The client's response: a stream, or a refusal."""

    stream: bytes = b""
    refusal: dict[str, Any] | None = None


def cases(chosen: Format = CHAT) -> list[str]:
    """The names of all transcripts of a format: their paths below `ROOT`."""
    pattern = f"{chosen.folder}/*/*.sse" if chosen.folder else "*/*.sse"
    names = (str(path.relative_to(ROOT)).removesuffix(".sse") for path in ROOT.glob(pattern))
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


def play(decoder: ResponseDecoder, chunks: Iterable[bytes]) -> Outcome:
    """The client's response to these chunks of the upstream."""
    written = []
    try:
        for chunk in chunks:
            written.append(decoder.feed(chunk))
            if decoder.has_ended:
                break
        else:
            written.append(decoder.close())
    except ProxyError as exc:
        assert not any(written), "a stream that has begun must end in an event"
        return Outcome(refusal={"status": errors.error_response(exc)[0], "body": errors.envelope(exc)})
    return Outcome(stream=b"".join(written))


def expected(name: str) -> Outcome:
    """Return the stored expectation."""
    stream, refusal = ROOT / f"{name}.expected.sse", ROOT / f"{name}.expected.json"
    assert stream.exists() != refusal.exists(), f"{name}: expected one of {stream.name} and {refusal.name}"
    if stream.exists():
        return Outcome(stream=stream.read_bytes())
    return Outcome(refusal=json.loads(refusal.read_text("utf-8")))


def write(name: str, outcome: Outcome) -> bool:
    """Store an expectation; returns whether it differs from the previous one."""
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
    for each in (name for chosen in FORMATS.values() for name in cases(chosen)):
        case = load(each)
        if write(each, play(case.new_decoder(), [case.upstream])):
            print(f"rewritten: {each}")
