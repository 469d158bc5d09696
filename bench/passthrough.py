"""Baseline: the least that a proxy on aiohttp can do. ``python -m bench.passthrough PORT UPSTREAM``.

It reads the whole request, forwards it with its own headers and writes the response's bytes as they arrive: no parsing,
no routes, no timeouts, no error handling, no logs.
"""

from __future__ import annotations

import asyncio
import sys

import aiohttp
from aiohttp import web


async def _serve(port: int, upstream_port: int) -> None:
    session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0),
        timeout=aiohttp.ClientTimeout(total=None),
        auto_decompress=False,
    )

    async def relay(request: web.Request) -> web.StreamResponse:
        body = await request.read()
        headers = {
            name: value for name, value in request.headers.items() if name not in ("Host", "content-length")
        }
        url = f"http://127.0.0.1:{upstream_port}{request.path_qs}"
        async with session.post(url, data=body, headers=headers) as upstream:
            response = web.StreamResponse(
                status=upstream.status, headers={"content-type": upstream.headers["content-type"]}
            )
            await response.prepare(request)
            async for chunk in upstream.content.iter_any():
                await response.write(chunk)
            await response.write_eof()
        return response

    app = web.Application(client_max_size=1 << 26)
    app.router.add_post("/{path:.*}", relay)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port, backlog=2048).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1]), int(sys.argv[2])))
