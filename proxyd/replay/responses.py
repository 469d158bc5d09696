"""The response of the installed code to the client of a recorded call: recorded chunks in, bytes or a refusal out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from proxyd import errors, jsonio
from proxyd.codecs.anthropic.events import ErrorEvent, encode_event, encode_events
from proxyd.codecs.anthropic.message_collector import MessageCollector
from proxyd.codecs.anthropic.passthrough import VAGUE_TYPES, PassthroughStream, begins_as_stream
from proxyd.codecs.upstream_errors.output_minimum import is_too_few_tokens
from proxyd.errors import ProxyError, Refused
from proxyd.providers.translated_request import TranslatedCall, empty_response
from proxyd.proxy.attempt_direct import VerbatimRefusal
from proxyd.proxy.wrong_address import address_error, protocol_error, translated_error
from proxyd.recording.store import Record, RecordedAttempt
from proxyd.urls import address_of

__all__ = ["ReplayedResponse", "ResponseReplayer"]


@dataclass(frozen=True)
class ReplayedResponse:
    """The bytes of a body, or a refusal with status, type and message.

    Attributes:
        is_open: the recorded call was left or cut; otherwise more could follow.
    """

    body: bytes = b""
    refusal: tuple[int, str, str] | None = None
    is_open: bool = False

    @classmethod
    def refused(cls, exc: BaseException) -> ReplayedResponse:
        return cls(refusal=(*errors.error_response(exc), errors.message_of(exc)))


@dataclass
class ResponseReplayer:
    """Creates the response of one recorded call.

    Attributes:
        bugs: unexpected exceptions of the installed code.
    """

    record: Record
    bugs: list[str] = field(default_factory=list)

    def translated(
        self, attempt: RecordedAttempt, call: TranslatedCall, payload: dict[str, Any]
    ) -> ReplayedResponse:
        """Create the response of a translated attempt.

        Args:
            payload: the client's request.
        """
        chunks, status = attempt.chunks or [], _status(attempt)
        if status != 200:
            body = b"".join(chunk for _, chunk in chunks)[: self._setting("max_error_body_bytes")]
            if is_too_few_tokens(status, body, payload.get("max_tokens")):
                return ReplayedResponse(
                    self.body_of(encode_events(empty_response(call.response, call.new_id)))
                )
            headers = {name.lower(): value for name, value in _headers(attempt).items()}
            return ReplayedResponse.refused(
                translated_error(status, headers, body, _url(attempt), call.context)
            )
        decoder = call.new_decoder()
        decoder.address = address_of(_url(attempt))
        frames = b""
        is_open = self.was_left
        written = self.record.response_chunks
        begun_ms = written[0][0] if written and self.wants_stream else None
        try:
            for moment, chunk in chunks:
                if not frames and begun_ms is not None and begun_ms < moment:
                    frames += decoder.start()  # silence had started the message early
                frames += decoder.feed(chunk)
                if decoder.has_ended:
                    break
            if not decoder.has_ended:
                if not frames and begun_ms is not None:
                    frames += decoder.start()
                if attempt.is_truncated:
                    is_open = True
                elif _is_whole(attempt) or decoder.has_finish:
                    frames += decoder.close()
                elif not self.was_left and decoder.has_started:
                    frames += decoder.fail(self._failure())
                elif not self.was_left:
                    return ReplayedResponse.refused(self._failure())
            if not self.wants_stream and decoder.failure is not None:
                return ReplayedResponse.refused(decoder.failure)
        except ProxyError as exc:
            beginning = b"".join(chunk for _, chunk in chunks)
            wrong = protocol_error(exc, beginning, _url(attempt), is_direct=False)
            errors.name_address(exc, address_of(_url(attempt)))
            return ReplayedResponse.refused(wrong or exc)
        except Exception as exc:
            failure = self._bug(exc)
            if not frames or not self.wants_stream:
                return ReplayedResponse.refused(failure)
            frames += decoder.fail(failure)
        return ReplayedResponse(self.body_of(frames), is_open=is_open)

    def direct(self, attempt: RecordedAttempt) -> ReplayedResponse:
        """Create the response of a direct attempt. A body that is not an event stream is passed through."""
        chunks, headers = [chunk for _, chunk in attempt.chunks or []], _headers(attempt)
        body, status = b"".join(chunks), _status(attempt)
        if status >= 400:
            error = body[: self._setting("max_error_body_bytes")]
            url = _url(attempt)
            if urlsplit(url).path.endswith("/messages"):
                wrong = address_error(status, error, url, is_direct=True)
                if wrong is not None:
                    return ReplayedResponse.refused(wrong)
            return ReplayedResponse.refused(
                VerbatimRefusal(status, [*headers.items()], error, address_of(url))
            )
        is_open = self.was_left or attempt.is_truncated
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        is_stream = kind == "text/event-stream" or (
            kind in VAGUE_TYPES and self.wants_stream and begins_as_stream(body) is True
        )
        if not is_stream or headers.get("content-encoding", "identity").lower() != "identity":
            return ReplayedResponse(body, is_open=is_open or not _is_whole(attempt))
        stream, out = PassthroughStream(self._setting("max_frame_bytes")), b""
        stream.address = address_of(_url(attempt))
        try:
            for chunk in chunks:
                out += stream.feed(chunk)
            if _is_whole(attempt) and not attempt.is_truncated:
                out += stream.close()
            elif not stream.tap.has_ended and not is_open:
                raise self._failure()
        except ProxyError as exc:
            errors.name_address(exc, address_of(_url(attempt)))
            if not out:
                return ReplayedResponse.refused(exc)
            out += encode_event(ErrorEvent(errors.envelope(exc)))
        except Exception as exc:
            out += encode_event(ErrorEvent(errors.envelope(self._bug(exc))))
        return ReplayedResponse(out, is_open=is_open)

    def body_of(self, frames: bytes) -> bytes:
        """Return a stream as it is, or as one message, whichever the client asked for."""
        if self.wants_stream:
            return frames
        collector = MessageCollector()
        collector.add_frames(frames)
        return jsonio.dumps(collector.message())

    @property
    def wants_stream(self) -> bool:
        return self.record.facts.get("stream") is True

    @property
    def was_left(self) -> bool:
        """The client did not see the end of the response: it had left, or its connection was cut."""
        outcome = self.record.facts.get("outcome")
        is_cut = self.record.settings.get("on_midstream_error") == "abort"
        return outcome == "client_gone" or (outcome == "failed" and is_cut)

    def _failure(self) -> ProxyError:
        """The recorded error of a broken connection or a timeout."""
        facts = self.record.facts
        status = facts.get("status")
        kind = str(facts.get("error_type"))
        return Refused(str(facts.get("error")), status=status if type(status) is int else 500, kind=kind)

    def _bug(self, exc: Exception) -> ProxyError:
        at = exc.__traceback__
        while at is not None and at.tb_next is not None:
            at = at.tb_next
        where = "" if at is None else f" at {at.tb_frame.f_globals.get('__name__')}:{at.tb_lineno}"
        self.bugs.append(f"{type(exc).__name__}{where}")
        return ProxyError(errors.message_of(exc))

    def _setting(self, name: str) -> int:
        value = self.record.settings.get(name)
        return value if type(value) is int else 1 << 24


def _is_whole(attempt: RecordedAttempt) -> bool:
    return attempt.response is not None and attempt.response.get("is_whole") is True


def _status(attempt: RecordedAttempt) -> int:
    status = (attempt.response or {}).get("status")
    return status if type(status) is int else 0


def _url(attempt: RecordedAttempt) -> str:
    return str(attempt.request.get("url"))


def _headers(attempt: RecordedAttempt) -> dict[str, str]:
    headers = (attempt.response or {}).get("headers")
    return {str(name): str(value) for name, value in headers.items()} if isinstance(headers, dict) else {}
