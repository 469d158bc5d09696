"""Requests of direct routes, to upstreams that speak the Anthropic API.

See docs/spec/chat-to-messages.md#direct-vendors, #direct.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote

from multidict import MultiMapping

from proxyd.codecs.anthropic.thinking_signature import PREFIX as OWN_SIGNATURE
from proxyd.codecs.wire.json_patch import CUT, splice
from proxyd.config.routes import ModelRoute
from proxyd.errors import BadReply
from proxyd.headers import forwarded_names, is_returned
from proxyd.providers.base import CallTimeouts, ClientKeys, UpstreamRequest, missing_key
from proxyd.providers.claude_platforms import ClaudePlatform
from proxyd.providers.key_owner import check_anthropic_credentials
from proxyd.providers.profile import Profile
from proxyd.providers.registry import profile_for
from proxyd.providers.unparsed import has_second_model, with_model_of_parsed
from proxyd.redaction import CREDENTIAL_HEADERS
from proxyd.urls import is_loopback_url

__all__ = ["direct_url", "has_models", "message_url", "prepare", "response_head"]

#: Other headers in which clients send keys; removed when the entry has its own (docs/spec/operations.md#e4).
_OTHER_CREDENTIALS = CREDENTIAL_HEADERS - {"authorization", "x-api-key"}

#: Characters that no value may hold (RFC 9110, 5.5).
_FORBIDDEN = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")

#: Characters that a path segment may hold unescaped (RFC 3986, 3.3).
_UNQUOTED = "!$&'()*+,;=:@"

#: Sent where the client named no version (docs/spec/messages-api.md#versions).
_DEFAULT_VERSION = "2023-06-01"

_THINKING = ("thinking", "redacted_thinking")

#: Body fields and the betas that announce them: one half without the other is a 400
#: (docs/spec/chat-to-messages.md#direct-pairs).
_BETAS_OF = {
    "context_management": "context-management-",
    "mcp_servers": "mcp-client-",
    "output_config": "effort-",
    "safeguards": "dangerous-tool-use-",
}


def direct_url(api_base: str, path: str, query: str) -> str:
    """Join `api_base`, `path` and the raw `query`; a ``/v1`` at the end of the base is not doubled."""
    base = api_base.rstrip("/")
    if base.endswith("/v1") and path.startswith("/v1/"):
        base = base[: -len("/v1")]
    return f"{base}{path}?{query}" if query else f"{base}{path}"


def has_models(route: ModelRoute) -> bool:
    """Whether the upstream of a direct route can be asked about its model."""
    return profile_for(route.api_base, route.provider).claude is None


def message_url(route: ModelRoute) -> str:
    """Return the address of a streamed message."""
    platform = profile_for(route.api_base, route.provider).claude
    if platform is not None:
        return direct_url(route.api_base, platform.path(route.model_name, True), "")
    return direct_url(route.api_base, "/v1/messages", "")


def prepare(
    route: ModelRoute,
    *,
    path: str,
    query: str,
    headers: MultiMapping[str],
    body: bytes,
    payload: Mapping[str, Any] | None,
    outline: bytes | None = None,
    keys: ClientKeys,
    timeouts: CallTimeouts,
    method: str = "POST",
    is_first: bool = True,
    forwarded: tuple[str, ...] = ("*",),
) -> UpstreamRequest:
    """Build the upstream request for `route` from the client's request.

    Args:
        path: of a request with a body. One without a body asks for the model, whose path comes from `route`.
        headers: the client's.
        body: the client's bytes; only the fields that the entry sets are changed.
        payload: `body`, parsed; for a request without one, ``{"model": …}``; None for one that is forwarded unparsed
            (`proxyd.providers.unparsed`).
        outline: fewer bytes with the same members, if there are any.
        is_first: the client chose this upstream. A fallback does not get the client's custom headers, which may hold
            a key for the chosen one.
        forwarded: patterns of the custom headers to forward, the setting ``forward_headers``.

    Raises:
        BadCredential: the upstream needs a key and there is none, or the client's is Anthropic's and the host is not.
    """
    profile = profile_for(route.api_base, route.provider)
    sent = _headers(headers, forwarded if is_first else ())
    if body:
        sent.setdefault("content-type", "application/json")
    if not body:
        path = f"/v1/models/{quote(route.model_name, safe=_UNQUOTED)}"
    if body and payload is not None:
        omitted = [
            name for name in (*profile.omit, *route.omit) if name in payload and name not in route.extra_body
        ]
        _drop_betas(sent, omitted)
        is_message = path.endswith("/messages")
        names_model_twice = has_second_model(body if outline is None else outline)
        changes = _changes(
            route, profile, payload, omitted, names_model_twice=names_model_twice, is_message=is_message
        )
        if profile.claude is not None:
            platform = profile.claude
            changes["anthropic_version"] = platform.version
            query, path = "", platform.counting_path
            if is_message:
                path = platform.path(route.model_name, payload.get("stream") is True)
                changes["model"] = CUT
            _keep_betas(sent, platform, is_message=is_message)
        if changes.keys() == {"model"} and isinstance(payload.get("model"), str):
            body = with_model_of_parsed(body, changes["model"], is_only=not names_model_twice)
        else:
            body = splice(body, changes)
    if route.api_key is None and not route.missing_key:
        check_anthropic_credentials(route, keys, sent.values())
    _add_credentials(route, profile, sent, keys)
    for name, value in route.extra_headers.items():
        sent[name.lower()] = value
    return UpstreamRequest(
        url=direct_url(route.api_base, path, query), headers=sent, body=body, timeouts=timeouts, method=method
    )


def _changes(
    route: ModelRoute,
    profile: Profile,
    payload: Mapping[str, Any],
    omitted: Iterable[str],
    *,
    names_model_twice: bool,
    is_message: bool,
) -> dict[str, Any]:
    """Return the changes of the body as `splice` takes them."""
    changes: dict[str, Any] = _foreign_thinking(payload, keeps_unsigned=profile.keeps_unsigned_thinking)
    changes.update(dict.fromkeys(omitted, CUT))
    if payload.get("model") != route.model_name or names_model_twice:
        changes["model"] = route.model_name
    if not is_message:
        return changes  # count_tokens takes no limits and no sampling, and may refuse fields of extra_body
    asked = payload.get("max_tokens")
    if route.max_tokens is not None and isinstance(asked, int) and asked > route.max_tokens:
        changes["max_tokens"] = route.max_tokens
    for name in ("temperature", "top_p"):
        value = getattr(route, name)
        if value is not None and value != payload.get(name):
            changes[name] = value
    changes.update(route.extra_body)
    return changes


def _foreign_thinking(payload: Mapping[str, Any], *, keeps_unsigned: bool) -> dict[str, Any]:
    """Return changes that remove thinking blocks without a signature, or with the one of a translated route.

    The API verifies signatures and would refuse the whole conversation. A message that would be left empty is removed,
    because the API refuses that too.
    """
    messages = payload.get("messages")
    found: dict[int, Any] = {}
    for index, message in enumerate(messages if isinstance(messages, list) else ()):
        content = message.get("content") if isinstance(message, dict) else None
        if not isinstance(content, list):
            continue
        cuts: dict[int, Any] = {}
        for at, block in enumerate(content):
            # Most blocks are none of thinking, and a call for each would cost more than all else here.
            if (
                isinstance(block, dict)
                and block.get("type") in _THINKING
                and _is_foreign(block, keeps_unsigned)
            ):
                cuts[at] = CUT
        if cuts:
            found[index] = CUT if len(cuts) == len(content) else {"content": cuts}
    return {"messages": found} if found else {}


def _is_foreign(block: dict[str, Any], keeps_unsigned: bool) -> bool:
    if block["type"] == "redacted_thinking":
        data = block.get("data")
        return isinstance(data, str) and data.startswith(OWN_SIGNATURE)
    signature = block.get("signature")
    if not isinstance(signature, str) or not signature:
        return not keeps_unsigned
    return signature.startswith(OWN_SIGNATURE)


def _headers(headers: MultiMapping[str], forwarded: tuple[str, ...]) -> dict[str, str]:
    """Return the client's headers to forward, names in lower case."""
    written = tuple(headers.keys())
    names = forwarded_names(written, forwarded)
    if len(written) == len(headers):
        sent = {name: value for name, value in zip(names, headers.values(), strict=True) if name}
    else:  # a header is repeated
        sent = {name: ", ".join(headers.getall(name)) for name in names if name}
    if headers.get("connection", "keep-alive") != "keep-alive":
        for value in headers.getall("connection"):
            for name in _tokens(value):
                sent.pop(name, None)
    sent.setdefault("anthropic-version", _DEFAULT_VERSION)
    # A compressed stream could not be counted, nor could pings be inserted (docs/spec/operations.md#c5).
    sent["accept-encoding"] = "identity"
    return sent


