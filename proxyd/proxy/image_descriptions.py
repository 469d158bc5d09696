"""Give a model that sees no images the descriptions of another one that does (docs/images.md).

A description is made once for an image in one context, by a call of the proxy's own, and remembered. So the prompt
stays the same from call to call, and an image of a long conversation costs one call. Where a description fails, the
image becomes a line of text, as it does without a describer, and is tried again a minute later.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Any
from weakref import WeakValueDictionary

from proxyd.codecs.translation.translation_notes import Note
from proxyd.config.images import Images
from proxyd.config.routes import ModelRoute, RouteTable
from proxyd.config.settings import Settings
from proxyd.errors import ProxyError, Refused
from proxyd.logs.setup import get_logger
from proxyd.providers.base import ClientKeys
from proxyd.providers.registry import sees_images
from proxyd.proxy.active_call import ActiveCall
from proxyd.proxy.on_behalf import InnerCall, credentials_for
from proxyd.server_tools.image_descriptions import (
    MAX_BYTES,
    Image,
    description_in,
    description_request,
    images_in,
    with_descriptions,
)

__all__ = ["KIND", "ImageDescriptions"]

#: The kind of such a call in the ledger.
KIND = "image"
#: Descriptions, and failures, that are remembered: at most 8 kB each.
MAX_REMEMBERED = 512
#: Calls for descriptions at the same time.
MAX_AT_ONCE = 4
#: Descriptions that one call of a client can cause; the Messages API takes no more images in a request.
MAX_PER_CALL = 100
#: Seconds after which a failed description is tried again.
RETRY_AFTER_S = 60.0

log = get_logger("images")


class ImageDescriptions:
    """Makes the descriptions and remembers them.

    Args:
        make_call: makes a call and returns the whole message.
        in_force: returns settings and routes.
    """

    def __init__(
        self,
        make_call: Callable[[InnerCall], Awaitable[dict[str, Any]]],
        in_force: Callable[[], tuple[Settings, RouteTable]],
    ) -> None:
        self._make_call = make_call
        self._in_force = in_force
        #: Model and key of the image -> its description, or the time of a failure; those used last are kept.
        self._known: OrderedDict[tuple[str, bytes], str | float] = OrderedDict()
        self._locks: WeakValueDictionary[tuple[str, bytes], asyncio.Lock] = WeakValueDictionary()
        self._slots = asyncio.Semaphore(MAX_AT_ONCE)
        #: Entries that were pointed out as having no describer.
        self._hinted: set[str] = set()

    async def shown_to(
        self, route: ModelRoute, call: ActiveCall, payload: dict[str, Any]
    ) -> tuple[dict[str, Any], tuple[Note, ...]]:
        """Return `payload` as the model of `route` can read it, with a note for each image that was described.

        Raises:
            Refused: the call is for a description itself, and the model sees no images.
        """
        if sees_images(route):
            return payload, ()
        if call.record.kind == KIND:
            message = f"model {route.model_id!r} sees no images, so it cannot describe one"
            raise Refused(message, status=400, kind="invalid_request_error")
        config, describer = self._config_of(route)
        if describer is None and route.model_id in self._hinted:
            return payload, ()
        images = await call.request.run(images_in, payload)
        if not images:
            return payload, ()
        if describer is None:
            self._point_out(route, call)
            return payload, ()
        descriptions = await self._describe(images, config, describer, route, call)
        shown = with_descriptions(payload, images, descriptions, describer.model_id)
        why = f"the model takes no images; {describer.model_id} has described it"
        notes = (
            Note(".".join(map(str, image.path)), "replaced by a description", why)
            for image in images
            if image.key in descriptions
        )
        return shown, tuple(notes)

    def describer_of(self, route: ModelRoute) -> ModelRoute | None:
        """Return the entry that describes images to the model of `route`."""
        return self._config_of(route)[1]

    def _config_of(self, route: ModelRoute) -> tuple[Images, ModelRoute | None]:
        settings, table = self._in_force()
        config = Images.of(settings.images, route.images)
        return config, table.resolve(config.describe_with) if config.describe_with else None

    async def _describe(
        self, images: list[Image], config: Images, describer: ModelRoute, route: ModelRoute, call: ActiveCall
    ) -> dict[bytes, str]:
        """Return the descriptions by the image's key."""
        model = describer.model_id
        found: dict[bytes, str] = {}
        missing: dict[bytes, Image] = {}
        reasons: dict[bytes, str] = {}
        for image in images:
            known = self._recall(model, image.key)
            if isinstance(known, str):
                found[image.key] = known
            elif known is not None:
                reasons[image.key] = "it has failed within the last minute"
            elif image.size > MAX_BYTES:
                reasons[image.key] = f"it is larger than {MAX_BYTES >> 20} MiB"
            elif len(missing) >= MAX_PER_CALL and image.key not in missing:
                reasons[image.key] = f"a request gets at most {MAX_PER_CALL} new descriptions"
            else:
                missing[image.key] = image
        _, table = self._in_force()
        credentials = credentials_for(describer, table.resolve(call.request.model) or route, call.request)

        is_late = False

        async def describe(image: Image) -> None:
            nonlocal is_late
            key = (model, image.key)
            lock = self._locks.get(key)
            if lock is None:
                lock = self._locks[key] = asyncio.Lock()
            async with lock, self._slots:
                if is_late:  # so that the client waits for one timeout, however many images there are
                    reasons[image.key] = "another image of the request was not described in time"
                    return
                known = self._recall(*key)  # by another call that has the same image
                if known is None:
                    started = monotonic()
                    known = await self._ask(image, config, describer, call, credentials, reasons)
                    is_late = is_late or monotonic() - started >= config.timeout_s
                    self._remember(key, known)
            if isinstance(known, str):
                found[image.key] = known
            else:
                reasons.setdefault(image.key, "it has failed for another call")

        await asyncio.gather(*map(describe, missing.values()))
        if reasons:
            log.warning(
                "images.not_described",
                request_id=call.record.request_id,
                route=route.model_id,
                describe_with=model,
                images=len(reasons),
                why="; ".join(sorted(set(reasons.values()))),
            )
        return found

    async def _ask(
        self,
        image: Image,
        config: Images,
        describer: ModelRoute,
        call: ActiveCall,
        credentials: tuple[ClientKeys, dict[str, str]],
        reasons: dict[bytes, str],
    ) -> str | float:
        """Ask for one description; return the time of the failure if there is none, and put its reason down."""
        payload = description_request(image, describer.model_id)
        keys, headers = credentials
        inner = InnerCall(payload, KIND, call.record, keys, headers, config.timeout_s)
        try:
            text = description_in(await self._make_call(inner))
        except ProxyError as exc:
            text, reasons[image.key] = None, call.log_message(exc)
        except Exception as exc:
            text, reasons[image.key] = None, call.log_message(call.as_failure(exc))
        if text is None:
            reasons.setdefault(image.key, "the response has no description")
            return monotonic()
        return text

    def _recall(self, model: str, image: bytes) -> str | float | None:
        """Return the description, or when it has failed; None if it is to be made."""
        key = (model, image)
        known = self._known.get(key)
        if isinstance(known, float) and monotonic() - known > RETRY_AFTER_S:
            return None
        if known is not None:
            self._known.move_to_end(key)
        return known

    def _remember(self, key: tuple[str, bytes], known: str | float) -> None:
        self._known[key] = known
        self._known.move_to_end(key)
        if len(self._known) > MAX_REMEMBERED:
            self._known.popitem(last=False)

    def _point_out(self, route: ModelRoute, call: ActiveCall) -> None:
        """Log once for an entry what could be set."""
        self._hinted.add(route.model_id)
        log.warning(
            "images.not_shown",
            request_id=call.record.request_id,
            route=route.model_id,
            hint="the model sees no images; images: {describe_with: MODEL_ID} has another entry describe them",
        )
