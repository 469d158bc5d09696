"""Reading a client's request body, within its limits (docs/spec/operations.md#b, #c1)."""

from __future__ import annotations

import asyncio

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from proxyd.config.settings import Settings
from proxyd.errors import BodyTimedOut, BodyTooLarge, ClientError, ProxyError, UnsupportedMedia
from proxyd.proxy.client_request import HELD
from proxyd.proxy.held_bodies import HeldBodies, HeldBody
from proxyd.transport.timers import Timers

__all__ = ["read_request_body"]

#: A body that unpacks to more than this times its size is a bomb; JSON text reaches about 20.
_MAX_RATIO = 100
#: So much may unpack to anything within the ratio: the first bytes of a body say little about it.
_SMALL = 1024
_ENCODINGS = ("", "identity", "gzip")


async def read_request_body(request: web.Request, settings: Settings, bodies: HeldBodies) -> bytes:
    """The whole body, unpacked. It counts as held until ``request[HELD]`` is released.

    Raises:
        Overloaded: together with the others that are held it is over ``max_parsing_bytes``.
        BodyTooLarge: over the limit, by its ``Content-Length`` or when read and unpacked.
        BodyTimedOut: it stopped coming.
        UnsupportedMedia: neither JSON nor of an encoding that we unpack.
    """
    kind = request.headers.get("content-type", "missing")
    if kind != "application/json" and kind.partition(";")[0].strip().lower() != "application/json":
        # A form or a plain-text fetch is what a foreign web page can send without asking
        # (docs/spec/operations.md#e3).
        seen = kind[:100]
        raise UnsupportedMedia(f"the content type must be application/json; it is {seen}")
    encoding = request.headers.get("content-encoding", "").strip().lower()
    if encoding not in _ENCODINGS:
        raise UnsupportedMedia(f"the content encoding must be gzip or none, not {encoding}")
    limit = settings.max_body_bytes
    packed = request.content_length
    if packed is not None and packed > limit:
        raise _too_large(limit)
    held = request[HELD] = HeldBody(bodies)
    content = request.content
    came_with_head = content.is_eof() and content.exception() is None  # as small ones do
    if came_with_head and not encoding:
        body = content.read_nowait()
        if len(body) > limit:
            raise _too_large(limit)
        held.grow(len(body), settings.max_parsing_bytes)
        return body
    deadlines = Timers(asyncio.get_running_loop())

    def idle() -> None:
        content.set_exception(
            BodyTimedOut(f"the rest of the request body did not arrive within {settings.body_idle_s:g} s")
        )

    def total() -> None:
        content.set_exception(
            BodyTimedOut(f"the request body did not arrive within {settings.body_total_s:g} s")
        )

    deadlines.set(total, settings.body_total_s)
    pieces: list[bytes] = []
    size = 0
    try:
        while True:
            deadlines.set(idle, settings.body_idle_s)
            piece = await content.readany()
            if not piece:
                break
            size += len(piece)
            if size > limit or (
                encoding == "gzip" and size > _MAX_RATIO * max(content.total_raw_bytes, _SMALL)
            ):
                raise _too_large(settings.max_body_bytes)
            held.grow(len(piece), settings.max_parsing_bytes)
            pieces.append(piece)
    except ProxyError:
        raise
    except (web.RequestPayloadError, HttpProcessingError, ValueError) as exc:
        raise ClientError("the request body could not be unpacked or ended too early") from exc
    finally:
        deadlines.close()
    return b"".join(pieces)


def _too_large(limit: int) -> BodyTooLarge:
    return BodyTooLarge(f"the request body is larger than {limit / (1 << 20):g} MiB")
