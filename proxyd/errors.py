"""Everything that can go wrong, and what the client is told.

::

    ProxyError                    500 api_error              we broke
    ├── ClientError               400 invalid_request_error  our caller broke the API
    │   ├── BadCredential         401 authentication_error
    │   ├── Forbidden             403 permission_error
    │   ├── NotFound              404 not_found_error
    │   ├── MethodNotAllowed      405 invalid_request_error
    │   ├── BodyTimedOut          408 invalid_request_error
    │   ├── BodyTooLarge          413 request_too_large
    │   ├── UnsupportedMedia      415 invalid_request_error
    │   ├── UnknownExpectation    417 invalid_request_error
    │   └── Misdirected           421 invalid_request_error
    ├── UpstreamError             502 api_error              the upstream broke
    │   ├── Unreachable           502 api_error              refused, DNS, TLS
    │   ├── TimedOut              504 timeout_error          one of our clocks ran out
    │   ├── BadReply              502 api_error              not what the protocol allows
    │   │   ├── FrameTooLarge     502 api_error
    │   │   └── WrongAddress      502 api_error              not an endpoint of the expected protocol
    │   ├── Truncated             502 api_error              ended without its final event
    │   └── Refused               by its own status          the upstream said no, and how
    │       └── TooLong           400 invalid_request_error  the prompt is over the model's window
    ├── Overloaded                529 overloaded_error       full, draining, or a circuit is open
    └── ConfigError               no answer: exit code 78
        ├── UnsafePermissions     exit code 77
        └── AddressInUse          exit code 75

Messages are read by users of Claude Code. They say what was expected, what was seen and which route, and never hold
a key or a prompt.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from proxyd.redaction import masked
from proxyd.secret import configured_secrets


class ProxyError(Exception):
    """Root of all failures that have a defined answer.

    Args:
        message: one sentence for the user.
        headers: response headers that belong to the answer, such as ``retry-after``.

    `detail` is for the log alone: what was seen, cut short.
    """

    def __init__(self, message: str, *, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.headers: Mapping[str, str] = headers or {}
        self.detail = ""


class ClientError(ProxyError):
    """The request breaks the API; sending it again unchanged cannot help."""


class BadCredential(ClientError):
    """No credential, or one that is not accepted here."""


class Forbidden(ClientError):
    """The caller may not do this."""


class NotFound(ClientError):
    """No such path or model."""


class MethodNotAllowed(ClientError):
    """The path exists, the method does not."""


class BodyTimedOut(ClientError):
    """The request body did not arrive in time."""


class BodyTooLarge(ClientError):
    """The request body is over the limit."""


class UnsupportedMedia(ClientError):
    """The body's content type or encoding is not one we take."""


class UnknownExpectation(ClientError):
    """The ``Expect`` header asks for something else than ``100-continue``."""


class Misdirected(ClientError):
    """The ``Host`` header names somebody else."""


class UpstreamError(ProxyError):
    """The upstream failed in a way that is not its own well-formed error."""


class Unreachable(UpstreamError):
    """No connection to the upstream could be made or kept until its answer began."""


class TimedOut(UpstreamError):
    """The upstream was silent for longer than one of our clocks allows."""


class BadReply(UpstreamError):
    """The upstream's answer is not what its protocol allows."""


class FrameTooLarge(BadReply):
    """One event of the upstream's stream is over the limit."""


class WrongAddress(BadReply):
    """The upstream has no such path, or speaks another protocol there: models.yaml must be corrected."""


class Truncated(UpstreamError):
    """The upstream's stream ended before its final event."""


class Refused(UpstreamError):
    """The upstream answered with an error of its own.

    Args:
        status: the status for our client, not always the upstream's own (docs/spec/errors.md#mapping).
        kind: the Anthropic error type.
    """

    def __init__(
        self, message: str, *, status: int, kind: str, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message, headers=headers)
        self.status = status
        self.kind = kind


class TooLong(Refused):
    """The upstream refused a prompt for its length.

    Args:
        message: a text upon which Claude Code compacts.
        window: the size of the model's window, if the upstream's text gave it.
    """

    def __init__(self, message: str, *, window: int | None = None) -> None:
        super().__init__(message, status=400, kind="invalid_request_error")
        self.window = window


class Overloaded(ProxyError):
    """We have no room for this call now."""


