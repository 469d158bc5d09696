"""Responses that show that an entry of models.yaml has a wrong address, or the wrong mode.

Claude Code hides the message of each 404 behind a sentence about the model (docs/spec/claude-code.md#http-errors), so a
404 is passed on only where the upstream itself says that the model does not exist. Every other one names the address
that was called, what came from there, and what to do.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import urlsplit

from proxyd import jsonio
from proxyd.codecs.upstream_errors.error_envelopes import parse_error_body
from proxyd.codecs.upstream_errors.errors import ErrorContext, names_unknown_model, refusal
from proxyd.errors import NO_RETRY, STATUSES_WITH_RECOVERY, ProxyError, Refused, WrongAddress
from proxyd.redaction import redacted
from proxyd.urls import address_of

__all__ = [
    "EXCERPT_BYTES",
    "address_error",
    "page_error",
    "protocol_error",
    "redirect_error",
    "translated_error",
]

#: How much of a response's beginning is looked at.
EXCERPT_BYTES = 1024
#: How much of an upstream's message is repeated.
_MAX_MESSAGE = 200

#: Messages of servers and frameworks about a path, in place of an API's message about the request.
_NO_PATH = re.compile(
    r"\W{0,9}(?:error\W{1,3})?(?:40[45]\W{1,3})?"
    r"(?:(?:the )?(?:requested )?(?:page|file|resource|route|path|url|endpoint) (?:was |is )?)?"
    r"(?:not[ _]found|method not allowed)\W{0,5}\Z"
    r"|.{0,40}?\b(?:invalid url|unknown (?:request )?url|unrecognized request url|no route matched"
    r"|no (?:such )?(?:route|endpoint|path)\b(?! found)|unexpected endpoint|cannot (?:post|get) /|no static resource)",
    re.IGNORECASE,
)
_HAS_VERSION = re.compile(r"/v\d{1,3}[a-z0-9]{0,9}(?:/|$)")
#: Keys of a response in either protocol. A quote that is not escaped is not part of what a model wrote.
_ANTHROPIC = re.compile(rb'(?<!\\)"type"\s{0,9}:\s{0,9}"message(?:_start)?"')
_OPENAI = re.compile(
    rb'(?<!\\)"object"\s{0,9}:\s{0,9}"(?:chat\.completion|response")|(?<!\\)"type"\s{0,9}:\s{0,9}"response\.'
)
#: Parts of what the patterns match: to search for one of them takes a twentieth of the time.
_PARTS = {_ANTHROPIC: (b'"message',), _OPENAI: (b'"chat.completion', b'"response')}


def translated_error(
    status: int, headers: Mapping[str, str], body: bytes, url: str, context: ErrorContext
) -> ProxyError:
    """Return the error for an error response of a translated route.

    Args:
        status, headers, body: of the response; names in lower case.
        url: what was called.
    """
    wrong = address_error(status, body, url, is_direct=False)
    if wrong is not None:
        return wrong
    failure = refusal(status, headers, body, context)
    if isinstance(failure, Refused) and failure.status not in STATUSES_WITH_RECOVERY:
        failure.message += f" ({address_of(url)} answered {status})"
        if failure.kind == "billing_error":
            failure.message += "; top up the account there, or choose another model"
    return failure


def address_error(status: int, body: bytes, url: str, *, is_direct: bool) -> ProxyError | None:
    """Return the error for a 404 or 405 that is not about a model; else None.

    Args:
        status, body: of the upstream's error.
        url: what was called.
    """
    if status not in (404, 405) or names_unknown_model(status, body):
        return None
    message = parse_error_body(body).message
    is_page = body.lstrip()[:1] == b"<"
    speaks = "" if is_page else _protocol_of_error(body)
    if is_page or not message or _NO_PATH.match(message[:_MAX_MESSAGE]) or not speaks:
        came = "a page" if is_page else f"“{_shown(message)}”" if message else "no message"
        return WrongAddress(
            f"{address_of(url)} answered {status} ({came}): {_remedy(url, speaks, is_direct=is_direct)}"
        )
    if is_direct and speaks == "anthropic":
        return None
    meaning = refusal(status, {}, body, ErrorContext())
    return Refused(
        f"{meaning.message} ({address_of(url)} answered {status})",
        status=400,
        kind="invalid_request_error",
        headers=NO_RETRY,
    )


def redirect_error(status: int, location: str, url: str) -> WrongAddress:
    """Return the error for a redirect, which is not followed."""
    target = f" to {_shown(address_of(location))}" if location else ""
    return WrongAddress(
        f"{address_of(url)} answered with a redirect ({status}){target}, which is not followed, since that would carry "
        "the key to another address: correct api_base in models.yaml"
    )


def page_error(url: str, outline: str, *, is_direct: bool) -> WrongAddress:
    """Return the error for a web page with status 200."""
    exc = WrongAddress(
        f"{address_of(url)} answered with a page, not with a message: {_remedy(url, '', is_direct=is_direct)}"
    )
    exc.detail = outline
    return exc


def protocol_error(
    failure: ProxyError | None, beginning: bytes, url: str, *, is_direct: bool
) -> WrongAddress | None:
    """Return the error for a response of status 200 that belongs to the other protocol or to no endpoint; else None.

    Args:
        failure: what reading it led to.
        beginning: its first bytes.
    """
    beginning = beginning[:EXCERPT_BYTES]
    if beginning.lstrip()[:1] == b"<":
        outline = failure.detail if failure is not None else ""
        return page_error(url, outline, is_direct=is_direct)
    theirs, others = (_ANTHROPIC, _OPENAI) if is_direct else (_OPENAI, _ANTHROPIC)
    if _has(beginning, others) and not _has(beginning, theirs):
        speaks = "openai" if is_direct else "anthropic"
        came = "OpenAI's" if is_direct else "Anthropic's"
        return WrongAddress(
            f"{address_of(url)} answered in the form of {came} API: {_remedy(url, speaks, is_direct=is_direct)}"
        )
    if isinstance(failure, Refused) and _NO_PATH.match(failure.message[:_MAX_MESSAGE]):
        return WrongAddress(
            f"{address_of(url)} answered “{_shown(failure.message)}”: {_remedy(url, '', is_direct=is_direct)}"
        )
    return None


def _has(beginning: bytes, keys: re.Pattern[bytes]) -> bool:
    return any(part in beginning for part in _PARTS[keys]) and keys.search(beginning) is not None


def _remedy(url: str, speaks: str, *, is_direct: bool) -> str:
    path = urlsplit(url).path
    if is_direct:
        if speaks == "openai":
            return "this speaks OpenAI's API: leave `direct` out of the entry in models.yaml"
        return "correct api_base in models.yaml, or leave `direct` out of the entry if this server speaks OpenAI's API"
    if speaks == "anthropic" or "/anthropic" in path:
        return "this speaks Anthropic's API: set `direct: true` in the entry of models.yaml"
    if path.endswith("/responses"):
        return (
            "there is no such path; correct api_base in models.yaml, or, if this server has no Responses API, write "
            "`format: openai-chat`"
        )
    if not _HAS_VERSION.search(path):
        return "there is no such path; correct api_base in models.yaml: it usually ends in /v1"
    return "there is no such path; correct api_base in models.yaml"


def _protocol_of_error(body: bytes) -> str:
    """Return the protocol to which the envelope of an error belongs, or "" for neither."""
    try:
        value = jsonio.loads(body)
    except jsonio.JSONError:
        return ""
    if not isinstance(value, dict):
        return ""
    error = value.get("error")
    if value.get("type") == "error" and isinstance(error, dict):
        return "anthropic"
    if isinstance(error, dict) or value.get("object") == "error":
        return "openai"
    return ""


def _shown(message: str) -> str:
    """Return the beginning of an upstream's message, without keys and line breaks."""
    text = " ".join(redacted(message[: 2 * _MAX_MESSAGE]).split())
    return text if len(text) <= _MAX_MESSAGE else text[: _MAX_MESSAGE - 2] + " …"
