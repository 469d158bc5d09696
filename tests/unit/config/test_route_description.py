"""Window and description of a route."""

from __future__ import annotations

from typing import Any

import pytest

from proxyd.config.route_description import describe, window_of
from proxyd.config.routes import ModelRoute


@pytest.mark.parametrize(
    ("api_base", "window", "line", "seen"),
    [
        ("https://api.example.com/v1", 262_144, "up via api.example.com · 262k", 262_144),
        ("https://user:secret@localhost:8000/v1", 1_000_000, "up via localhost:8000 · 1m", 1_000_000),
        ("https://api.example.com/v1", 1_500_000, "up via api.example.com · 1.5m", 1_500_000),
        ("https://api.example.com/v1", None, "up via api.example.com", None),
        ("builtin:demo", None, "built-in demo · 200k", 200_000),
        ("builtin:demo", 64_000, "built-in demo · 64k", 64_000),
    ],
)
def test_description(api_base: str, window: int | None, line: str, seen: int | None) -> None:
    keys: dict[str, Any] = {"model_id": "m", "model_name": "up", "api_base": api_base}
    route = ModelRoute(**keys, max_input_tokens=window)
    assert describe(route) == line
    assert window_of(route) == seen
