"""The network calls of ``claude-proxy add`` for a command line: each runs an event loop of its own and blocks."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from proxyd.onboarding.fetching import http_session
from proxyd.onboarding.listing import fetch_models
from proxyd.onboarding.local_servers import LocalServer, find_local_servers, inspect_server

if TYPE_CHECKING:
    from proxyd.onboarding.entries import Target
    from proxyd.onboarding.model_list import ListedModel
    from proxyd.secret import Secret

__all__ = ["inspected_server", "listed_models", "local_servers"]


def local_servers(ca_file: str) -> list[LocalServer]:
    """Return the servers on this machine."""

    async def find() -> list[LocalServer]:
        async with http_session(ca_file) as session:
            return await find_local_servers(session)

    return asyncio.run(find())


def inspected_server(origin: str, ca_file: str) -> LocalServer | None:
    """Return the server at `origin`; None if it has no list of models."""

    async def inspect() -> LocalServer | None:
        async with http_session(ca_file) as session:
            return await inspect_server(session, origin)

    return asyncio.run(inspect())


def listed_models(target: Target, key: Secret | None, ca_file: str) -> list[ListedModel]:
    """Return the models of the target's list.

    Raises:
        FetchFailed: it cannot be fetched, or is no list.
    """

    async def fetch() -> list[ListedModel]:
        async with http_session(ca_file) as session:
            return await fetch_models(session, target.models_url, target.profile, key, target.format)

    return asyncio.run(fetch())