def _tokens(value: str) -> set[str]:
    return {token.strip().lower() for token in value.split(",")}


def _drop_betas(sent: dict[str, str], omitted: Iterable[str]) -> None:
    prefixes = tuple(_BETAS_OF[name] for name in omitted if name in _BETAS_OF)
    if not prefixes or "anthropic-beta" not in sent:
        return
    betas = [beta.strip() for beta in sent["anthropic-beta"].split(",")]
    kept = [beta for beta in betas if not beta.startswith(prefixes)]
    if not kept:
        del sent["anthropic-beta"]
    elif len(kept) < len(betas):
        sent["anthropic-beta"] = ",".join(kept)


def _keep_betas(sent: dict[str, str], platform: ClaudePlatform, *, is_message: bool) -> None:
    """Leave those betas that the cloud takes; the version is in the body."""
    sent.pop("anthropic-version", None)
    kept = platform.betas_of(sent.pop("anthropic-beta", ""), is_message=is_message)
    if kept:
        sent["anthropic-beta"] = kept


def _add_credentials(route: ModelRoute, profile: Profile, sent: dict[str, str], keys: ClientKeys) -> None:
    """Set the entry's key, else the client's keys in the headers they came in, unless the profile names a header."""
    form = "bearer" if route.is_token else profile.direct_auth
    if route.api_key is not None:
        for name in _OTHER_CREDENTIALS:
            sent.pop(name, None)
        value = route.api_key.reveal()
        if form is None:
            form = "bearer" if keys.bearer is not None and keys.api_key is None else "x-api-key"
    elif route.missing_key or (keys.any is None and not is_loopback_url(route.api_base)):
        raise missing_key(route)
    elif form is None:
        if keys.api_key is not None:
            sent["x-api-key"] = keys.api_key.reveal()
        if keys.bearer is not None:
            sent["authorization"] = f"Bearer {keys.bearer.reveal()}"
        return
    elif keys.any is not None:
        value = keys.any.reveal()
    else:
        return
    if form == "bearer":
        sent["authorization"] = f"Bearer {value}"
    else:
        sent["x-api-key"] = value


def response_head(status: int, headers: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return the upstream's response headers that are sent to the client.

    Raises:
        BadReply: a client could not read a response with this head.
    """
    if not 200 <= status <= 599:
        raise BadReply(f"the upstream responded with the status {status}, which no final response has")
    found = list(headers)
    dropped: set[str] = set()
    for name, value in found:
        if name.lower() == "connection":
            dropped |= _tokens(value)
    return [
        (name, value)
        for name, value in found
        if is_returned(name) and name.lower() not in dropped and not _FORBIDDEN.search(value)
    ]
