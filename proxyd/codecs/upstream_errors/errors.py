"""Turn an OpenAI-compatible server's error into our client's (docs/spec/chat-completions.md#errors and
docs/spec/errors.md#mapping).

Three steps:

1. Parse the body, in whatever envelope, into a message, codes and perhaps a status (`error_envelopes`).
2. Find the cause. Text and codes that name it take precedence over the status, because vendors disagree about
   statuses: an empty account is 400, 403 or 429, a wrong key 400, an overloaded engine 429.
3. Build the response: status and Anthropic type by the table, the upstream's own text without keys and echoes of the
   request, and the headers by which Claude Code waits or stops.

A 400 without a known cause costs the user up to six calls, since Claude Code then drops one feature after the other
(docs/spec/claude-code.md#http-errors). So an error that Claude Code can recover from gets the wording that makes it
recover, see `context_overflow`.
"""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Any

from proxyd import jsonio
from proxyd.codecs.upstream_errors.context_overflow import (
    Overflow,
    find_output_limit,
    find_overflow,
    is_evident,
    output_limit_message,
    overflow_message,
)
from proxyd.codecs.upstream_errors.error_envelopes import (
    ErrorDetails,
    error_in,
    parse_error,
    parse_error_body,
)
from proxyd.errors import ProxyError, Refused, TooLong, kind_of_status
from proxyd.redaction import redacted, without_named_keys
from proxyd.secret import Secret, configured_secrets

__all__ = [
    "ErrorContext",
    "error_in",
    "names_content_filter",
    "names_unknown_model",
    "refusal",
    "refusal_from_chunk",
]

#: docs/spec/errors.md#message. Room for a long validation message, none for a prompt.
MAX_MESSAGE = 2000

#: Seconds; the longest real waits are those of monthly plans.
MAX_RETRY_AFTER_S = 31 * 86_400

#: Statuses under which an overflow was seen.
_OVERFLOW_STATUSES = frozenset({200, 400, 403, 413, 422, 429, 500, 502})

#: Texts without more information than the status.
_VAGUE = re.compile(
    r"(?:error:? )?(?:code:? )?(?:\d{3}:? )?(?:bad request|invalid request|request (?:entity |body )?too large"
    r"|(?:payload|content) too large|unprocessable (?:entity|content)|internal (?:server )?error"
    r"|(?:provider|upstream) (?:returned )?error|unknown error|error|invalid parameters?|param(?:eter)? incorrect"
    r"|参数错误|请求错误)[.!。]?",
    re.IGNORECASE,
)

#: Status of a vague error -> the share of the window from which on it is taken for an overflow. A 500 has so many
#: other causes that only a prompt over the window counts.
_VAGUE_CERTAINTY: Mapping[int, float] = {400: 0.9, 413: 0.9, 422: 0.9, 500: 1.0}

#: The same for an error with an empty body. An estimate can be off by half, and a short prompt is never too long.
_SILENT_CERTAINTY = 0.5

#: Upstream status -> our status, which determines the type. Others go by their class, see `_our_status`.
_STATUSES: Mapping[int, int] = {
    400: 400,
    401: 401,
    402: 402,
    403: 403,
    404: 404,
    408: 504,
    409: 409,
    413: 413,
    424: 502,
    425: 502,
    429: 429,
    498: 529,  # Groq: flex tier at capacity
    499: 502,  # the upstream's own proxy gave up
    500: 500,
    503: 529,
    504: 504,
    524: 504,  # Cloudflare: the origin timed out
    529: 529,
}

