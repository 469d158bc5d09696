"""Calls through the balancer: an upstream that sends slowly, and clients that know what must come.

Each call has a number, which its request carries. Every part of its response has the number in it, so a response that
is cut, mixed with another one or sent twice is not the expected one.
"""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.support.raw_sockets import Pause, RawClient, RawResponse, RawUpstream, Step, post
from tests.support.streams import CHUNKED, DIRECT, HELLO, TRANSLATED, as_chunks, judge
from tests.system.cluster.balancer import REPLICA_HEADER

__all__ = ["MODES", "PRICING", "Call", "Traffic", "cost_usd"]

MODES = ("translated", "direct")
#: USD per million tokens, and what the upstream reports for each call.
PRICING = {"input": 3.0, "output": 15.0}
_INPUT_TOKENS, _OUTPUT_TOKENS = 100, 800
#: For a head, and for a whole response after it.
_BOUND_S = 90.0
#: A client tries again, as Claude Code does, when nothing of a response has come.
_TRIES, _RETRY_S = 20, 0.5


def cost_usd() -> float:
    """Return what one call costs."""
    return (_INPUT_TOKENS * PRICING["input"] + _OUTPUT_TOKENS * PRICING["output"]) / 1_000_000


@dataclass
class Call:
    """One request of a client and what came of it.

    Attributes:
        key: the name of the virtual key.
        replica: from which the response came; "" if it came from none.
        status: 0 without a response.
        outcome: ``whole``, ``broken``, ``refused`` (by a status) or ``closed`` (without a byte of a response).
        why: for ``broken``, what is wrong.
    """

    number: int
    key: str
    began_at: float
    replica: str = ""
    request_id: str = ""
    status: int = 0
    outcome: str = "closed"
    why: str = ""
    first_byte_s: float | None = None
    ended_at: float = 0.0

    @property
    def mode(self) -> str:
        return MODES[self.number % 2]


