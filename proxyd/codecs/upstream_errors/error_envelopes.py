"""Parse the many envelopes in which OpenAI-compatible servers put an error
(docs/spec/chat-completions.md#envelopes)::

    {"error": {"message", "type", "param", "code"}}                 OpenAI, and most
    {"error": {"code": 429, "message", "metadata": {"raw": …}}}     OpenRouter; raw: the provider's error
    [{"error": {"code": 400, "message", "status"}}]                 Gemini
    {"object": "error", "message", "type", "code": 400}             older vLLM, SGLang; Mistral (object)
    {"error": "text"}                                               Ollama
    {"detail": "text"}, {"detail": [{"loc", "msg", "type"}]}        FastAPI
    {"code", "message"}, {"code", "msg", "success": false}          DashScope, SiliconFlow, GLM
    {"base_resp": {"status_code", "status_msg"}}                    MiniMax, with status 200
    {"errors": [{"message", "code": 5021}], "success": false}       Cloudflare, watsonx
    {"throttlingException": {"message"}}, {"header": {"code", …}}   AWS, Spark: an object under any name
    event: error, data: {…}                                         DashScope, also as the body of a 400
    HTML, text, nothing                                             any proxy in front of the server

All functions are total: any value and any bytes give `ErrorDetails`, if only empty ones.
"""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from proxyd import jsonio

__all__ = ["ErrorDetails", "error_in", "parse_error", "parse_error_body"]

#: Envelopes inside envelopes that are followed; a gateway in front of a gateway makes four.
_MAX_NESTING = 6

#: Characters kept of one text; later limits are lower.
_MAX_TEXT = 16_384

#: Entries of a validation error's list that are shown.
_MAX_DETAILS = 3

#: Entries of Google's ``details`` that are read.
_MAX_GOOGLE_DETAILS = 8
#: A duration as protobuf writes it in JSON.
_SECONDS = re.compile(r"(\d{1,7}(?:\.\d{1,9})?)s")

#: Keys of the text, by precedence.
_MESSAGES = (
    "message",
    "msg",
    "detail",
    "details",
    "status_msg",
    "error_msg",
    "error_message",
    "errorMessage",
    "error_description",
    "Message",
    "exception",
    "error",
    "errors",
    "Error",
    "Msg",
    "err",
    "reason",
    "failure_reason",
    "faultstring",
    "title",
)

#: Those of them that an object without choices has only where it is an error.
_TEXTS = (
    "message",
    "msg",
    "error_msg",
    "error_message",
    "errorMessage",
    "error_description",
    "Message",
    "exception",
)

#: Members that hold no error, whatever is in them.
_NO_ERRORS = frozenset(
    {"metadata", "choices", "usage", "message", "delta", "param", "params", "input", "request"}
)
#: Names of members that are codes: AWS's exceptions.
_ERROR_NAME = re.compile(r"(?:exception|error)\Z", re.IGNORECASE)

#: Messages without information, which another field may have.
_VAGUE = frozenset({"provider returned error", "param incorrect", "error", "bad request", "upstream error"})

#: MiniMax's ``base_resp.status_code`` -> HTTP status.
#: https://platform.minimax.io/docs/api-reference/errorcode
_MINIMAX: Mapping[int, int] = {
    1000: 500,
    1001: 504,
    1002: 429,
    1004: 401,
    1008: 402,
    1013: 500,
    1024: 500,
    1026: 400,
    1027: 400,
    1033: 500,
    1039: 429,
    1041: 429,
    2013: 400,
    2049: 401,
    2056: 429,
}


@dataclass(frozen=True, slots=True)
class ErrorDetails:
    """What an upstream's error says.

    Args:
        message: the text, possibly empty; unfiltered, so it may hold keys and prompts.
        codes: codes and types, in lower case.
        status: an HTTP error status that the error names.
        param: the request's parameter that it names, as OpenAI does.
        wait_s: how long to wait, where a field says it.
    """

    message: str = ""
    codes: tuple[str, ...] = ()
    status: int | None = None
    param: str = ""
    wait_s: float | None = None


