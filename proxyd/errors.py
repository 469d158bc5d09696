"""The exceptions of the proxy, and the HTTP response that each of them becomes.

::

    ProxyError                    500 api_error              a fault of the proxy
    ├── ClientError               400 invalid_request_error  the client's request is at fault
    │   ├── BadCredential         401 authentication_error
    │   ├── Forbidden             403 permission_error
    │   ├── NotFound              404 not_found_error
    │   ├── MethodNotAllowed      405 invalid_request_error
    │   ├── BodyTimedOut          408 invalid_request_error
    │   ├── BodyTooLarge          413 request_too_large
    │   ├── UnsupportedMedia      415 invalid_request_error
    │   ├── UnknownExpectation    417 invalid_request_error
    │   ├── LimitReached          429 billing_error          a limit of a virtual key, or rate_limit_error
    │   └── Misdirected           421 invalid_request_error
    ├── UpstreamError             502 api_error              the upstream failed
    │   ├── Unreachable           502 api_error              refused, DNS, TLS
    │   │   └── NotRunning        502 api_error              no server listens at a port of this machine
    │   ├── TimedOut              504 timeout_error          a timeout of the proxy expired
    │   ├── BadReply              502 api_error              a violation of its protocol
    │   │   ├── FrameTooLarge     502 api_error
    │   │   └── WrongAddress      502 api_error              not an endpoint of the expected protocol
    │   ├── Truncated             502 api_error              ended without its final event
    │   ├── UpstreamOverloaded    529 overloaded_error       its stream ended with a reason that says so
    │   └── Refused               by its own status          an error response of the upstream
    │       ├── CapabilityRejected 400 invalid_request_error a feature that the client can leave out
    │       └── TooLong           400 invalid_request_error  the prompt is over the model's window
    ├── Overloaded                529 overloaded_error       full, draining, or the circuit breaker is open
    │   └── KeysAside             529 overloaded_error       no key of an entry works at present
    └── ConfigError               no response: exit code 78
        ├── UnsafePermissions     exit code 77
        └── AddressInUse          exit code 75

Users of Claude Code read the messages: they name what was expected, what was received and the route, and never
contain a key or a prompt.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from proxyd.redaction import masked
from proxyd.secret import configured_secrets


class ProxyError(Exception):
    """Base class of all failures that have a defined response.

    Args:
        message: one sentence for the user.
        headers: response headers to send with the error, such as ``retry-after``.

    `detail` is for the log only: what was received, truncated. `details` is for programs: the member of that name in
    the error object, where the API defines one.
    """

    details: Mapping[str, Any] | None = None

    def __init__(self, message: str, *, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.headers: Mapping[str, str] = headers or {}
        self.detail = ""


class ClientError(ProxyError):
    """The request violates the API; a retry without a change fails again."""


class ThreadUnsupported(ClientError):
    """The request relies on a conversation that the upstream would have to keep."""

    details: Mapping[str, Any] = {"error_code": "thread_unsupported_request", "unsupported": ["thread"]}


class BadCredential(ClientError):
    """Missing or invalid credential."""


class Forbidden(ClientError):
    """Request that this client is not allowed to make."""


class NotFound(ClientError):
    """Unknown path or model."""


class MethodNotAllowed(ClientError):
    """Method that the path does not support."""


class BodyTimedOut(ClientError):
    """Timeout while reading the request body."""


class BodyTooLarge(ClientError):
    """Request body over the size limit."""


class UnsupportedMedia(ClientError):
    """Content type or encoding that the proxy does not accept."""


class UnknownExpectation(ClientError):
    """``Expect`` header with another value than ``100-continue``."""


class LimitReached(ClientError):
    """A limit of a virtual key, or of its team, is reached.

    Args:
        kind: the Anthropic error type: ``billing_error``, or ``rate_limit_error`` for what is over within a minute.
    """

    def __init__(
        self, message: str, *, kind: str = "billing_error", headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message, headers=headers)
        self.kind = kind


class Misdirected(ClientError):
    """``Host`` header that names another server."""


class UpstreamError(ProxyError):
    """Failure of the upstream other than a well-formed error response."""


class Unreachable(UpstreamError):
    """The connection to the upstream failed before the response began."""


class NotRunning(Unreachable):
    """No server listens at a port of this machine: it does not run, or is being restarted."""


class TimedOut(UpstreamError):
    """The upstream sent nothing within one of the proxy's timeouts."""


class BadReply(UpstreamError):
    """The upstream's response violates its protocol."""


class FrameTooLarge(BadReply):
    """Event of the upstream's stream over the size limit."""


class UnreadableStream(BadReply):
    """The upstream's stream holds something that is no event.

    The client gets its words. The log does not, since they may be what a model said.
    """

    #: The message for logs and feeds.
    LOGGED = "the upstream's stream holds something that is no event"

    def __init__(self, words: str) -> None:
        super().__init__(f"{self.LOGGED}: {words}")


class WrongAddress(BadReply):
    """The upstream has no such path, or speaks another protocol there: models.yaml must be corrected."""


class Truncated(UpstreamError):
    """The upstream's stream ended before its final event."""


class UpstreamOverloaded(UpstreamError):
    """The upstream ended its stream for lack of resources."""