@dataclass
class Traffic:
    """All calls of one run.

    Attributes:
        chunks, pause_s: each response is so many deltas, with a pause before each.
        keys: the virtual keys by name.
        open: streams that have begun and not ended.
        given_up: calls that were tried in vain.
    """

    chunks: int
    pause_s: float
    keys: dict[str, str]
    calls: list[Call] = field(default_factory=list)
    open: int = 0
    most_open: int = 0
    given_up: list[Call] = field(default_factory=list)
    upstream: RawUpstream = field(init=False)
    _next: int = 0

    def __post_init__(self) -> None:
        self.upstream = RawUpstream(self._play)

    # -- the upstream

    def _play(self, request: int) -> Iterable[Step]:
        body, self.upstream.bodies[request], self.upstream.heads[request] = (
            self.upstream.bodies[request],
            b"",
            b"",
        )
        number = int(body.partition(b"call=")[2].partition(b"=")[0])
        begin, deltas, end = self._frames(number)
        yield CHUNKED + as_chunks(*begin)
        for each in deltas:
            yield Pause(self.pause_s)
            yield as_chunks(each)
        yield as_chunks(*end) + b"0\r\n\r\n"

    def _frames(self, number: int) -> tuple[list[bytes], list[bytes], list[bytes]]:
        frames = list((TRANSLATED if MODES[number % 2] == "translated" else DIRECT).values())
        deltas = [
            frames[4].replace(b"write it.", part.encode())
            for part in self._parts(number)[1:]  # the first is in the frame that begins the block
        ]
        begin = [*frames[:3], frames[3].replace(b"I will ", self._parts(number)[0].encode())]
        end = [
            each.replace(b'"prompt_tokens": 12, "completion_tokens": 3, "total_tokens": 15',
                         b'"prompt_tokens": %d, "completion_tokens": %d, "total_tokens": %d'
                         % (_INPUT_TOKENS, _OUTPUT_TOKENS, _INPUT_TOKENS + _OUTPUT_TOKENS))
            .replace(b'"usage": {"output_tokens": 3}', b'"usage": {"input_tokens": %d, "output_tokens": %d}'
                     % (_INPUT_TOKENS, _OUTPUT_TOKENS))
            for each in frames[5:]
        ]  # fmt: skip
        return begin, deltas, end

    def _parts(self, number: int) -> list[str]:
        return [f"<{number}.{place}>" for place in range(self.chunks + 1)]

    # -- the clients

    async def client(self, base: str, name: str, key: str, stop: asyncio.Event) -> None:
        """One conversation: a call after the other on one connection, until `stop`; begun again where it was closed."""
        session = str(uuid.uuid5(uuid.NAMESPACE_OID, name))
        while not stop.is_set():
            try:
                async with RawClient.to(base) as connection:
                    is_open = True
                    while is_open and not stop.is_set():
                        is_open = await self._call(connection, key, session)
            except OSError:
                await asyncio.sleep(_RETRY_S)

    async def once(self, base: str, key: str) -> Call:
        """Make one call on a connection of its own."""
        async with RawClient.to(base) as connection:
            call = self._new(key)
            await self._attempt(connection, call, str(uuid.uuid4()))
            return call

    async def _call(self, connection: RawClient, key: str, session: str) -> bool:
        """Make a call, and again until it begins or a limit is reached; return whether the connection is still open."""
        for _ in range(_TRIES):
            call = self._new(key)
            is_open = await self._attempt(connection, call, session)
            if call.outcome in ("whole", "broken"):
                return is_open
            await asyncio.sleep(_RETRY_S)
            if call.status == 429 or not is_open:
                return is_open
        self.given_up.append(call)
        return False

    def _new(self, key: str) -> Call:
        self._next += 1
        return Call(self._next, key, time.monotonic())

    async def _attempt(self, connection: RawClient, call: Call, session: str) -> bool:
        """Send a request and read what comes; return whether the connection is still open."""
        content = f"call={call.number}="
        request = post(
            {**HELLO, "model": call.mode, "messages": [{"role": "user", "content": content}]},
            f"Authorization: Bearer {self.keys[call.key]}",
            f"x-claude-code-session-id: {session}",
        )
        try:
            await connection.send(request)
            call.status, headers = await connection.head(_BOUND_S)
            call.first_byte_s = time.monotonic() - call.began_at
            call.replica = headers.get(REPLICA_HEADER, "")
            call.request_id = headers.get("request-id", "")
            with self._counted(is_stream=call.status == 200):
                response = await connection.rest(call.status, headers, _BOUND_S)
            call.why = self._fault(call.number, response)
            call.outcome = "refused" if call.status != 200 else "broken" if call.why else "whole"
            return response.is_whole and headers.get("connection", "").lower() != "close"
        except (OSError, asyncio.IncompleteReadError) as exc:
            call.why = type(exc).__name__
            return False
        except asyncio.TimeoutError:
            call.outcome, call.why = "broken", f"nothing more came within {_BOUND_S:g} s"
            return False
        finally:
            call.ended_at = time.monotonic()
            self.calls.append(call)

    @contextmanager
    def _counted(self, *, is_stream: bool) -> Iterator[None]:
        self.open += is_stream
        self.most_open = max(self.most_open, self.open)
        try:
            yield
        finally:
            self.open -= is_stream

    def _fault(self, number: int, response: RawResponse) -> str:
        """Say what is wrong with a response; "" for one that is whole and the right one."""
        if response.status != 200:
            return response.body.decode(errors="replace")[:200]
        if not response.is_whole:
            return f"cut after {len(response.body)} bytes"
        try:
            events = response.events()
            end = judge(events)
        except (AssertionError, ValueError, KeyError) as exc:
            return f"not a legal stream ({exc!r})"
        if end != "message_stop":
            return f"it ended in {json.dumps(events[-1][1]) if events else 'nothing'}"
        text = "".join(
            data["delta"].get("text", "") for name, data in events if name == "content_block_delta"
        )
        return "" if text == "".join(self._parts(number)) else f"it says {text[:200]!r}"