def error_in(value: Any) -> Any | None:
    """Return the error in a parsed JSON body, for `parse_error`; None if there is none.

    ``error: null`` and ``error: {}`` of a completion or chunk are none.
    """
    if isinstance(value, list):
        return error_in(value[0]) if value and isinstance(value[0], dict) else None
    if not isinstance(value, dict):
        return None
    if value.get("error"):
        # Some gateways write `"error": true` and the text beside it.
        return value if isinstance(value["error"], (bool, int, float)) else value["error"]
    base = value.get("base_resp")
    if isinstance(base, dict) and base.get("status_code") not in (0, None, "0"):
        return {"base_resp": base}
    if value.get("choices") or value.get("object") == "chat.completion.chunk":
        return None
    if value.get("object") == "error" or value.get("detail"):
        return value
    errors = value.get("errors")
    if isinstance(errors, list) and errors:
        return value
    has_failed = value.get("status") in ("error", "failed") or value.get("success") is False
    has_text = any(isinstance(value.get(key), str) and value[key] for key in _TEXTS)
    return value if has_failed or has_text else None


def parse_error_body(body: bytes) -> ErrorDetails:
    """Parse the body of a response, whatever its form."""
    text = body.decode("utf-8", "replace").lstrip("\ufeff \t\r\n")
    if text.startswith(("event:", "data:", "id:", ":")):
        lines = (line[5:].strip() for line in text.splitlines() if line.startswith("data:"))
        return _parse_text(next(lines, ""))
    return _parse_text(text)


def _parse_text(text: str) -> ErrorDetails:
    if text[:1] in ("{", "[", '"'):
        try:
            value = jsonio.loads(text)
        except jsonio.JSONError:
            return ErrorDetails(text[:_MAX_TEXT].strip())
        return parse_error(value)
    if re.match(r"<[!?a-z]", text, re.IGNORECASE):  # not DashScope's "<400> InternalError"
        return ErrorDetails(_title(text[:_MAX_TEXT]))
    return ErrorDetails(text[:_MAX_TEXT].strip())


def parse_error(error: Any) -> ErrorDetails:
    """Parse an error value: an object, a list, a text, or a bare code."""
    return _parse(error, _MAX_NESTING)


def _title(page: str) -> str:
    for tag in ("title", "h1"):
        found = re.search(rf"<{tag}\b[^>]{{0,200}}>([^<]{{1,300}})", page, re.IGNORECASE)
        if found and found[1].strip():
            return " ".join(html.unescape(found[1]).split())
    return ""


def _parse(error: Any, depth: int) -> ErrorDetails:
    if depth == 0 or error is None or isinstance(error, bool):
        return ErrorDetails()
    if isinstance(error, str):
        return _of_text(error)
    if isinstance(error, (int, float)):
        status = _status(error)
        return ErrorDetails("", () if status else (str(error)[:20],), status)
    if isinstance(error, list):
        return _of_list(error, depth)
    return _of_object(error, depth) if isinstance(error, dict) else ErrorDetails()


def _of_text(text: str) -> ErrorDetails:
    text = text[:_MAX_TEXT].strip()
    status = _status(text)
    if status:
        return ErrorDetails("", (), status)
    # A bare code, such as `"error": "rate_limit_exceeded"`, is its own text.
    return ErrorDetails(text, (text.lower(),) if re.fullmatch(r"[A-Za-z_.]{3,64}", text) else ())


def _of_list(errors: list[Any], depth: int) -> ErrorDetails:
    if not errors or (isinstance(errors[0], dict) and "error" in errors[0]):
        return _parse(errors[0], depth - 1) if errors else ErrorDetails()
    texts = []
    for each in errors[:_MAX_DETAILS]:
        details = _parse(each, depth - 1)
        place = each.get("loc") if isinstance(each, dict) else None
        if isinstance(place, list) and place:
            path = ".".join(str(part)[:80] for part in place[:12] if isinstance(part, (str, int)))
            texts.append(f"{path}: {details.message}")
        elif details.message:
            texts.append(details.message)
    return ErrorDetails("; ".join(texts))


def _of_object(error: dict[str, Any], depth: int) -> ErrorDetails:
    base = error.get("base_resp")
    if isinstance(base, dict):
        return _of_minimax(base)
    details = _of_fields(error, depth)
    details = _with_provider_error(details, error.get("metadata"), depth)
    if "n_ctx" in error:  # llama.cpp before 2026 keeps the numbers out of the text
        counts = f" (n_prompt_tokens: {error.get('n_prompt_tokens')}, n_ctx: {error['n_ctx']})"
        details = replace(details, message=details.message + counts[:80])
    if details.message.lower() in _VAGUE and " " in details.param:
        # MiMo puts the sentence into `param`; a parameter's name has no blanks.
        details = replace(details, message=f"{details.message}: {details.param}")
    if isinstance(error.get("details"), list):
        details = _with_google_details(details, error["details"])
    return replace(details, codes=tuple(dict.fromkeys(details.codes)))