#: Codes, types and gRPC statuses, lower case -> their HTTP status. Used where there is no error status: in
#: chunks and in responses with status 200.
_CODES: Mapping[str, int] = {
    "invalid_request_error": 400,
    "invalid_argument": 400,
    "failed_precondition": 400,
    "badrequesterror": 400,
    "bad_request": 400,
    "content_filter": 400,
    "content_policy_violation": 400,
    # OpenAI's Responses API, openai Python SDK 3.57.0, ResponseError
    "invalid_prompt": 400,
    "bio_policy": 400,
    "misalignment_policy_violation": 400,
    "data_residency_mismatch": 400,
    "invalid_encrypted_content": 400,
    "invalid_image": 400,
    "invalid_image_url": 400,
    "invalid_image_mode": 400,
    "image_too_large": 400,
    "image_too_small": 400,
    "image_file_too_large": 400,
    "image_file_not_found": 400,
    "image_content_policy_violation": 400,
    "unsupported_image_media_type": 400,
    "empty_image_file": 400,
    "failed_to_download_image": 400,
    "context_length_exceeded": 400,
    "vector_store_timeout": 504,
    "authentication_error": 401,
    "unauthenticated": 401,
    "billing_error": 402,
    "permission_error": 403,
    "permission_denied": 403,
    "not_found": 404,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "throttlingexception": 429,
    "validationexception": 400,
    "modelstreamerrorexception": 500,
    "internalserverexception": 500,
    "serviceunavailableexception": 503,
    "modeltimeoutexception": 504,
    "rate_limit_exceeded": 429,
    "resource_exhausted": 429,
    "too_many_requests": 429,
    "server_error": 500,
    "internal_server_error": 500,
    "internal": 500,
    "unavailable": 503,
    "service_unavailable": 503,
    "overloaded_error": 529,
    "deadline_exceeded": 504,
    "timeout": 504,
    "timeout_error": 504,
}


@dataclass(frozen=True, slots=True)
class _Cause:
    """A cause that text and codes name more reliably than the status.

    Args:
        status: the upstream status that fits it.
        statuses: those under which text and codes count; 200 means "no status".
        codes: whole codes or types, lower case.
        text: found in the message.
    """

    status: int
    statuses: frozenset[int]
    codes: frozenset[str]
    text: re.Pattern[str]


def _cause(status: int, statuses: str, codes: str, text: str) -> _Cause:
    return _Cause(
        status,
        frozenset(map(int, statuses.split())),
        frozenset(codes.split()),
        re.compile(text, re.IGNORECASE),
    )


#: In order of precedence. An empty account has many texts and statuses; retrying is useless.
_CAUSES: tuple[_Cause, ...] = (
    _cause(
        402,
        "200 400 401 402 403 429",
        # OpenAI; Kimi; DashScope; Volcengine; GLM; OpenRouter
        "insufficient_quota exceeded_current_quota_error arrearage accountoverdueerror 1113 "
        "insufficient_credits billing_hard_limit_reached insufficient_balance insufficient_user_quota",
        r"insufficient (?:account )?(?:balance|credits|funds)|balance is (?:insufficient|too low)"
        r"|billing hard limit|account is in good standing|requires more credits|余额不足|欠费",
    ),
    _cause(
        529,
        "200 429 500 502 503",
        "engine_overloaded_error serveroverloaded overloaded_error server_overloaded model_overloaded 1305 "
        "server_is_overloaded slow_down",
        r"\b(?:is|are) (?:currently |temporarily )?overloaded|server overloaded"
        r"|no (?:available )?capacity|at capacity",
    ),
    _cause(
        404,
        "200 400 403 404 422",
        "model_not_found invalidendpointormodel.notfound modelnotopen model_not_exist 1211 20012",
        r"model not exist|\bmodels/\S{1,100} is not found"
        r"|\bmodel\b[^.]{0,120}\b(?:does not exist|not found|is not a valid model)"
        r"|not a valid model id|not found the model|模型不存在",
    ),
    _cause(
        401,
        "200 400",
        "invalid_api_key invalidapikey api_key_invalid invalid_authentication_error",
        r"api key not valid|(?:invalid|incorrect|wrong) api.?key|api.?key is invalid",
    ),
    _cause(
        429,
        "200 400",
        "throttlingexception throttling throttling.ratequota throttling.allocationquota "
        "requestratelimitexceeded",
        r"rate limit (?:reached|exceeded)|too many requests",
    ),
)

