"""The kind of a call, from the client's header to the ledger, on both modes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from tests.support.harness import running_proxy, running_upstream, text_stream
from tests.support.observing import SESSION, ask, until_rows
from tests.support.streams import DIRECT


@pytest.mark.parametrize("is_direct", [True, False])
async def test_kind_of_the_header_is_in_the_ledger(tmp_path: Path, is_direct: bool) -> None:
    async def respond(request: web.Request) -> web.StreamResponse:
        body = b"".join(DIRECT.values()) if is_direct else text_stream("fine")
        return web.Response(body=body, content_type="text/event-stream")

    headers = [
        {"x-claude-code-request-class": "workflow"},
        {"x-claude-code-request-class": "subagent", "x-claude-code-agent-id": "a1"},
        {"x-claude-code-request-class": "auxiliary"},
        {"x-claude-code-agent-id": "a1"},
        {},
    ]
    async with running_upstream(respond) as upstream:
        entry: dict[str, Any] = {"model_id": "m", "api_base": upstream.base + ("" if is_direct else "/v1")}
        if is_direct:
            entry |= {"direct": True, "api_key": "k"}
        async with (
            running_proxy([entry], state_folder=tmp_path) as base,
            aiohttp.ClientSession(headers={"x-claude-code-session-id": SESSION}) as session,
        ):
            for each in headers:
                await ask(session, base, headers=each, stream=True)
            rows = await until_rows(tmp_path, len(headers))
    assert [row["kind"] for row in rows] == ["workflow", "subagent", "auxiliary", "subagent", "main"]
