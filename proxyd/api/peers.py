"""The other workers of this daemon, asked over sockets of their own, so that any of them can answer for all.

A request for the page's data, metrics or status is answered by the worker that gets it; this asks the others the same
and merges what they say. One that does not answer in time is left out: it has ended, or is about to be started again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from proxyd import jsonio
from proxyd.api import merging
from proxyd.api.request_keys import IS_PEER
from proxyd.config.paths import replace_private_file
from proxyd.proxy.client_request import PREFIX

__all__ = ["Peers"]

_ANSWER_S = 3.0
#: Before a feed that has ended is asked for again.
_RETRY_S = 1.0
#: Calls of a feed that are shown at its start, as in `proxyd.telemetry.live_feed`.
_RECENT = 200
#: Of the file in which a worker keeps what it has counted.
_COUNTS = ".counts"
_SERVING = """\
# HELP proxyd_workers Workers that serve calls
# TYPE proxyd_workers gauge
proxyd_workers {}
"""
#: Headers that a client needs for the answer.
_CREDENTIALS = ("authorization", "x-api-key", "x-claude-proxy-token")

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_MERGERS: dict[str, Callable[[Sequence[dict[str, Any]]], dict[str, Any]]] = {
    "/readyz": merging.merge_about,
    "/v1/stats": merging.merge_stats,
    "/test-connection": merging.merge_connection,
}
_CALL = "/v1/calls/"


class Peers:
    """The other workers.

    Args:
        own: the socket of this worker.
        others: those of the others.
    """

    def __init__(self, own: Path, others: Sequence[Path]) -> None:
        self._own = str(own)
        self._counts = own.with_suffix(_COUNTS)
        self._before: str | None = None
        self._keeping = asyncio.Lock()
        self._others = tuple(others)

    @property
    def middleware(self) -> Any:
        """The middleware that adds what the others say to the answers of this worker."""

        @web.middleware
        async def ask_all(request: web.Request, handler: Handler) -> web.StreamResponse:
            path = request.path.removeprefix(PREFIX)
            response = await handler(request)
            if request.get(IS_PEER, False):
                if path == "/metrics" and isinstance(response, web.Response) and response.status == 200:
                    response.body = (await self._with_counts_before(_text_of(response))).encode()
                return response
            if not isinstance(response, web.Response) or response.status != 200:
                return response
            if path == "/metrics":
                response.body = (await self._metrics(_text_of(response), request)).encode()
                return response
            merge = merging.merge_call if path.startswith(_CALL) else _MERGERS.get(path)
            if merge is None or (path == "/readyz" and "verbose" not in request.query):
                return response
            own = jsonio.loads(_text_of(response).encode())
            if path == "/readyz" and "worker" not in own:
                return response  # it says so little to whoever asked
            answers = [own, *(jsonio.loads(each.encode()) for each in await self._ask(request))]
            response.body = jsonio.dumps(merge(answers))
            return response

        return ask_all

    def is_peer(self, request: web.BaseRequest) -> bool:
        """Return whether a request comes from another worker."""
        transport = request.transport
        return transport is not None and transport.get_extra_info("sockname") == self._own

    async def _ask(self, request: web.Request) -> list[str]:
        """Return the bodies of those that answer."""
        return [each for each in await self._answers(request) if each is not None]

    async def _answers(self, request: web.Request) -> list[str | None]:
        return await asyncio.gather(*(self._answer(each, request) for each in self._others))

    async def _metrics(self, own: str, request: web.Request) -> str:
        """Return the metrics of all. Of one that does not answer, what it has counted is what it said last."""
        texts, serving = [await self._with_counts_before(own)], 1
        for peer, answer in zip(self._others, await self._answers(request), strict=True):
            if answer is None:
                texts.append(await asyncio.to_thread(_read, peer.with_suffix(_COUNTS)))
            else:
                texts.append(answer)
                serving += 1
        # In a thread, since those of two hundred routes are ten thousand lines.
        return await asyncio.to_thread(merging.merge_metrics, [*texts, _SERVING.format(float(serving))])

    async def _with_counts_before(self, own: str) -> str:
        """Add what the worker had counted that was here before this one, and keep the sum for one after it.

        What a scrape has seen is kept, so that counters never fall when a worker ends.
        """
        async with self._keeping:
            if self._before is None:
                self._before = await asyncio.to_thread(_read, self._counts)
            return await asyncio.to_thread(self._keep_counts, own, self._before)

    def _keep_counts(self, own: str, before: str) -> str:
        whole = merging.merge_metrics([own, before])
        replace_private_file(self._counts, merging.counts_in(whole).encode())
        return whole

    async def _answer(self, peer: Path, request: web.Request) -> str | None:
        try:
            async with (
                _session(peer, _ANSWER_S) as session,
                session.get(f"http://localhost{request.rel_url}", headers=_credentials(request)) as response,
            ):
                return await response.text() if response.status == 200 else None
        except (aiohttp.ClientError, OSError, asyncio.TimeoutError):
            return None

    # -- the feed

    async def listen(
        self, own: AsyncGenerator[bytes, None], request: web.Request
    ) -> AsyncGenerator[bytes, None]:
        """Yield the messages of a feed of all workers; `own` is that of this one."""
        if request.get(IS_PEER, False):
            try:
                async for message in own:
                    yield message
            finally:
                await own.aclose()
            return
        queue: asyncio.Queue[tuple[int, str, dict[str, Any]] | None] = asyncio.Queue(maxsize=1000)
        tasks = [asyncio.ensure_future(_read_own(own, queue))]
        tasks += [
            asyncio.ensure_future(self._read(number, each, request, queue))
            for number, each in enumerate(self._others, 1)
        ]
        latest: dict[int, dict[str, Any]] = {}
        try:
            begun = await self._begin(queue, latest)
            if begun is not None:
                yield _message("hello", begun)
            while (item := await queue.get()) is not None:
                number, event, data = item
                if event == "call":
                    yield _message("call", data)
                elif event == "gone":
                    latest.pop(number, None)
                else:
                    latest[number] = data
                    if number == 0:
                        yield _message("active", _now(latest))
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _begin(
        self, queue: asyncio.Queue[Any], latest: dict[int, dict[str, Any]]
    ) -> dict[str, Any] | None:
        """Collect the first message of all; return the hello of all, or None at the end of the own feed."""
        deadline = asyncio.get_running_loop().time() + _ANSWER_S
        answered: set[int] = set()
        hello: dict[str, Any] = {}
        recent: list[dict[str, Any]] = []
        while len(answered) <= len(self._others) or not hello:
            left_s = deadline - asyncio.get_running_loop().time()
            try:
                item = await asyncio.wait_for(queue.get(), left_s if hello else None)
            except asyncio.TimeoutError:
                break
            if item is None:
                return None
            number, event, data = item
            answered.add(number)
            if event == "call":
                recent.append(data)
            elif event != "gone":
                latest[number] = data
                recent += data.get("recent", ())
                if number == 0 and event == "hello":
                    hello = data
        recent.sort(key=lambda each: each["started_at"] + (each["duration_ms"] or 0) / 1000)
        started_at = min(each.get("started_at", hello["started_at"]) for each in latest.values())
        return {**hello, **_now(latest), "started_at": started_at, "recent": recent[-_RECENT:]}

    async def _read(self, number: int, peer: Path, request: web.Request, queue: asyncio.Queue[Any]) -> None:
        """Read the feed of another worker, again whenever it ends."""
        while True:
            try:
                async with (
                    _session(peer, None) as session,
                    session.get("http://localhost/events", headers=_credentials(request)) as response,
                ):
                    if response.status == 200:
                        async for event, data in _messages(response.content):
                            await queue.put((number, event, data))
            except (aiohttp.ClientError, OSError, asyncio.TimeoutError):
                pass
            await queue.put((number, "gone", {}))
            await asyncio.sleep(_RETRY_S)


async def _read_own(own: AsyncGenerator[bytes, None], queue: asyncio.Queue[Any]) -> None:
    async for message in own:
        event, data = _parsed(message)
        await queue.put((0, event, data))
    await queue.put(None)


async def _messages(content: aiohttp.StreamReader) -> AsyncGenerator[tuple[str, dict[str, Any]], None]:
    waiting = b""
    async for chunk in content.iter_any():
        *whole, waiting = (waiting + chunk).split(b"\n\n")
        for each in whole:
            yield _parsed(each)


def _parsed(message: bytes) -> tuple[str, dict[str, Any]]:
    head, _, data = message.strip().partition(b"\n")
    return head.removeprefix(b"event: ").decode(), jsonio.loads(data.removeprefix(b"data: "))


def _now(latest: dict[int, dict[str, Any]]) -> dict[str, Any]:
    own = latest[0]
    return {
        "now": own["now"],
        "is_draining": own["is_draining"],
        "totals": merging.merge_totals(each["totals"] for each in latest.values()),
        "active": [call for each in latest.values() for call in each["active"]],
    }


def _message(event: str, data: dict[str, Any]) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (event.encode(), jsonio.dumps(data))


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except FileNotFoundError:
        return ""


def _text_of(response: web.Response) -> str:
    body = response.body
    assert isinstance(body, bytes), "these handlers return whole bodies"
    return body.decode()


def _session(peer: Path, total_s: float | None) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=aiohttp.UnixConnector(path=str(peer)),
        timeout=aiohttp.ClientTimeout(total=total_s, sock_connect=_ANSWER_S),
        read_bufsize=1 << 20,
    )


def _credentials(request: web.Request) -> dict[str, str]:
    return {name: request.headers[name] for name in _CREDENTIALS if name in request.headers}