class ConfigError(ProxyError):
    """The configuration is wrong; ``message`` holds one line per fault."""


class UnsafePermissions(ConfigError):
    """Others could change what we run, or read what is secret."""


class AddressInUse(ConfigError):
    """Somebody listens there already."""


#: The answer for each exception; a subclass without a row of its own takes its parent's.
ANSWERS: dict[type[ProxyError], tuple[int, str]] = {
    ProxyError: (500, "api_error"),
    ClientError: (400, "invalid_request_error"),
    BadCredential: (401, "authentication_error"),
    Forbidden: (403, "permission_error"),
    NotFound: (404, "not_found_error"),
    MethodNotAllowed: (405, "invalid_request_error"),
    BodyTimedOut: (408, "invalid_request_error"),
    BodyTooLarge: (413, "request_too_large"),
    UnsupportedMedia: (415, "invalid_request_error"),
    UnknownExpectation: (417, "invalid_request_error"),
    Misdirected: (421, "invalid_request_error"),
    UpstreamError: (502, "api_error"),
    TimedOut: (504, "timeout_error"),
    Overloaded: (529, "overloaded_error"),
}


def error_response(exc: BaseException) -> tuple[int, str]:
    """The HTTP status and the Anthropic error type for `exc`; anything that is not ours is a 500."""
    if isinstance(exc, Refused):
        return exc.status, exc.kind
    for cls in type(exc).__mro__:
        if cls in ANSWERS:
            return ANSWERS[cls]
    return ANSWERS[ProxyError]


#: Stops the retries of Claude Code and of the SDKs (docs/spec/claude-code.md#http-errors).
NO_RETRY: Mapping[str, str] = {"x-should-retry": "false"}

#: Statuses that a repeated request would get again: a key, a permission, a model or a path is wrong.
_PERMANENT = frozenset({401, 403, 404, 405, 421})
#: A ``retry-after`` above this is the end of a quota, which nobody waits for in front of a screen.
_MAX_RETRY_AFTER_S = 600


def is_permanent(exc: BaseException) -> bool:
    """Return whether the same request is sure to fail again, now and in the next minutes."""
    if not isinstance(exc, ProxyError):
        return False
    if isinstance(exc, WrongAddress) or exc.headers.get("x-should-retry") == "false":
        return True
    after = exc.headers.get("retry-after", "")
    if after.isascii() and after.isdigit() and int(after) > _MAX_RETRY_AFTER_S:
        return True
    return error_response(exc)[0] in _PERMANENT


def response_headers(exc: BaseException) -> dict[str, str]:
    """Return the response headers for `exc`, with ``x-should-retry`` where a retry cannot help."""
    headers = dict(exc.headers) if isinstance(exc, ProxyError) else {}
    if is_permanent(exc):
        headers.update(NO_RETRY)
    return headers


def message_of(exc: BaseException) -> str:
    """The sentence for the user. The text of a foreign exception may hold data, so it is not shown.

    Configured keys are masked in it. Its maker masks those of the client whose call failed, since nobody else's may be:
    what clients send as keys can be any word.
    """
    if not isinstance(exc, ProxyError):
        return "internal error in claude-proxy; see its log"
    return masked(exc.message, configured_secrets())


def clear_tracebacks(exc: BaseException | None) -> None:
    """Let go of what `exc` came of, and of the frames that all of it has passed.

    A call that fails remembers how, and the frames hold the call: a ring, with a whole request in it, that only a
    search of all objects would find. To be called once the failure has been answered and logged.
    """
    waiting = [exc]
    while waiting:
        each = waiting.pop()
        if each is not None and (each.__traceback__ or each.__cause__ or each.__context__):
            waiting += [each.__cause__, each.__context__]
            each.__traceback__ = each.__cause__ = each.__context__ = None


def envelope(exc: BaseException, request_id: str | None = None) -> dict[str, Any]:
    """The Anthropic error object, used both as a JSON body and as the data of an ``error`` event."""
    body: dict[str, Any] = {
        "type": "error",
        "error": {"type": error_response(exc)[1], "message": message_of(exc)},
    }
    if request_id is not None:
        body["request_id"] = request_id
    return body


_KINDS = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}


def kind_of_status(status: int) -> str:
    """The Anthropic error type that goes with an HTTP status (docs/spec/messages-api.md#errors)."""
    return _KINDS.get(status, "api_error" if status >= 500 else "invalid_request_error")