def _with_google_details(details: ErrorDetails, more: list[Any]) -> ErrorDetails:
    """Add what Google says in ``details``: ``RetryInfo.retryDelay`` and the ids of exceeded quotas."""
    codes, wait_s = list(details.codes), details.wait_s
    for each in more[:_MAX_GOOGLE_DETAILS]:
        if not isinstance(each, dict):
            continue
        delay = each.get("retryDelay")
        if isinstance(delay, str) and (found := _SECONDS.fullmatch(delay)):
            wait_s = float(found[1])
        violations = each.get("violations")
        for violation in violations[:_MAX_GOOGLE_DETAILS] if isinstance(violations, list) else ():
            quota = violation.get("quotaId") if isinstance(violation, dict) else None
            if isinstance(quota, str) and re.fullmatch(r"[\w.-]{1,100}", quota):
                codes.append(quota.lower())
    return replace(details, codes=tuple(codes), wait_s=wait_s)


def _of_minimax(base: dict[str, Any]) -> ErrorDetails:
    code = base.get("status_code")
    codes = (f"minimax_{code}",) if isinstance(code, int) else ()
    status = _MINIMAX.get(code) if isinstance(code, int) else None
    return ErrorDetails(_text(base.get("status_msg")), codes, status)


def _of_fields(error: dict[str, Any], depth: int) -> ErrorDetails:
    """Read the first message among the fields of an error, and the codes up to there."""
    message, codes, status, param = "", list(_codes(error)), _status_in(error), _text(error.get("param"))
    wait_s = None
    for key in _MESSAGES:
        inner = _parse(error.get(key), depth - 1)
        if inner.message or inner.codes or inner.status:
            message = message or inner.message
            codes += inner.codes
            status = status or inner.status
            param = param or inner.param
            wait_s = inner.wait_s if wait_s is None else wait_s
        if message:
            break
    if not message:
        for name, value in error.items():
            if not isinstance(value, dict) or name in _NO_ERRORS:
                continue
            inner = _parse(value, depth - 1)
            if inner.message:
                named = (name.lower(),) if _ERROR_NAME.search(name) else ()
                codes += [*named, *inner.codes]
                return ErrorDetails(
                    inner.message, tuple(codes), status or inner.status, param or inner.param, inner.wait_s
                )
    return ErrorDetails(message, tuple(codes), status, param, wait_s)


def _with_provider_error(details: ErrorDetails, metadata: Any, depth: int) -> ErrorDetails:
    """Prefer the provider's own error, which OpenRouter adds as ``metadata.raw``."""
    if not isinstance(metadata, dict):
        return details
    raw = metadata.get("raw")
    if isinstance(raw, str):
        inner = parse_error_body(raw.encode("utf-8", "replace"))
    else:
        inner = _parse(raw, depth - 1)
    message = details.message
    if inner.message and inner.message != message:
        provider = _text(metadata.get("provider_name"))[:80]
        message = f"{provider}: {inner.message}" if provider else inner.message
    wait_s = details.wait_s if inner.wait_s is None else inner.wait_s
    return ErrorDetails(
        message, details.codes + inner.codes, details.status, details.param or inner.param, wait_s
    )


def _codes(error: dict[str, Any]) -> list[str]:
    found = []
    for key in ("code", "type", "status", "reason", "error_code"):
        value = error.get(key)
        if isinstance(value, int) and not isinstance(value, bool) and not _status(value):
            found.append(str(value)[:20])
        elif (
            isinstance(value, str)
            and value != "error"
            and not _status(value)
            and re.fullmatch(r"[\w.-]{1,64}", value)
        ):
            found.append(value.lower())
    details = error.get("details")
    if isinstance(details, list):  # Google's ErrorInfo
        found += [
            each["reason"].lower()
            for each in details[:8]
            if isinstance(each, dict) and isinstance(each.get("reason"), str) and len(each["reason"]) <= 64
        ]
    return found


def _status_in(error: dict[str, Any]) -> int | None:
    for key in ("code", "status_code", "http_code", "status", "statusCode"):
        status = _status(error.get(key))
        if status:
            return status
    return None


def _status(value: Any) -> int | None:
    """`value` as an HTTP error status, if it is one."""
    if isinstance(value, str) and re.fullmatch(r"[45]\d\d", value, re.ASCII):
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool) and 400 <= value <= 599:
        return value
    return None


def _text(value: Any) -> str:
    return value[:_MAX_TEXT].strip() if isinstance(value, str) else ""