_FILTERED = "Output blocked by content filtering policy"
#: Texts that Claude Code 2.1.330 was seen to act on at once, by removing the images or by giving up, where
#: any other 400 is repeated up to six times: what it looks for, and the upstreams' codes and texts of the
#: same meaning.
_STOPPERS: tuple[tuple[str, frozenset[str], re.Pattern[str]], ...] = (
    (
        "Could not process image",
        frozenset(
            {
                "invalid_image_format",
                "image_parse_error",
                "invalid_base64_image",
                "invalid_image",
                "unsupported_image_media_type",
                "empty_image_file",
                "image_too_small",
            }
        ),
        re.compile(
            r"unsupported image\b|image data you provided|(?:unsupported|invalid) image format|valid image\b"
            r"|invalid base64 image|failed to (?:load|decode|process) (?:the )?image|cannot identify image file"
            r"|image format \S{1,40} not supported",
            re.IGNORECASE,
        ),
    ),
    (
        _FILTERED,
        # Azure; OpenAI; DashScope; GLM; MiniMax
        frozenset(
            {"content_filter", "content_policy_violation", "data_inspection_failed", "datainspectionfailed"}
        )
        | frozenset({"1301", "minimax_1026", "minimax_1027", "sensitivecontentdetected"}),
        re.compile(
            r"content exists risk|content management policy|inappropriate content|sensitive content",
            re.IGNORECASE,
        ),
    ),
)

#: The one date format that HTTP servers may send (RFC 9110, 5.6.7).
_DATE = re.compile(r"[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d GMT", re.ASCII)

#: Limits of a plan, for which a retry within minutes is useless: GLM, Kimi and MiniMax coding plans, free tiers.
_PLAN_LIMIT = re.compile(
    r"(?:weekly|monthly|daily|\d{1,9}[ -]?hours?)(?:/\w{1,20})? (?:usage )?(?:limit|quota)"
    r"|usage limit (?:reached|exceeded)|free.models.per.day",
    re.IGNORECASE,
)
_PLAN_CODES = frozenset({"1308", "1309", "1310", "usage_limit_reached"})

#: Part of the ids of Google's quotas that end with the day (gke-labs/gemini-for-kubernetes-development#1215).
_DAILY_QUOTA = "perday"

#: "Please try again in 7m12.5s", "Please retry in 38.2s.", "try again in 320ms", "retryDelay": "38s".
_WAIT = re.compile(
    r"(?:try again|retry)(?: again)? (?:in|after) "
    r"(?:(?P<ms>\d{1,7})ms|(?:(?P<h>\d{1,4})h)?(?:(?P<m>\d{1,4})m)?(?:(?P<s>\d{1,7}(?:\.\d{1,12})?) ?s)?)",
    re.IGNORECASE,
)

#: Where pydantic, and so vLLM, SGLang and LiteLLM, begin to repeat the request.
_ECHO = re.compile(r"(?:,?\s{0,8}\binput_value=|['\"]input['\"]\s{0,8}:\s{0,8})")

_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]+")


@dataclass(slots=True)
class ErrorContext:
    """What is known about the refused request.

    Args:
        route: its model id, for messages.
        window: the configured or learned context window, in tokens.
        estimated_input_tokens: our own count.
        max_tokens: as sent upstream.
        keys: the client's keys in the request; no message may repeat them.
        largest_accepted: the largest `estimated_input_tokens` that this upstream has accepted.
    """

    route: str = ""
    window: int | None = None
    estimated_input_tokens: int | None = None
    max_tokens: int | None = None
    keys: tuple[Secret, ...] = ()
    largest_accepted: int | None = None


