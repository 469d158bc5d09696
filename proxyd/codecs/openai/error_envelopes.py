"""Reading the many envelopes in which OpenAI-compatible servers put an error
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
    event: error, data: {…}                                         DashScope, also as the body of a 400
    HTML, text, nothing                                             whatever stands in front of the server

All functions are total: any value and any bytes give `Words`, at worst empty ones.
"""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from proxyd import jsonio

__all__ = ["Words", "error_in", "parse_error_body", "words_of"]

#: Envelopes inside envelopes that are followed; a gateway in front of a gateway makes four.
_MAX_NESTING = 6

#: Characters kept of one text; what is read of it later is shorter still.
_MAX_TEXT = 16_384

#: Entries of a validation error's list that are told.
_MAX_DETAILS = 3

#: Keys under which the text stands, by precedence.
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

#: Messages that say nothing while another field says it.
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
class Words:
    """What an error says.

    Args:
        message: the text, possibly empty; as it came, so it may hold anything.
        codes: codes and types, in lower case.
        status: an HTTP error status that the error names.
        param: the request's parameter that it names, as OpenAI does.
    """

    message: str = ""
    codes: tuple[str, ...] = ()
    status: int | None = None
    param: str = ""


def error_in(value: Any) -> Any | None:
    """The error of a parsed JSON body that is no completion, for `words_of`; None if there is none.

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


def parse_error_body(body: bytes) -> Words:
    """The words of an answer's body in any form."""
    text = body.decode("utf-8", "replace").lstrip("\ufeff \t\r\n")
    if text.startswith(("event:", "data:", "id:", ":")):
        lines = (line[5:].strip() for line in text.splitlines() if line.startswith("data:"))
        return _words_of_text(next(lines, ""))
    return _words_of_text(text)


def _words_of_text(text: str) -> Words:
    if text[:1] in ("{", "[", '"'):
        try:
            value = jsonio.loads(text)
        except jsonio.JSONError:
            return Words(text[:_MAX_TEXT].strip())
        return words_of(value)
    if re.match(r"<[!?a-z]", text, re.IGNORECASE):  # not DashScope's "<400> InternalError"
        return Words(_title(text[:_MAX_TEXT]))
    return Words(text[:_MAX_TEXT].strip())


def words_of(error: Any) -> Words:
    """The words of an error value: an object, a list, a text, or a bare code."""
    return _words(error, _MAX_NESTING)


def _title(page: str) -> str:
    for tag in ("title", "h1"):
        found = re.search(rf"<{tag}\b[^>]{{0,200}}>([^<]{{1,300}})", page, re.IGNORECASE)
        if found and found[1].strip():
            return " ".join(html.unescape(found[1]).split())
    return ""


def _words(error: Any, depth: int) -> Words:
    if depth == 0 or error is None or isinstance(error, bool):
        return Words()
    if isinstance(error, str):
        return _of_text(error)
    if isinstance(error, (int, float)):
        status = _status(error)
        return Words("", () if status else (str(error)[:20],), status)
    if isinstance(error, list):
        return _of_list(error, depth)
    return _of_object(error, depth) if isinstance(error, dict) else Words()


def _of_text(text: str) -> Words:
    text = text[:_MAX_TEXT].strip()
    status = _status(text)
    if status:
        return Words("", (), status)
    # A bare code, such as `"error": "rate_limit_exceeded"`, is its own text.
    return Words(text, (text.lower(),) if re.fullmatch(r"[A-Za-z_.]{3,64}", text) else ())


def _of_list(errors: list[Any], depth: int) -> Words:
    if not errors or (isinstance(errors[0], dict) and "error" in errors[0]):
        return _words(errors[0], depth - 1) if errors else Words()
    told = []
    for each in errors[:_MAX_DETAILS]:
        words = _words(each, depth - 1)
        place = each.get("loc") if isinstance(each, dict) else None
        if isinstance(place, list) and place:
            path = ".".join(str(part)[:80] for part in place[:12] if isinstance(part, (str, int)))
            told.append(f"{path}: {words.message}")
        elif words.message:
            told.append(words.message)
    return Words("; ".join(told))


def _of_object(error: dict[str, Any], depth: int) -> Words:
    base = error.get("base_resp")
    if isinstance(base, dict):
        code = base.get("status_code")
        status = _MINIMAX.get(code) if isinstance(code, int) else None
        return Words(
            _text(base.get("status_msg")), (f"minimax_{code}",) if isinstance(code, int) else (), status
        )

    message, codes, status, param = "", list(_codes(error)), _status_in(error), _text(error.get("param"))
    for key in _MESSAGES:
        inner = _words(error.get(key), depth - 1)
        if inner.message or inner.codes or inner.status:
            message = message or inner.message
            codes += inner.codes
            status = status or inner.status
            param = param or inner.param
        if message:
            break

    metadata = error.get("metadata")
    if isinstance(metadata, dict):
        raw = metadata.get("raw")
        inner = (
            parse_error_body(raw.encode("utf-8", "replace"))
            if isinstance(raw, str)
            else _words(raw, depth - 1)
        )
        if inner.message and inner.message != message:
            provider = _text(metadata.get("provider_name"))[:80]
            message = f"{provider}: {inner.message}" if provider else inner.message
        codes += inner.codes
        param = param or inner.param
    if "n_ctx" in error:  # llama.cpp before 2026 keeps the numbers out of the text
        message += f" (n_prompt_tokens: {error.get('n_prompt_tokens')}, n_ctx: {error['n_ctx']})"[:80]
    if message.lower() in _VAGUE:
        # MiMo puts the sentence into `param`; a parameter's name has no blanks.
        message = f"{message}: {param}" if " " in param else message
    return Words(message, tuple(dict.fromkeys(codes)), status, param)


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
