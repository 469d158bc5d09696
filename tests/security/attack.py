"""``python -m tests.security.attack [SECONDS]``: 200 clients, and upstreams that speak out of turn, for ten minutes.

In a round each client makes 20 calls, with a key and with markers of its own; some calls go by entries whose key is
configured, so that all clients share their connections. The upstreams echo the markers. Between the responses that are
due they send others: while a connection idles, behind or ahead of a response, before they have read the whole request,
late; or rubbish, a farewell, nothing more. Checked of each response:

- no marker of another client is in it, nor anything that nobody asked for;
- one that is whole is the one to its own request.

The one thing that can't be distinguished from a response is an earlier one that an upstream sends once more after it
has got the next request. It may reach the same key (``own, sent too late``), and no other.

It stops by itself, prints its figures, and exits with 1 if anything was not so.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import select
import shutil
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.certificates import make_certificate, server_context
from tests.support.daemon_process import Process, process
from tests.support.raw_sockets import RawClient, RawResponse, RawUpstream, post
from tests.support.servers import stop_accepting

__all__ = ["Report", "attack"]

CLIENTS, CALLS = 200, 20
DEFAULT_S = 600.0
#: One response, however busy the machine is.
RESPONSE_BOUND_S = 60.0
#: An upstream's system receives little more than this, and TLS another 256 KiB, of a request that is not read. One that
#: speaks ahead of more than `AHEAD_BYTES` does so before all of the request can have been there.
RECEIVE_BYTES, AHEAD_BYTES = 32 * 1024, 700_000
SHARED_KEY = "sk-shared-0123456789abcdef"
SETTINGS = {"max_retries": 0, "circuit_failures": 0, "max_streams": 1000, "max_idle_per_peer": 1000}

_MARKER = re.compile(rb"MK(\d+)x(\d+)x(\d+)KM")
UNASKED = b"UNASKED"
FAREWELL = b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n"
RUBBISH = b"\0\1rubbish\r\n\r\n"

#: What an upstream does with a request, and how often.
DEEDS = {
    "respond": 40,
    "speak while idle": 20,
    "respond twice": 6,
    "respond twice, late": 6,
    "speak ahead of the body": 12,
    "bring no stream": 5,
    "close": 5,
    "reset": 4,
    "cut": 4,
    "add rubbish": 2,
}


@dataclass
class Report:
    """What a campaign has seen.

    Attributes:
        outcomes: of the calls.
        deeds: of the upstreams.
        faults: what must not be.
    """

    outcomes: Counter[str] = field(default_factory=Counter)
    deeds: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [
            f"calls: {self.outcomes.total()}",
            *(f"  {count:7} {name}" for name, count in self.outcomes.most_common()),
            "upstreams:",
            *(f"  {count:7} {name}" for name, count in self.deeds.most_common()),
            f"faults: {len(self.faults)}",
            *(f"  {fault}" for fault in self.faults[:20]),
        ]
        return "\n".join(lines)


def _is_stream(request: bytes) -> bool:
    # It stands at either end of the body, which may be long.
    return any(b'"stream":true' in part.replace(b" ", b"") for part in (request[:2000], request[-2000:]))


def _response(text: str, *, direct: bool, is_stream: bool) -> bytes:
    """A whole response that says `text`."""
    usage = {"input_tokens": 1, "output_tokens": 1}
    message = {"id": "m", "type": "message", "role": "assistant", "model": "m", "content": []}
    if is_stream and direct:
        start = {**message, "usage": usage}
        events: list[dict[str, Any]] = [
            {"type": "message_start", "message": start},
            {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
            {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}},
            {"type": "content_block_stop", "index": 0},
            {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": usage},
            {"type": "message_stop"},
        ]
        body = b"".join(
            b"event: %s\ndata: %s\n\n" % (e["type"].encode(), json.dumps(e).encode()) for e in events
        )
    elif is_stream:
        choices = [
            {"index": 0, "delta": {"role": "assistant", "content": text}},
            {"index": 0, "delta": {}, "finish_reason": "stop"},
        ]
        body = b"".join(
            b"data: %s\n\n" % json.dumps({"id": "c", "choices": [each]}).encode() for each in choices
        )
        body += b"data: [DONE]\n\n"
    elif direct:
        whole = {
            **message,
            "content": [{"type": "text", "text": text}],
            "stop_reason": "end_turn",
            "usage": usage,
        }
        body = json.dumps(whole).encode()
    else:
        choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        body = json.dumps({"id": "c", "choices": [choice]}).encode()
    if is_stream:
        head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        return head + b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (
        len(body),
        body,
    )


class WildUpstream(RawUpstream):
    """An upstream that speaks out of turn."""

    def __init__(self, report: Report, draw: random.Random, **more: Any) -> None:
        super().__init__(lambda _: (), **more)
        self.report = report
        self.draw = draw

    @asynccontextmanager
    async def running(self) -> AsyncIterator[WildUpstream]:
        connections: set[_Connection] = set()
        loop = asyncio.get_running_loop()
        listening = socket.create_server(("127.0.0.1", 0), backlog=1000)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BYTES)
        self.port = listening.getsockname()[1]
        server = await loop.create_server(
            lambda: _Connection(self, connections), sock=listening, ssl=self.tls
        )
        try:
            yield self
        finally:
            await stop_accepting(*server.sockets)
            server.close()
            for connection in list(connections):
                connection.abort()
            await server.wait_closed()


class _Connection(asyncio.Protocol):
    def __init__(self, upstream: WildUpstream, connections: set[_Connection]) -> None:
        self._upstream = upstream
        self._connections = connections
        self._transport: Any = None
        self._received = bytearray()
        self._timer: asyncio.TimerHandle | None = None
        self._last = b""  # response, and what it was to
        self._repeats = False  # the last response, once the next request is there
        self._has_spoken_ahead = False

    def abort(self) -> None:
        self._disarm()
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        self._connections.discard(self)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def data_received(self, data: bytes) -> None:
        self._disarm()
        self._received += data
        end = self._received.find(b"\r\n\r\n") + 4
        if end < 4:
            return
        head = bytes(self._received[:end])
        length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
        if len(self._received) < end + length:
            # Its system must not come to have all of the request: see `RECEIVE_BYTES`.
            missing = end + length - len(self._received)
            if (
                missing > AHEAD_BYTES
                and not self._has_spoken_ahead
                and self._draw() == "speak ahead of the body"
            ):
                self._has_spoken_ahead = True
                self._note("spoke ahead of the body")
                self._transport.pause_reading()
                self._timer = asyncio.get_running_loop().call_later(5.0, self._transport.abort)
                self._transport.write(self._unasked(b"/v1/messages" in head))
            return
        body = bytes(self._received[end : end + length])
        self._received.clear()
        self._has_spoken_ahead = False
        self._respond(head, body)

    def _draw(self) -> str:
        return self._upstream.draw.choices(list(DEEDS), list(DEEDS.values()))[0]

    def _note(self, deed: str) -> None:
        self._upstream.report.deeds[deed] += 1

    def _unasked(self, direct: bool) -> bytes:
        draw = self._upstream.draw
        if self._last and draw.random() < 0.5:
            return self._last  # somebody's, once more
        return _response(UNASKED.decode(), direct=direct, is_stream=draw.random() < 0.5)

    def _respond(self, head: bytes, body: bytes) -> None:
        marker = _MARKER.search(body)
        if marker is None:
            self._transport.abort()
            return
        direct, is_stream = b" /v1/messages" in head.partition(b"\r\n")[0], _is_stream(body)
        text = marker[0].decode()
        whole = _response(text, direct=direct, is_stream=is_stream)
        if self._repeats:
            self._transport.write(self._last)
        self._repeats = False
        deed = self._draw()
        if deed == "respond twice, late" and SHARED_KEY.encode() in head:
            deed = "respond"  # see the module
        if deed not in ("speak while idle", "speak ahead of the body"):
            self._note(deed)  # those two come later, or came before
        write = self._transport.write
        if deed == "respond twice":
            write(whole + self._unasked(direct))
        elif deed == "bring no stream":
            write(_response(text, direct=direct, is_stream=False))
        elif deed == "cut":
            write(whole[: len(whole) * 2 // 3])
            self._transport.close()
        elif deed == "add rubbish":
            write(whole + RUBBISH)
        else:
            write(whole)
        if deed == "close":
            self._transport.close()
        elif deed == "reset":
            self._timer = asyncio.get_running_loop().call_later(0.005, self._transport.abort)
        elif deed == "respond twice, late":
            self._repeats = True
        elif deed == "speak while idle":
            delay_s = self._upstream.draw.choice((0.0, 0.001, 0.003, 0.01, 0.05))
            self._timer = asyncio.get_running_loop().call_later(delay_s, self._speak_while_idle, direct)
        self._last = whole

    def _speak_while_idle(self, direct: bool) -> None:
        self._timer = None
        connection = self._transport.get_extra_info("socket")
        if connection is None or connection.fileno() < 0:
            return  # it has just ended
        looks = select.poll()
        looks.register(connection.fileno(), select.POLLIN)
        if self._received or looks.poll(0):
            return  # it does not idle
        self._note("spoke while idle")
        self._transport.write(self._upstream.draw.choice((self._unasked(direct), FAREWELL, RUBBISH)))


@dataclass
class _Client:
    """One client and its calls."""

    number: int
    round: int
    base: str
    models: list[str]
    report: Report
    draw: random.Random

    async def run(self, until: float) -> None:
        for call in range(CALLS):
            if time.monotonic() > until:
                return
            await self._call(call)

    async def _call(self, call: int) -> None:
        draw = self.draw
        model = draw.choice(self.models)
        marker = f"MK{self.number}x{call}x{self.round}KM"
        filler = 'x\\"y' * draw.choices((0, 500, 20_000, 250_000), (60, 30, 8, 2))[0]
        payload = {
            "model": model,
            "max_tokens": 9,
            "stream": draw.random() < 0.6,
            "messages": [{"role": "user", "content": f"{marker} {filler}"}],
        }
        request = post(payload, f"X-Api-Key: sk-client-{self.number:06}-{'k' * 10}")
        async with RawClient.to(self.base) as client:
            await client.send(request)
            if draw.random() < 0.1:
                await asyncio.sleep(draw.choice((0.0, 0.002, 0.02)))
                self.report.outcomes["left by the client"] += 1
                return
            try:
                response = await client.response(RESPONSE_BOUND_S)
            except (asyncio.IncompleteReadError, ConnectionError):
                self.report.outcomes["cut"] += 1
                return
            except asyncio.TimeoutError:
                self.report.faults.append(f"{marker} by {model}: no response in {RESPONSE_BOUND_S:g} s")
                return
        self._judge(marker, model, call, response)

    def _judge(self, marker: str, model: str, call: int, response: RawResponse) -> None:
        report, body = self.report, response.body
        seen = {tuple(map(int, found.groups())) for found in _MARKER.finditer(body)}
        own = (self.number, call, self.round)
        foreign = {each for each in seen if (each[0], each[2]) != (self.number, self.round)}
        late = seen - foreign - {own}
        is_error = response.status != 200 or b"event: error" in body
        where = f"{marker} by {model}: status {response.status}"
        if foreign:
            report.faults.append(f"{where}, with the markers of others: {sorted(foreign)}")
        elif UNASKED in body:
            report.faults.append(f"{where}, which nobody asked for")
        elif late and model.startswith("shared"):
            report.faults.append(f"{where}, with the marker of an earlier call")
        elif late:
            report.outcomes["own, sent too late"] += 1
        elif is_error:
            report.outcomes["error" if own in seen else f"error {response.status}"] += 1
        elif own not in seen and response.is_whole:
            report.faults.append(f"{where}, without its marker: {body[:100]!r}")
        else:
            report.outcomes["whole" if response.is_whole else "cut"] += 1


async def attack(seconds: float, folder: Path, *, rounds: int | None = None, seed: int = 20) -> Report:
    """Run rounds until `seconds` are over, or `rounds` of them.

    Args:
        folder: for the daemon's files.
    """
    report, draw = Report(), random.Random(seed)
    ends = time.monotonic() + seconds
    async with AsyncExitStack() as stack:
        upstreams = [await stack.enter_async_context(WildUpstream(report, draw).running())]
        settings: dict[str, Any] = dict(SETTINGS)
        if shutil.which("openssl") is not None:
            key, certificate = make_certificate(folder)
            tls = server_context(key, certificate)
            upstreams.append(await stack.enter_async_context(WildUpstream(report, draw, tls=tls).running()))
            settings["ca_file"] = str(certificate)
        entries: list[dict[str, Any]] = [
            {
                "model_id": f"{kind}-{'direct' if direct else 'translated'}-{number}",
                "api_base": upstream.base if direct else f"{upstream.base}/v1",
                "direct": direct,
                **({"api_key": SHARED_KEY} if kind == "shared" else {}),
            }
            for number, upstream in enumerate(upstreams)
            for kind in ("own", "shared")
            for direct in (True, False)
        ]
        child: Process = await stack.enter_async_context(process(folder, upstreams[0], *entries, **settings))
        models = [entry["model_id"] for entry in entries]
        number = 0
        while time.monotonic() < ends and (rounds is None or number < rounds):
            clients = [
                _Client(
                    each,
                    number,
                    child.base,
                    models,
                    report,
                    random.Random(seed * 1000 + number * CLIENTS + each),
                )
                for each in range(CLIENTS)
            ]
            await asyncio.gather(*(client.run(ends) for client in clients))
            number += 1
        report.faults += [f"the log says {line}" for line in child.log("request.crashed")[:5]]
        report.faults += [f"the log says {line}" for line in child.log("library.log")[:5]]
    return report


def main() -> int:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else DEFAULT_S
    with tempfile.TemporaryDirectory() as folder:
        report = asyncio.run(attack(seconds, Path(folder), seed=random.randrange(1 << 30)))
    print(report)
    return 1 if report.faults else 0


if __name__ == "__main__":
    sys.exit(main())