class Refused(UpstreamError):
    """Error response of the upstream.

    Args:
        status: the status for the client, not always the upstream's own (docs/spec/errors.md#mapping).
        kind: the Anthropic error type.

    Attributes:
        body: the upstream's error as JSON or text, as far as it was read. It may hold keys and prompts.
        upstream_status: the upstream's own status, 200 for an error inside a response; None if it is not known.
    """

    upstream_status: int | None = None

    def __init__(
        self, message: str, *, status: int, kind: str, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message, headers=headers)
        self.status = status
        self.kind = kind
        self.body = b""


class TooLong(Refused):
    """The upstream refused a prompt because of its length.

    Args:
        message: a text that makes Claude Code compact the conversation.
        window: the size of the model's window in tokens, if the upstream named it.
    """

    def __init__(self, message: str, *, window: int | None = None) -> None:
        super().__init__(message, status=400, kind="invalid_request_error")
        self.window = window


class CapabilityRejected(Refused):
    """The upstream does not take a feature of the request, which the client can leave out.

    Args:
        capability: the class of the feature, see `proxyd.providers.client_recovery`.
    """

    def __init__(self, capability: str) -> None:
        super().__init__(f"capability_rejected: {capability}", status=400, kind="invalid_request_error")


class Overloaded(ProxyError):
    """No capacity for this call at present."""


class KeysAside(Overloaded):
    """All keys of an entry are set aside; ``retry-after`` says when the first one is tried again."""


class ConfigError(ProxyError):
    """Invalid configuration; ``message`` has one line per fault."""


class UnsafePermissions(ConfigError):
    """Permissions that let other users change our code or read our secrets."""


class AddressInUse(ConfigError):
    """Another process listens on the address."""


#: Status and Anthropic error type by exception class; a class without a row inherits its parent's.
HTTP_ERRORS: dict[type[ProxyError], tuple[int, str]] = {
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
    LimitReached: (429, "billing_error"),
    Misdirected: (421, "invalid_request_error"),
    UpstreamError: (502, "api_error"),
    TimedOut: (504, "timeout_error"),
    UpstreamOverloaded: (529, "overloaded_error"),
    Overloaded: (529, "overloaded_error"),
}


def error_response(exc: BaseException) -> tuple[int, str]:
    """Return the HTTP status and the Anthropic error type for `exc`: 500 for foreign exceptions."""
    if isinstance(exc, Refused):
        return exc.status, exc.kind
    if isinstance(exc, LimitReached):
        return HTTP_ERRORS[LimitReached][0], exc.kind
    for cls in type(exc).__mro__:
        if cls in HTTP_ERRORS:
            return HTTP_ERRORS[cls]
    return HTTP_ERRORS[ProxyError]


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


#: Claude Code recovers by the texts of these, which are left as they are (docs/spec/errors.md#too-long).
STATUSES_WITH_RECOVERY = frozenset({400, 404, 413})


def name_address(exc: ProxyError, address: str | None) -> None:
    """Name the address that was called in the message of an upstream's failure which does not name it.

    Args:
        address: without keys and the values of a query.
    """
    if isinstance(exc, UpstreamError) and address and address not in exc.message:
        if isinstance(exc, Refused) and exc.status in STATUSES_WITH_RECOVERY:
            return
        exc.message += f" ({address})"


def response_headers(exc: BaseException) -> dict[str, str]:
    """Return the response headers for `exc`, with ``x-should-retry`` where a retry cannot help."""
    headers = dict(exc.headers) if isinstance(exc, ProxyError) else {}
    if is_permanent(exc):
        headers.update(NO_RETRY)
    return headers


def message_of(exc: BaseException) -> str:
    """Return the message for the user; the text of a foreign exception may contain data and is not shown.

    Only configured keys are masked here. Clients may send any word as their key, so the caller masks that of the
    client whose call failed, and nobody else's.
    """
    if not isinstance(exc, ProxyError):
        return "internal error in claude-proxy; see its log"
    return masked(exc.message, configured_secrets())


def clear_tracebacks(exc: BaseException | None) -> None:
    """Clear traceback, cause and context along the exception chain.

    Traceback frames refer to the failed call and would keep its request in a reference cycle until the next full
    garbage collection. Call this after the failure was logged and the client has its response.
    """
    pending = [exc]
    while pending:
        each = pending.pop()
        if each is not None and (each.__traceback__ or each.__cause__ or each.__context__):
            pending += [each.__cause__, each.__context__]
            each.__traceback__ = each.__cause__ = each.__context__ = None


def envelope(exc: BaseException, request_id: str | None = None) -> dict[str, Any]:
    """Return the Anthropic error object: a JSON body, or the data of an ``error`` event."""
    body: dict[str, Any] = {
        "type": "error",
        "error": {"type": error_response(exc)[1], "message": message_of(exc)},
    }
    if isinstance(exc, ProxyError) and exc.details is not None:
        body["error"]["details"] = dict(exc.details)
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
    """Return the Anthropic error type for an HTTP status (docs/spec/messages-api.md#errors)."""
    return _KINDS.get(status, "api_error" if status >= 500 else "invalid_request_error")
