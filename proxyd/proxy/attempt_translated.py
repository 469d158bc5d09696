"""An attempt at an upstream of another protocol: its response is translated (see `proxyd.proxy.attempt`)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from proxyd.codecs.anthropic.message_collector import MessageCollector
from proxyd.codecs.response_decoder import ResponseDecoder
from proxyd.config.settings import Settings
from proxyd.errors import BadReply, Refused, Truncated
from proxyd.hooks.runner import CallHooks, StreamHooks
from proxyd.providers.translated_request import TranslatedCall
from proxyd.proxy.active_call import ActiveCall, Finisher
from proxyd.proxy.attempt import Attempt, EnoughReceived, WholeResponse
from proxyd.proxy.pump import StreamPump
from proxyd.proxy.retries import retry_after_in_seconds
from proxyd.proxy.wrong_address import protocol_error, translated_error
from proxyd.transport.client import UpstreamClient

__all__ = ["TranslatedAttempt"]


class TranslatedAttempt(Attempt):
    """An attempt at a translated upstream.

    Attributes:
        decoder: may begin its message before the first event.
        refused: status and body of the upstream's error: as it sent them, or of an error in a response of status 200.
        sent: the request's body, parsed; empty once the response has begun.
    """

    decoder: ResponseDecoder

    def __init__(
        self,
        translated: TranslatedCall,
        upstreams: UpstreamClient,
        settings: Settings,
        call: ActiveCall,
        hooks: CallHooks | None = None,
        finisher: Finisher | None = None,
    ) -> None:
        super().__init__(translated.request, upstreams, settings, call, hooks, finisher)
        self._context = translated.context
        self.sent = translated.sent
        self._asks_stream = translated.is_stream
        self._stops_early = call.stops_early
        self._is_stream = call.request.wants_stream
        if self._is_stream and hooks is not None and hooks.changes_events:
            self._stream_hooks = StreamHooks(hooks)
        self.decoder: ResponseDecoder = translated.new_decoder()
        self.decoder.address = self._address
        self.refused: tuple[int, bytes] | None = None

    @property
    def whole(self) -> WholeResponse | None:
        return None if self._is_stream else _CollectedMessage(self._stops_early)

    def set_head(self, call: ActiveCall) -> None:
        call.set_stream_head()

    def whole_head(self, call: ActiveCall) -> tuple[int, Iterable[tuple[str, str]]]:
        return 200, call.json_headers

    @property
    def early_start(self) -> Callable[[], bytes] | None:
        return self._start if self._is_stream else None

    def _start(self) -> bytes:
        frames = self.decoder.start()
        return frames if self._stream_hooks is None else self._stream_hooks.pass_through(frames)

    async def open(self) -> StreamPump:
        response, reader = await self._send()
        if response.status != 200:
            body = await reader.read_up_to(self._settings.max_error_body_bytes)
            headers = {name.lower(): value for name, value in response.headers.items()}
            headers.update(retry_after_in_seconds(headers))
            self.refused = (response.status, body)
            raise translated_error(response.status, headers, body, self._url, self._context)
        if self._asks_stream:
            self._expect_stream(response)
        pump = self._start_pump(reader, self.decoder, is_stream=self._is_stream)
        try:
            await pump.until_first_frames()
        except (BadReply, Refused, Truncated) as exc:
            wrong = protocol_error(exc, pump.beginning, self._url, is_direct=False)
            if wrong is not None:
                raise wrong from exc
            if isinstance(exc, Refused) and exc.body:
                self.refused = exc.status if exc.status < 500 else 500, exc.body
            raise
        self.sent = {}
        return pump


class _CollectedMessage:
    """Collects the frames of a stream into one message."""

    is_writable = True
    body = None

    def __init__(self, stops_early: Callable[[bytes], bool] | None) -> None:
        self._collector = MessageCollector()
        self._stops_early = stops_early

    def write(self, data: bytes) -> None:
        """Collect frames.

        Raises:
            EnoughReceived: the rest is not needed.
        """
        self._collector.add_frames(data)
        if self._stops_early is not None and self._stops_early(data):
            raise EnoughReceived

    async def drained(self) -> None:
        raise AssertionError("it is always writable")

    def stop_pings(self) -> None:
        pass

    def message(self) -> dict[str, Any]:
        return self._collector.message_so_far()
