"""A request's body as the JSON object that it has to be."""

from __future__ import annotations

from typing import Any

from proxyd import jsonio
from proxyd.errors import ClientError

__all__ = ["parse_object"]


def parse_object(body: bytes) -> dict[str, Any]:
    """The JSON object that `body` is.

    Raises:
        ClientError: it is something else.
    """
    if not body or body.isspace():
        raise ClientError("the request body is empty; a JSON object was expected")
    try:
        value = jsonio.loads(body)
    except jsonio.JSONError as exc:
        raise ClientError(f"the request body is not valid JSON: {exc}") from None
    if not isinstance(value, dict):
        raise ClientError("the request body must be a JSON object")
    return value
