"""Conversations kept at the server (`thread`), which only Anthropic's own API has.

The tool runners of the official SDKs send `thread` by default, and on ``continue`` only the new turn. An upstream that
ignores the field would answer without the conversation. The SDKs expect one refusal and then send the whole history
(docs/spec/messages-api.md#threads).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from proxyd.config.routes import ModelRoute
from proxyd.errors import ThreadUnsupported
from proxyd.providers.registry import profile_for

__all__ = ["check_thread"]


def check_thread(payload: Mapping[str, Any], route: ModelRoute) -> None:
    """Refuse a request with `thread` for an upstream that is not Anthropic's.

    Raises:
        ThreadUnsupported: in the form after which the SDKs send the whole history.
    """
    if payload.get("thread") is None or (
        route.direct and profile_for(route.api_base, None).name == "anthropic"
    ):
        return
    raise ThreadUnsupported(
        f"thread: the upstream of model {route.model_id!r} keeps no conversations; send all messages instead"
    )
