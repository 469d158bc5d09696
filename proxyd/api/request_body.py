"""Reads a client's request body within its limits (docs/spec/operations.md#b, #c1)."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable

from aiohttp import web

from proxyd.config.settings import Settings
from proxyd.errors import BodyTimedOut, BodyTooLarge, ClientError, ProxyError, UnsupportedMedia
from proxyd.proxy.aiohttp_server import HttpProcessingError, fail_body, received_bytes
from proxyd.proxy.client_request import HELD
from proxyd.proxy.held_bodies import HeldBodies, HeldBody
from proxyd.transport.timers import Timers

__all__ = ["read_request_body"]

#: A body that decompresses to more than this times its size is a bomb; JSON text reaches about 20.
_MAX_RATIO = 100
#: The ratio counts from this many compressed bytes on: the first ones say little.
_RATIO_FROM_BYTES = 1024
_ENCODINGS = ("", "identity", "gzip")


async def read_request_body(
    request: web.Request,
    settings: Settings,
    bodies: HeldBodies,
    on_beginning: Callable[[bytes], None] | None = None,
) -> bytes:
    """Read the whole body and decompress it. Its bytes count as held until ``request[HELD]`` is released.

    Args:
        on_beginning: called with the first bytes of a body of which more is to come.

    Raises:
        Overloaded: all held bodies together exceed ``max_parsing_bytes``.
        BodyTooLarge: the ``Content-Length``, or what was read and decompressed, exceeds the limit.
        BodyTimedOut: no more bytes arrived in time.
        UnsupportedMedia: the body is not JSON, or has an encoding other than gzip.
    """
    kind = request.headers.get("content-type", "missing")
    if kind != "application/json" and kind.partition(";")[0].strip().lower() != "application/json":
        # A page of another site can send forms and plain text without a CORS preflight
        # (docs/spec/operations.md#e3).
        seen = kind[:100]
        raise UnsupportedMedia(f"the content type must be application/json; it is {seen}")
    encoding = request.headers.get("content-encoding", "").strip().lower()
    if encoding not in _ENCODINGS:
        raise UnsupportedMedia(f"the content encoding must be gzip or none, not {encoding}")
    limit = settings.max_body_bytes
    compressed_bytes = request.content_length
    if compressed_bytes is not None and compressed_bytes > limit:
        raise _too_large(limit)
    held = request[HELD] = HeldBody(bodies)
    content = request.content
    arrived_with_head = content.is_eof() and content.exception() is None  # as small ones do
    if arrived_with_head and not encoding:
        body = content.read_nowait()
        if len(body) > limit:
            raise _too_large(limit)
        held.grow(len(body), settings.max_parsing_bytes)
        return body
    timers = Timers(asyncio.get_running_loop())

    def idle() -> None:
        fail_body(
            request,
            BodyTimedOut(f"the rest of the request body did not arrive within {settings.body_idle_s:g} s"),
        )

    def total() -> None:
        fail_body(
            request, BodyTimedOut(f"the request body did not arrive within {settings.body_total_s:g} s")
        )

    timers.set(total, settings.body_total_s)
    body_so_far = io.BytesIO()  # joining 31 MB at the end would block the event loop for 30 ms
    size = 0
    try:
        while True:
            timers.set(idle, settings.body_idle_s)
            chunk = await content.readany()
            if not chunk:
                break
            size += len(chunk)
            if size > limit or (
                encoding == "gzip" and size > _MAX_RATIO * max(received_bytes(request), _RATIO_FROM_BYTES)
            ):
                raise _too_large(settings.max_body_bytes)
            held.grow(len(chunk), settings.max_parsing_bytes)
            if size == len(chunk) and on_beginning is not None:
                on_beginning(chunk)
            body_so_far.write(chunk)
    except ProxyError:
        raise
    except (web.RequestPayloadError, HttpProcessingError, ValueError) as exc:
        raise ClientError("the request body could not be decompressed or ended too early") from exc
    finally:
        timers.close()
    return body_so_far.getvalue()


def _too_large(limit: int) -> BodyTooLarge:
    return BodyTooLarge(f"the request body is larger than {limit / (1 << 20):g} MiB")
