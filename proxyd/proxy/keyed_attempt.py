"""Attempts of a call at one route with the keys of its pool."""

from __future__ import annotations

from aiohttp import web

from proxyd import errors
from proxyd.config.routes import ModelRoute
from proxyd.errors import ProxyError
from proxyd.logs.setup import get_logger
from proxyd.proxy.active_call import ActiveCall
from proxyd.proxy.driver_direct import DirectDriver
from proxyd.proxy.driver_translated import TranslatedDriver
from proxyd.proxy.key_pools import CallKeys

__all__ = ["run_with_keys"]

log = get_logger("relay")


async def run_with_keys(
    driver: DirectDriver | TranslatedDriver, route: ModelRoute, keys: CallKeys | None, call: ActiveCall
) -> web.StreamResponse:
    """Make one attempt; while a key of the pool is refused, another one at once with the next key.

    Args:
        keys: None for an entry without a pool.

    Raises:
        ProxyError: it failed for another reason, or no key is left.
    """
    call.has_key_pool = keys is not None
    if keys is None:
        return await driver.run(route, call)
    record = call.record
    while True:
        with_key = keys.take()
        record.served_with = keys.name
        try:
            response = await driver.run(with_key, call)
        except ProxyError as exc:
            errors.name_address(exc, record.address)
            aside_s = keys.set_aside(exc)
            if aside_s is None:
                raise
            log.warning(
                "upstream.key_set_aside",
                request_id=record.request_id,
                route=route.model_id,
                served_with=keys.name,
                for_s=round(aside_s, 1),
                why=call.log_message(exc),
            )
            record.retries += 1
        except BaseException:  # the client has left, or the call was ended
            keys.has_served(record)
            raise
        else:
            keys.has_served(record)
            return response
