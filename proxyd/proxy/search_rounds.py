"""The response to a request that offers web search among other tools: rounds of the model and searches between them.

::

    round 1   the model ─▶ text, a call of the search      the client gets server_tool_use
              the engine ─▶ results                        web_search_tool_result
    round 2   the model, with the results ─▶ text          the same message goes on
    …         until it calls no search, or calls a tool of the client's

Each round is a streamed call of the proxy's own; its events go to the client as they arrive.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any

from proxyd.codecs.anthropic.events import (
    BlockStart,
    BlockStop,
    ErrorEvent,
    MessageDelta,
    MessageStart,
    MessageStop,
    Ping,
    StreamEvent,
    message_start,
)
from proxyd.config.routes import ModelRoute
from proxyd.errors import Refused, Truncated
from proxyd.proxy.active_call import ActiveCall
from proxyd.proxy.inner_call import EventWriter
from proxyd.proxy.on_behalf import InnerCall
from proxyd.server_tools.web_search.among_tools import (
    OfferedSearch,
    error_block,
    result_block,
    use_block,
)
from proxyd.server_tools.web_search.blocks import result_blocks
from proxyd.server_tools.web_search.engines import Result, SearchFailed
from proxyd.server_tools.web_search.side_call import SearchCall
from proxyd.telemetry.call_record import new_id

__all__ = ["KIND", "SearchRounds"]

#: The kind of a round in the ledger.
KIND = "searching"


class SearchRounds:
    """Makes one response.

    Args:
        make_search: makes one search.
        make_call: makes a call of the proxy's own.
        commit_s: seconds without an event after which the response is begun nevertheless.
    """

    def __init__(
        self,
        offered: OfferedSearch,
        make_search: Callable[[SearchCall], Awaitable[list[Result]]],
        make_call: Callable[[InnerCall], Awaitable[dict[str, Any]]],
        route: ModelRoute,
        call: ActiveCall,
        commit_s: float,
    ) -> None:
        self._offered = offered
        self._make_search = make_search
        self._make_call = make_call
        self._route = route
        self._call = call
        self._commit_s = commit_s
        self._payload = call.request.payload
        self._content: list[dict[str, Any]] = []  # of the response so far, as the client has it
        self._usage: dict[str, Any] = {}
        self._uses_left = offered.max_uses
        self._has_begun = False
        self._ends: list[MessageDelta] = []  # of the rounds

    async def events(self) -> AsyncGenerator[Sequence[StreamEvent], None]:
        """Yield the events of the response.

        Raises:
            ProxyError: a round failed.
        """
        while True:
            start = len(self._content)
            calls: dict[int, dict[str, Any]] = {}  # index of the round's block -> the call of the search
            async with aclosing(self._round(start, calls)) as parts:
                async for events in parts:
                    yield events
            ended = self._ends[-1]
            others = any(block.get("type") == "tool_use" for block in self._content[start:])
            was_offered = self._uses_left > 0
            if calls:
                yield await self._searched(list(calls.values()))
            if not calls or others or not was_offered:
                break
        delta = ended.delta
        if calls and not others:  # the model calls what it is not offered any more
            delta = {**delta, "stop_reason": "end_turn"}
        yield [replace(ended, delta=delta, usage=self._usage), MessageStop()]

    async def _round(
        self, start: int, calls: dict[int, dict[str, Any]]
    ) -> AsyncGenerator[Sequence[StreamEvent], None]:
        """Make one call of the model, and yield what of it goes to the client.

        Args:
            start: index of the round's first block in the message.
            calls: gets the calls of the search.
        """
        writer, call, ends_before = EventWriter(), self._call, len(self._ends)
        payload = self._offered.request(
            self._payload, self._route.model_id, self._content, uses_left=self._uses_left
        )
        inner = InnerCall(payload, KIND, call.record, call.keys, {}, 0, writer=writer)
        task = asyncio.ensure_future(self._make_call(inner))
        task.add_done_callback(lambda _: writer.close())
        try:
            while True:
                try:
                    taken = await writer.take(None if self._has_begun else self._commit_s)
                except asyncio.TimeoutError:
                    self._has_begun = True
                    usage = {"input_tokens": 0, "output_tokens": 0}
                    yield [message_start(new_id("msg_", 22), call.request.model, usage)]
                    continue
                if taken is None:
                    break
                events = [each for event in taken for each in self._translated(event, start, calls)]
                if events:
                    yield events
            message = await task
        finally:
            if not task.done():
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        if len(self._ends) == ends_before:
            raise Truncated("the upstream's stream broke off")
        for index, block in enumerate(message["content"]):
            if index in calls:
                calls[index] = block
                block = {**use_block(block["id"]), "input": block.get("input")}
            self._content.append(block)

    def _translated(
        self, event: StreamEvent, start: int, calls: dict[int, dict[str, Any]]
    ) -> list[StreamEvent]:
        """Return the client's events for one of a round."""
        match event:
            case MessageStart(message):
                if self._has_begun:
                    return []
                self._has_begun = True
                return [MessageStart({**message, "model": self._call.request.model})]
            case MessageDelta(_, usage):
                self._ends.append(event)
                for name, count in usage.items():
                    before = self._usage.get(name)
                    is_sum = isinstance(count, int) and isinstance(before, int)
                    self._usage[name] = before + count if is_sum else count
                return []
            case MessageStop() | Ping():
                return []
            case ErrorEvent(body):
                error = body.get("error", {})
                raise Refused(str(error.get("message")), status=502, kind=str(error.get("type")))
            case BlockStart(index, {"type": "tool_use", "name": self._offered.name, "id": str(call_id)}):
                calls[index] = {}
                return [BlockStart(start + index, use_block(call_id))]
        if not hasattr(event, "index"):
            return [event]
        moved: Any = event  # of a block
        return [replace(moved, index=start + moved.index)]

    async def _searched(self, calls: Sequence[dict[str, Any]]) -> list[StreamEvent]:
        """Make the searches that a round has called for, as many as are left, and return their blocks."""
        granted = self._uses_left
        self._uses_left = max(0, granted - len(calls))
        blocks = await asyncio.gather(
            *(self._block_of(call, is_granted=number < granted) for number, call in enumerate(calls))
        )
        events: list[StreamEvent] = []
        for block in blocks:
            index = len(self._content)
            self._content.append(block)
            events += [BlockStart(index, block), BlockStop(index)]
        return events

    async def _block_of(self, call: dict[str, Any], *, is_granted: bool) -> dict[str, Any]:
        call_id, given = str(call["id"]), call.get("input")
        if not is_granted:
            return error_block(call_id, "max_uses_exceeded")
        query = given.get("query") if isinstance(given, dict) else None
        wanted = self._offered.wanted(" ".join(query.split())[:500] if isinstance(query, str) else "")
        try:
            results = await self._make_search(wanted)
        except SearchFailed as exc:
            return error_block(call_id, exc.code)
        return result_block(call_id, result_blocks(results, keeps_texts=True))