def refusal(status: int, headers: Mapping[str, str], body: bytes, context: ErrorContext) -> ProxyError:
    """Build the error for an upstream response with an error status, or with status 200 and an error as its body.

    Args:
        status: the upstream's.
        headers: the upstream's, keys in lower case.
        body: as much as was read.
    """
    details = parse_error_body(body)
    if not details.message:
        if not body.strip() and status in (400, 413) and _is_evident(context, _SILENT_CERTAINTY):
            return _too_long(Overflow(), context)
        details = ErrorDetails(_default_message(status, context, details), details.codes, details.status)
    failure = _classify(status, headers, details, context)
    failure.body, failure.upstream_status = body, status
    return failure


def names_unknown_model(status: int, body: bytes) -> bool:
    """Return whether an error says, by its code or its text, that the model does not exist."""
    words = parse_error_body(body)
    text = words.message[:MAX_MESSAGE]
    if status == 404 and text.startswith("model: "):  # Anthropic's own
        return True
    return any(
        cause.status == 404 and (not cause.codes.isdisjoint(words.codes) or cause.text.search(text))
        for cause in _CAUSES
    )


def names_content_filter(body: bytes) -> bool:
    """Return whether an error says, by its code or its text, that a filter of contents has refused the request."""
    words = parse_error_body(body)
    return _stopper(replace(words, message=words.message[:MAX_MESSAGE])) == _FILTERED


def refusal_from_chunk(error: Any, context: ErrorContext) -> ProxyError:
    """Build the error for the ``error`` value of a stream event: an object, a text, or a bare code."""
    details = parse_error(error)
    if not details.message:
        details = ErrorDetails(
            _default_message(details.status or 200, context, details), details.codes, details.status
        )
    failure = _classify(200, {}, details, context)
    failure.upstream_status = 200
    with contextlib.suppress(jsonio.JSONError):
        failure.body = jsonio.dumps({"error": error})
    return failure


def _classify(
    status: int, headers: Mapping[str, str], details: ErrorDetails, context: ErrorContext
) -> Refused:
    message = details.message  # more of it is shown than is searched
    details = replace(details, message=message[:MAX_MESSAGE])
    effective = status if status >= 300 else 200
    if effective == 200:
        effective = details.status or next((_CODES[code] for code in details.codes if code in _CODES), 200)
    cause = _find_cause(effective, details)
    if cause is None:
        recoverable = _recoverable(effective, details, context)
        if recoverable is not None:
            return recoverable
    ours = _our_status(effective if cause is None else cause.status)
    stopper = _stopper(details) if ours == 400 or effective == 200 else None
    if stopper is not None:
        ours = 400
        details, message = ErrorDetails(f"{stopper}: {details.message}"), f"{stopper}: {message}"
    return Refused(
        _presentable(message, (*configured_secrets(), *context.keys)),
        status=ours,
        kind=kind_of_status(ours),
        headers=_headers(ours, headers, details),
    )


def _find_cause(status: int, details: ErrorDetails) -> _Cause | None:
    for cause in _CAUSES:
        if status in cause.statuses and (
            not cause.codes.isdisjoint(details.codes) or cause.text.search(details.message)
        ):
            return cause
    return None


def _recoverable(status: int, details: ErrorDetails, context: ErrorContext) -> Refused | None:
    """Return the error from which Claude Code recovers, where input or output are too long."""
    if status in _OVERFLOW_STATUSES:
        overflow = find_overflow(details.message, details.codes)
        if overflow is not None:
            return _too_long(overflow, context)
    if status in (200, 400, 422):
        limit = find_output_limit(details.message)
        if limit is not None:
            model = context.route or "this model"
            text = output_limit_message(limit, model=model, max_tokens=context.max_tokens)
            return Refused(text, status=400, kind="invalid_request_error")
    certainty = _VAGUE_CERTAINTY.get(status)
    if certainty is not None and _VAGUE.fullmatch(details.message) and _is_evident(context, certainty):
        return _too_long(Overflow(), context)
    return None


def _stopper(details: ErrorDetails) -> str | None:
    for text, codes, pattern in _STOPPERS:
        if not codes.isdisjoint(details.codes) or pattern.search(details.message):
            return text
    return None


def _our_status(status: int) -> int:
    return _STATUSES.get(status, 400 if 400 <= status < 500 else 502)


