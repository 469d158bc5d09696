"""Requests of translated routes, in the format of the upstream, and the decoders of their responses."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from typing import Any

from proxyd import jsonio
from proxyd.codecs.anthropic.events import MessageDelta, MessageStop, StreamEvent, message_start
from proxyd.codecs.anthropic.usage import Usage
from proxyd.codecs.cache.tool_inputs import ToolInputs
from proxyd.codecs.citations import Citations, CitingDecoder
from proxyd.codecs.codec import NewId, ResponseContext, Warn
from proxyd.codecs.formats import CHAT, Format
from proxyd.codecs.response_decoder import ResponseDecoder
from proxyd.codecs.translation.dialect import Dialect
from proxyd.codecs.translation.offered_tools import OfferedTools, tools_in
from proxyd.codecs.translation.translated import RequestOptions, Translated
from proxyd.codecs.translation.translation_notes import Note
from proxyd.codecs.upstream_errors.errors import ErrorContext
from proxyd.codecs.wire.sse import MAX_FRAME_BYTES
from proxyd.config.routes import ModelRoute
from proxyd.errors import ClientError
from proxyd.providers.base import CallTimeouts, ClientKeys, UpstreamRequest, missing_key
from proxyd.providers.key_owner import check_anthropic_credentials
from proxyd.providers.registry import Profile, dialect_for, format_for, profile_for
from proxyd.secret import Secret
from proxyd.urls import is_loopback_url, is_private_host

__all__ = [
    "TranslatedCall",
    "counting_request",
    "empty_response",
    "endpoint_url",
    "name_in_address",
    "new_decoder",
    "prepare",
]


@dataclass(slots=True)
class TranslatedCall:
    """A translated call whose body is not serialized yet (`written`).

    Attributes:
        new_decoder: returns a decoder of the response; each attempt needs its own.
        response: what the decoder knows of the request.
        is_stream: it asks for a stream.
    """

    request: UpstreamRequest
    new_decoder: Callable[[], ResponseDecoder]
    response: ResponseContext
    new_id: NewId
    translated: Translated
    is_stream: bool

    @property
    def sent(self) -> dict[str, Any]:
        """The request body, for hooks and for learning from a refusal."""
        return self.translated.body

    @property
    def input_tokens(self) -> int:
        """The proxy's estimate."""
        return self.translated.input_tokens

    @property
    def notes(self) -> tuple[Note, ...]:
        """Fields of the client's request that were dropped or changed."""
        return self.translated.notes

    @property
    def context(self) -> ErrorContext:
        """What the upstream's errors are read with."""
        return self.response.errors

    def with_body(self, body: dict[str, Any]) -> TranslatedCall:
        """Return the call with the body of a request hook."""
        return replace(self, translated=replace(self.translated, body=body))

    def written(self, *, in_pieces: bool = False) -> TranslatedCall:
        """Return the call with its body serialized; a separate step because a large one takes long.

        Args:
            in_pieces: `Translated.written_in_pieces`.

        Raises:
            ClientError: the request holds a number that JSON has no form for.
        """
        try:
            body = self.translated.written_in_pieces() if in_pieces else self.translated.written()
        except jsonio.JSONError:
            raise _not_json() from None
        request = self.request
        return TranslatedCall(
            UpstreamRequest(request.url, request.headers, body, request.timeouts, request.method),
            self.new_decoder,
            self.response,
            self.new_id,
            self.translated,
            self.is_stream,
        )


def empty_response(response: ResponseContext, new_id: NewId) -> list[StreamEvent]:
    """Return the events of a response that has reached its output limit before its first token."""
    usage = Usage(response.estimated_input_tokens, is_estimated=True).to_anthropic()
    return [
        message_start(new_id("msg_"), response.model, usage),
        MessageDelta({"stop_reason": "max_tokens", "stop_sequence": None}, usage),
        MessageStop(),
    ]


def prepare(
    route: ModelRoute,
    api_base: str,
    payload: dict[str, Any],
    keys: ClientKeys,
    *,
    timeouts: CallTimeouts,
    new_id: NewId,
    warn: Warn,
    max_body_bytes: int,
    max_frame_bytes: int = MAX_FRAME_BYTES,
    session_id: str | None = None,
    corrected: Callable[[int], int] | None = None,
    inputs: ToolInputs | None = None,
    is_refused: Callable[[str], bool] = lambda data: False,
    applied_edits: list[dict[str, Any]] | None = None,
    retries_empty: bool = False,
    citations: Citations | None = None,
) -> Generator[None, None, TranslatedCall]:
    """Translate `payload` for `route` in steps (`translation`), without serializing the body.

    Args:
        api_base: address of `route`; the embedded upstream has no fixed one.
        corrected: corrects an estimate of the input tokens; None leaves it unchanged.
        inputs: serialized tool inputs of `payload`.
        is_refused: whether the upstream has refused this signed data of an earlier turn.
        citations: gets the sources of a response whose upstream searches the web.
        applied_edits: those of ``context_management`` that `payload` has behind it, for the response.
        retries_empty: as in `ResponseContext`.

    Raises:
        ClientError: the request cannot be translated, or no key is there.
    """
    profile = profile_for(route.api_base, route.provider)
    chosen, _ = format_for(route)
    dialect = dialect_for(profile, route.model_name, route.quirks, chosen)
    # A stream even for a client that wants none: only a stream shows that the upstream is still alive.
    is_stream = route.can_stream and dialect.stream
    translated = yield from chosen.translation(
        payload,
        dialect,
        RequestOptions(
            model=route.model_name,
            stream=is_stream,
            max_tokens=route.max_tokens,
            temperature=route.temperature,
            top_p=route.top_p,
            reasoning_effort=route.reasoning_effort,
            vision=route.vision,
            extra_body=route.extra_body,
            session_id=session_id,
            is_refused=is_refused,
            signed_as=profile.signer + route.model_name,
        ),
        inputs,
    )
    estimate = translated.input_tokens if corrected is None else corrected(translated.input_tokens)
    context = ErrorContext(
        route=route.model_id,
        window=route.max_input_tokens,
        estimated_input_tokens=estimate,
        max_tokens=translated.max_tokens,
        keys=keys.all,
    )
    response = ResponseContext(
        model=str(payload["model"]),
        upstream_model=profile.signer + route.model_name,
        tools=_tools_in_text(translated, dialect, chosen, api_base),
        tool_names=translated.tool_names,
        used_ids=translated.tool_ids,
        stop_sequences=tuple(text for text in payload.get("stop_sequences") or () if isinstance(text, str)),
        estimated_input_tokens=estimate,
        context_management={"applied_edits": applied_edits} if applied_edits else None,
        retries_empty=retries_empty,
        errors=context,
    )
    return TranslatedCall(
        request=UpstreamRequest(
            url=endpoint_url(api_base, chosen.path(name_in_address(route), is_stream)),
            headers=_headers(route, api_base, profile, chosen, keys, is_stream=is_stream),
            body=b"",
            timeouts=timeouts,
        ),
        new_decoder=lambda: new_decoder(
            chosen, response, dialect, new_id, warn, max_body_bytes, max_frame_bytes, citations
        ),
        response=response,
        new_id=new_id,
        translated=translated,
        is_stream=is_stream,
    )


