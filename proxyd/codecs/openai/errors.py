"""What our client is told when an OpenAI-compatible server says no (docs/spec/chat-completions.md#errors and
docs/spec/errors.md#mapping).

Three steps. *Read*: the body, in whatever envelope, gives a message, codes and perhaps a status
(`error_words`). *Judge*: words that tell the cause beat the status, because vendors disagree about statuses:
an empty account is 400, 403 or 429, a wrong key 400, an overloaded engine 429. *Tell*: status and Anthropic
type by the table, the upstream's own text, with keys masked and echoes of the request cut off, and the
headers by which Claude Code waits or stops.

A 400 whose cause cannot be told costs the user up to six calls, since Claude Code then drops one feature
after the other (docs/spec/claude-code.md#http-errors). So what can be healed takes the wording that heals it, see
`overflow`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Any

from proxyd.codecs.openai.context_overflow import (
    Overflow,
    find_output_limit,
    find_overflow,
    is_evident,
    output_limit_message,
    overflow_message,
)
from proxyd.codecs.openai.error_envelopes import Words, error_in, parse_error_body, words_of
from proxyd.errors import ProxyError, Refused, TooLong, kind_of_status
from proxyd.redaction import redacted, without_named_keys
from proxyd.secret import Secret, configured_secrets

__all__ = ["ErrorContext", "error_in", "names_unknown_model", "refusal", "refusal_from_chunk"]

#: docs/spec/errors.md#message. Room for a long validation message, none for a prompt.
MAX_MESSAGE = 2000

#: Seconds; the longest real waits are those of monthly plans.
MAX_RETRY_AFTER_S = 31 * 86_400

#: Statuses under which an overflow was seen.
_OVERFLOW_STATUSES = frozenset({200, 400, 403, 413, 422, 429, 500, 502})

#: Texts that say no more than the status does.
_VAGUE = re.compile(
    r"(?:error:? )?(?:code:? )?(?:\d{3}:? )?(?:bad request|invalid request|request (?:entity |body )?too large"
    r"|(?:payload|content) too large|unprocessable (?:entity|content)|internal (?:server )?error"
    r"|(?:provider|upstream) (?:returned )?error|unknown error|error|invalid parameters?|param(?:eter)? incorrect"
    r"|参数错误|请求错误)[.!。]?",
    re.IGNORECASE,
)

#: Status of a vague refusal -> the part of the window from which on it is taken for an overflow. A 500 has so many
#: other causes that only a prompt over the window counts.
_VAGUE_CERTAINTY: Mapping[int, float] = {400: 0.9, 413: 0.9, 422: 0.9, 500: 1.0}

#: The same for a refusal with an empty body. An estimate can be off by half, and a short prompt is never too long.
_SILENT_CERTAINTY = 0.5

#: Upstream status -> our status, which tells the type. The rest goes by its hundreds, see `_our_status`.
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
    499: 502,  # the upstream's own proxy lost patience
    500: 500,
    503: 529,
    504: 504,
    524: 504,  # Cloudflare: the origin did not answer in time
    529: 529,
}

#: Codes, types and gRPC statuses, lower case -> the HTTP status they stand for. Consulted where there is
#: none, that is in chunks and in answers of status 200.
_CODES: Mapping[str, int] = {
    "invalid_request_error": 400,
    "invalid_argument": 400,
    "failed_precondition": 400,
    "badrequesterror": 400,
    "bad_request": 400,
    "content_filter": 400,
    "content_policy_violation": 400,
    "authentication_error": 401,
    "unauthenticated": 401,
    "billing_error": 402,
    "permission_error": 403,
    "permission_denied": 403,
    "not_found": 404,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
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
    """A cause that words tell better than the status.

    Args:
        status: the upstream status that fits it.
        among: the statuses under which the words are believed; 200 stands for "no status".
        codes: whole codes or types, lower case.
        text: in the message.
    """

    status: int
    among: frozenset[int]
    codes: frozenset[str]
    text: re.Pattern[str]


def _cause(status: int, among: str, codes: str, text: str) -> _Cause:
    return _Cause(
        status, frozenset(map(int, among.split())), frozenset(codes.split()), re.compile(text, re.IGNORECASE)
    )


#: In order of precedence. An empty account is said in many ways and under many statuses; to retry it is
#: useless.
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
        "engine_overloaded_error serveroverloaded overloaded_error server_overloaded model_overloaded 1305",
        r"\b(?:is|are) (?:currently |temporarily )?overloaded|server overloaded"
        r"|no (?:available )?capacity|at capacity",
    ),
    _cause(
        404,
        "200 400 403 404 422",
        "model_not_found invalidendpointormodel.notfound modelnotopen model_not_exist 1211 20012",
        r"model not exist|\bmodel\b[^.]{0,120}\b(?:does not exist|not found|is not a valid model)"
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

#: Texts that Claude Code 2.1.330 was seen to act on at once, by removing the images or by giving up, where
#: any other 400 is repeated up to six times: what it looks for, and the upstreams' codes and words that mean
#: the same.
_STOPPERS: tuple[tuple[str, frozenset[str], re.Pattern[str]], ...] = (
    (
        "Could not process image",
        frozenset({"invalid_image_format", "image_parse_error", "invalid_base64_image"}),
        re.compile(
            r"unsupported image\b|image data you provided|(?:unsupported|invalid) image format|valid image\b"
            r"|invalid base64 image|failed to (?:load|decode|process) (?:the )?image|cannot identify image file"
            r"|image format \S{1,40} not supported",
            re.IGNORECASE,
        ),
    ),
    (
        "Output blocked by content filtering policy",
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

#: Limits of a plan, which no retry within minutes outlives: GLM, Kimi and MiniMax coding plans, free tiers.
_PLAN_LIMIT = re.compile(
    r"(?:weekly|monthly|daily|\d{1,9}[ -]?hours?)(?:/\w{1,20})? (?:usage )?(?:limit|quota)"
    r"|usage limit (?:reached|exceeded)|free.models.per.day",
    re.IGNORECASE,
)
_PLAN_CODES = frozenset({"1308", "1309", "1310", "usage_limit_reached"})

#: "Please try again in 7m12.5s", "Please retry in 38.2s.", "try again in 320ms", "retryDelay": "38s".
_WAIT = re.compile(
    r"(?:try again|retry)(?: again)? (?:in|after) "
    r"(?:(?P<ms>\d{1,7})ms|(?:(?P<h>\d{1,4})h)?(?:(?P<m>\d{1,4})m)?(?:(?P<s>\d{1,7}(?:\.\d{1,12})?) ?s)?)",
    re.IGNORECASE,
)

#: From here on pydantic, and so vLLM, SGLang and LiteLLM, repeat the request.
_ECHO = re.compile(r"(?:,?\s{0,8}\binput_value=|['\"]input['\"]\s{0,8}:\s{0,8})")

_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]+")


@dataclass(slots=True)
class ErrorContext:
    """What is known of the request that was refused.

    Args:
        route: its model id, for messages.
        window: the configured context window, in tokens, or the one that was learned.
        estimated_input_tokens: our own count.
        max_tokens: as sent upstream.
        keys: the client's that it carried; no message may repeat them.
        largest_accepted: the largest `estimated_input_tokens` that this upstream has accepted.
    """

    route: str = ""
    window: int | None = None
    estimated_input_tokens: int | None = None
    max_tokens: int | None = None
    keys: tuple[Secret, ...] = ()
    largest_accepted: int | None = None


def refusal(status: int, headers: Mapping[str, str], body: bytes, context: ErrorContext) -> ProxyError:
    """The answer for an upstream that answered with an error: a status, or a 200 whose body is one.

    Args:
        status: the upstream's.
        headers: the upstream's, keys in lower case.
        body: as much of it as was read.
    """
    words = parse_error_body(body)
    if not words.message:
        if not body.strip() and status in (400, 413) and _is_evident(context, _SILENT_CERTAINTY):
            return _too_long(Overflow(), context)
        words = Words(_silent(status, context, words), words.codes, words.status)
    return _judge(status, headers, words, context)


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


def refusal_from_chunk(error: Any, context: ErrorContext) -> ProxyError:
    """The answer for the ``error`` value inside a stream event: an object, a text, or a bare code."""
    words = words_of(error)
    if not words.message:
        words = Words(_silent(words.status or 200, context, words), words.codes, words.status)
    return _judge(200, {}, words, context)


def _judge(status: int, headers: Mapping[str, str], words: Words, context: ErrorContext) -> Refused:
    message = words.message  # shown further than it is judged
    words = replace(words, message=message[:MAX_MESSAGE])
    told = status if status >= 300 else 200
    if told == 200:
        told = words.status or next((_CODES[code] for code in words.codes if code in _CODES), 200)
    cause = next(
        (
            each
            for each in _CAUSES
            if told in each.among
            and (not each.codes.isdisjoint(words.codes) or each.text.search(words.message))
        ),
        None,
    )
    if cause is None:
        if told in _OVERFLOW_STATUSES:
            overflow = find_overflow(words.message, words.codes)
            if overflow is not None:
                return _too_long(overflow, context)
        if told in (200, 400, 422):
            limit = find_output_limit(words.message)
            if limit is not None:
                text = output_limit_message(
                    limit, model=context.route or "this model", max_tokens=context.max_tokens
                )
                return Refused(text, status=400, kind="invalid_request_error")
        certainty = _VAGUE_CERTAINTY.get(told)
        if certainty is not None and _VAGUE.fullmatch(words.message) and _is_evident(context, certainty):
            return _too_long(Overflow(), context)
    ours = _our_status(told if cause is None else cause.status)
    stopper = _stopper(words) if ours == 400 or told == 200 else None
    if stopper is not None:
        ours = 400
        words, message = Words(f"{stopper}: {words.message}"), f"{stopper}: {message}"
    return Refused(
        _presentable(message, (*configured_secrets(), *context.keys)),
        status=ours,
        kind=kind_of_status(ours),
        headers=_headers(ours, headers, words),
    )


def _stopper(words: Words) -> str | None:
    for text, codes, pattern in _STOPPERS:
        if not codes.isdisjoint(words.codes) or pattern.search(words.message):
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


def _silent(status: int, context: ErrorContext, words: Words) -> str:
    """A sentence for an upstream that gave a status and nothing to read, or only codes."""
    where = f"the upstream of {context.route}" if context.route else "the upstream"
    if 200 <= status < 300:
        said = "reported an error"
    else:
        try:
            said = f"answered {status} {HTTPStatus(status).phrase}"
        except ValueError:
            said = f"answered {status}"
    if words.codes:
        return f"{where} {said}: {', '.join(words.codes)}"
    return f"{where} {said} without saying why"


def _presentable(message: str, keys: Iterable[Secret]) -> str:
    """`message` without `keys`, what looks like one, echoes of the request, and control characters; not too long."""
    # Masking looks at a little more than is kept, so that a key at the cut does not lose its end unseen.
    text = redacted(message[: 2 * MAX_MESSAGE], keys)
    echo = _ECHO.search(text)
    if echo is not None:
        text = text[: echo.start()] + " …"
    text = without_named_keys(_CONTROLS.sub(" ", text)).strip()
    if len(text) > MAX_MESSAGE:
        text = text[: MAX_MESSAGE - 2] + " …"
    return text or "the upstream reported an error without saying why"


def _headers(ours: int, theirs: Mapping[str, str], words: Words) -> dict[str, str]:
    if ours == 402:
        return {"x-should-retry": "false"}
    headers: dict[str, str] = {}
    if ours in (429, 500, 502, 504, 529):
        wait = _retry_after(theirs) or _wait_in(words.message)
        if wait is not None:
            headers["retry-after"] = wait
        elif ours == 429 and (_PLAN_LIMIT.search(words.message) or not _PLAN_CODES.isdisjoint(words.codes)):
            headers["x-should-retry"] = "false"
    return headers


def _retry_after(theirs: Mapping[str, str]) -> str | None:
    """``retry-after`` as Claude Code honours it: whole seconds, at least 1."""
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
    """The wait that OpenAI, Groq and Gemini write into the text, in whole seconds."""
    found = _WAIT.search(message)
    if found is None or found.lastgroup is None:
        return None
    part = {name: float(text) for name, text in found.groupdict().items() if text is not None}
    wait_s = part.get("ms", 0) / 1000 + part.get("h", 0) * 3600 + part.get("m", 0) * 60 + part.get("s", 0)
    return str(min(max(1, math.ceil(wait_s)), MAX_RETRY_AFTER_S))