def _too_long(overflow: Overflow, context: ErrorContext) -> TooLong:
    text = overflow_message(
        overflow,
        window=context.window,
        estimated_input_tokens=context.estimated_input_tokens,
        max_tokens=context.max_tokens,
    )
    return TooLong(text, window=overflow.window)


def _is_evident(context: ErrorContext, certainty: float) -> bool:
    return is_evident(
        context.estimated_input_tokens,
        window=context.window,
        largest_accepted=context.largest_accepted,
        certainty=certainty,
    )


def _default_message(status: int, context: ErrorContext, details: ErrorDetails) -> str:
    """Return a sentence for an error without a text."""
    where = f"the upstream of {context.route}" if context.route else "the upstream"
    if 200 <= status < 300:
        said = "reported an error"
    else:
        try:
            said = f"answered {status} {HTTPStatus(status).phrase}"
        except ValueError:
            said = f"answered {status}"
    if details.codes:
        return f"{where} {said}: {', '.join(details.codes)}"
    return f"{where} {said} without saying why"


def _presentable(message: str, keys: Iterable[Secret]) -> str:
    """Remove keys, echoes of the request and control characters from `message`, and truncate it."""
    # Mask more than is kept, so that a key cut by the size limit is still recognised.
    text = redacted(message[: 2 * MAX_MESSAGE], keys)
    echo = _ECHO.search(text)
    if echo is not None:
        text = text[: echo.start()] + " …"
    text = without_named_keys(_CONTROLS.sub(" ", text)).strip()
    if len(text) > MAX_MESSAGE:
        text = text[: MAX_MESSAGE - 2] + " …"
    return text or "the upstream reported an error without saying why"


def _headers(ours: int, theirs: Mapping[str, str], details: ErrorDetails) -> dict[str, str]:
    if ours == 402:
        return {"x-should-retry": "false"}
    headers: dict[str, str] = {}
    if ours in (429, 500, 502, 504, 529):
        wait = _retry_after(theirs) or _wait_of(details) or _wait_in(details.message)
        if ours == 429 and any(_DAILY_QUOTA in code for code in details.codes):
            headers["x-should-retry"] = "false"  # Google names a wait of seconds for it all the same
        elif wait is not None:
            headers["retry-after"] = wait
        elif ours == 429 and (
            _PLAN_LIMIT.search(details.message) or not _PLAN_CODES.isdisjoint(details.codes)
        ):
            headers["x-should-retry"] = "false"
    return headers


def _wait_of(details: ErrorDetails) -> str | None:
    return None if details.wait_s is None else _seconds(f"{details.wait_s:.3f}")


def _retry_after(theirs: Mapping[str, str]) -> str | None:
    """Return ``retry-after`` in the form that Claude Code honours: whole seconds, at least 1, or a date."""
    value = theirs.get("retry-after", "").strip()
    seconds = _seconds(value)
    if seconds is not None:
        return seconds
    if _DATE.fullmatch(value):
        return value
    return _seconds(theirs.get("retry-after-ms", "").strip(), unit_s=0.001)


def _seconds(value: str, unit_s: float = 1.0) -> str | None:
    if not re.fullmatch(r"\d{1,12}(?:\.\d{1,12})?", value, re.ASCII):
        return None
    return str(min(max(1, math.ceil(float(value) * unit_s)), MAX_RETRY_AFTER_S))


def _wait_in(message: str) -> str | None:
    """Return the wait that OpenAI, Groq and Gemini write into the text, in whole seconds."""
    found = _WAIT.search(message)
    if found is None or found.lastgroup is None:
        return None
    part = {name: float(text) for name, text in found.groupdict().items() if text is not None}
    wait_s = part.get("ms", 0) / 1000 + part.get("h", 0) * 3600 + part.get("m", 0) * 60 + part.get("s", 0)
    return str(min(max(1, math.ceil(wait_s)), MAX_RETRY_AFTER_S))
