"""models.yaml: the routes a user has configured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from proxyd.secret import Secret

__all__ = ["ModelRoute"]


@dataclass(frozen=True, slots=True)
class ModelRoute:
    """One entry of models.yaml (design.md 4). Token counts are integers, prices USD per million tokens."""

    model_id: str
    api_base: str
    model_name: str
    direct: bool = False
    provider: str = "generic"
    api_key: Secret | None = None
    can_stream: bool = True
    max_tokens: int | None = None
    max_input_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    reasoning_effort: str | None = None
    extra_body: Mapping[str, Any] = field(default_factory=dict)
    extra_headers: Mapping[str, str] = field(default_factory=dict)
    aliases: tuple[str, ...] = ()
    vision: bool | None = None
    quirks: Mapping[str, Any] = field(default_factory=dict)
