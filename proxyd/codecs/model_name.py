"""Names of models as upstreams report them."""

from __future__ import annotations

import re
from typing import Any

__all__ = ["model_name"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:/@+-]{0,127}")


def model_name(value: Any) -> str | None:
    """Return `value` if it has the form of a model's name and is not free text (docs/spec/operations.md#e7)."""
    return value if isinstance(value, str) and _NAME.fullmatch(value) else None