def counting_request(route: ModelRoute, api_base: str, call: TranslatedCall) -> UpstreamRequest:
    """Return the request that has the upstream count the tokens of `call`; its format has a `Counting`.

    Raises:
        ClientError: the request holds a number that JSON has no form for.
    """
    counting = format_for(route)[0].counting
    assert counting is not None, "the caller has checked it"
    name = name_in_address(route)
    try:
        body = jsonio.dumps(counting.body(name, call.sent))
    except jsonio.JSONError:
        raise _not_json() from None
    headers = {**call.request.headers, "accept": "application/json"}
    return replace(call.request, url=endpoint_url(api_base, counting.path(name)), headers=headers, body=body)


def _not_json() -> ClientError:
    # The parser accepts NaN and Infinity, which JSON cannot express.
    return ClientError("the request holds a number that JSON has no form for (NaN or Infinity)")


def _tools_in_text(
    translated: Translated, dialect: Dialect, chosen: Format, api_base: str
) -> OfferedTools | None:
    """Return the tools whose calls are looked for in the response's text; None if they are not."""
    if chosen is not CHAT or dialect.text_tool_calls == "never":
        return None
    if dialect.text_tool_calls == "local" and not is_private_host(api_base):
        return None
    if not translated.tools.offered or translated.body.get("tool_choice") == "none":
        return None
    return OfferedTools(tools_in(translated.tools.offered)) or None


def new_decoder(
    chosen: Format,
    response: ResponseContext,
    dialect: Dialect,
    new_id: NewId,
    warn: Warn,
    max_body_bytes: int,
    max_frame_bytes: int = MAX_FRAME_BYTES,
    citations: Citations | None = None,
) -> ResponseDecoder:
    """Return the decoder of one response."""
    codec = chosen.codec(response, dialect, new_id, warn)
    if citations is not None:
        return CitingDecoder(
            codec, max_body_bytes=max_body_bytes, max_frame_bytes=max_frame_bytes, citations=citations
        )
    return ResponseDecoder(codec, max_body_bytes=max_body_bytes, max_frame_bytes=max_frame_bytes)


def name_in_address(route: ModelRoute) -> str:
    """Return the model's name as it stands in addresses, for a format whose addresses name the model."""
    name = route.model_name
    return name if "/" in name else profile_for(route.api_base, route.provider).model_folder + name


def endpoint_url(api_base: str, path: str) -> str:
    """Return the base with `path`, before the query of the base, such as Azure's ``api-version``."""
    base, mark, query = api_base.partition("?")
    if "?" in path:
        mark = mark and "&"
    return f"{base.rstrip('/')}{path}{mark}{query}"


def key_for(route: ModelRoute, api_base: str, keys: ClientKeys) -> Secret | None:
    """Return the key that the upstream of a translated route gets; None for one on this machine that needs none.

    Raises:
        ClientError: no key is there, or the client's is Anthropic's.
    """
    if route.api_key is None and not route.missing_key:
        check_anthropic_credentials(route, keys)
    key = route.api_key or (None if route.missing_key else keys.any)
    if key is None and (route.missing_key or not is_loopback_url(api_base)):
        raise missing_key(route)
    return key


def _headers(
    route: ModelRoute,
    api_base: str,
    profile: Profile,
    chosen: Format,
    keys: ClientKeys,
    *,
    is_stream: bool,
) -> dict[str, str]:
    headers = {
        "content-type": "application/json",
        "accept": "text/event-stream" if is_stream else "application/json",
        "accept-encoding": "identity",
        "user-agent": "claude-proxy",
    }
    key = key_for(route, api_base, keys)
    if key is not None:
        if route.is_token:
            headers["authorization"] = f"Bearer {key.reveal()}"
        elif chosen.key_header is not None:
            headers[chosen.key_header] = key.reveal()
        elif profile.auth == "api-key":
            headers["api-key"] = key.reveal()
        else:
            headers["authorization"] = f"Bearer {key.reveal()}"
    for name, value in route.extra_headers.items():
        headers[name.lower()] = value
    return headers
