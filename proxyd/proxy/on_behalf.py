"""Calls that the proxy makes for itself on behalf of a client's call, and whose credentials they carry."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from proxyd.config.routes import ModelRoute
from proxyd.providers.base import ClientKeys
from proxyd.providers.upstream_search import UpstreamSearch
from proxyd.proxy.client_request import ClientRequest
from proxyd.proxy.inner_call import EventWriter
from proxyd.telemetry.call_record import CallRecord
from proxyd.urls import origin_of

__all__ = ["InnerCall", "credentials_for"]


@dataclass(frozen=True, slots=True)
class InnerCall:
    """A call that the proxy makes for itself, on behalf of a client's call.

    Args:
        kind: for the ledger.
        keys: the client's, for an upstream at the same address; else none.
        headers: those of the client's that the upstream needs.
        timeout_s: after which it ends with `TimedOut`; 0 for never.
        stops_early: see `ActiveCall`.
        search: a search of the web that the upstream is to make itself.
        writer: takes a response that is streamed; None for one that is wanted as a whole.
    """

    payload: dict[str, Any]
    kind: str
    parent: CallRecord
    keys: ClientKeys
    headers: dict[str, str]
    timeout_s: float
    stops_early: Callable[[bytes], bool] | None = None
    search: UpstreamSearch | None = None
    writer: EventWriter | None = None


def credentials_for(
    called: ModelRoute, asked: ModelRoute, request: ClientRequest
) -> tuple[ClientKeys, dict[str, str]]:
    """Return the client's keys, and the headers that belong to them, where `called` is at the address that they are
    meant for, that of `asked`; else none.
    """
    if origin_of(called.api_base) != origin_of(asked.api_base):
        return ClientKeys(), {}
    # Anthropic takes a login of claude.ai only together with its beta.
    betas = request.web_request.headers.get("anthropic-beta", "")
    kept = ",".join(beta for beta in map(str.strip, betas.split(",")) if beta.startswith("oauth-"))
    return request.keys, {"anthropic-beta": kept} if kept else {}
