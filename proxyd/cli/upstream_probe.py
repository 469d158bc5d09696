"""Call upstreams once each, through a temporary daemon on a free port: the result is what Claude Code would get."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from proxyd.urls import host_of, is_loopback_url

if TYPE_CHECKING:
    from proxyd.config.routes import ModelRoute
    from proxyd.daemon.configuration import LoadedConfig

__all__ = ["probe_upstreams", "temporary_daemon", "why_not_called"]

#: Concurrent probes, few enough for a vendor with fifty entries in the file.
_PROBES_AT_ONCE = 4


async def probe_upstreams(loaded: LoadedConfig) -> list[dict[str, Any]]:
    """Make one small call to each upstream model.

    Returns:
        For each: ``model_id``, ``upstream``, ``ok`` (None if it was not called), ``said``, and ``ms`` if it was called.
    """
    import asyncio

    gate = asyncio.Semaphore(_PROBES_AT_ONCE)
    async with temporary_daemon(loaded) as (host, port):

        async def probe(route: ModelRoute) -> dict[str, Any]:
            async with gate:
                return await _probe(host, port, route)

        return list(await asyncio.gather(*map(probe, _each_upstream_once(loaded.config.table.routes))))


@asynccontextmanager
async def temporary_daemon(loaded: LoadedConfig) -> AsyncIterator[tuple[str, int]]:
    """Run a daemon on a free port without fallbacks and retries, so that each result is that of the entry itself; give
    its address.
    """
    from dataclasses import replace

    from proxyd.api.probe import PROBE_S
    from proxyd.config.routes import RouteTable
    from proxyd.daemon.configuration import LoadedConfig
    from proxyd.daemon.server import Daemon
    from proxyd.hooks.loader import HookSet

    alone = tuple(replace(route, fallback=(), targets=()) for route in loaded.config.table.routes)
    settings = replace(
        loaded.settings,
        host="127.0.0.1",
        port=0,
        auth="token",
        auth_token=None,
        max_retries=0,
        first_byte_s=PROBE_S,
    )
    config = replace(loaded.config, table=RouteTable(alone))
    daemon = Daemon(LoadedConfig(config, settings, HookSet()))
    await daemon.start()
    try:
        yield daemon.addresses[0]
    finally:
        await daemon.drain()
        await daemon.close()


def why_not_called(route: ModelRoute) -> str | None:
    """Return why an upstream is not called although its entry has no fault: its key comes with each request."""
    if not route.has_own_key and not route.is_demo and not is_loopback_url(route.api_base):
        # A key from this shell's environment would be sent to every vendor in the file.
        return "not called: its key comes with each request"
    return None


def _each_upstream_once(routes: Iterable[ModelRoute]) -> list[ModelRoute]:
    """Return the first of the entries that share an upstream model, as reasoning variants do."""
    found: dict[tuple[str, str], ModelRoute] = {}
    for route in routes:
        found.setdefault((route.api_base, route.model_name), route)
    return list(found.values())


async def _probe(host: str, port: int, route: ModelRoute) -> dict[str, Any]:
    import asyncio

    from proxyd.api.probe import ONE_WORD, probe

    result: dict[str, Any] = {"model_id": route.model_id, "upstream": host_of(route.api_base), "ok": None}
    if route.missing_key is not None:
        return {**result, "ok": False, "said": route.missing_key}
    if (why := why_not_called(route)) is not None:
        return {**result, "said": why}
    found = await asyncio.to_thread(probe, host, port, route.model_id, ONE_WORD)
    said = "" if found.error is None else found.error
    if found.error is not None and found.status is not None:
        said = f"{found.status}: {found.error}"
    return {**result, "ok": found.is_ok, "ms": round(found.duration_s * 1000), "said": said}
