"""What a person is shown of a route: its window and one line about it, in the model picker and in ``/v1/models``."""

from __future__ import annotations

from proxyd.config.routes import ModelRoute
from proxyd.urls import host_of

__all__ = ["describe", "window_of"]

#: Window of the embedded upstream, which has none: the size that most models have.
_DEMO_WINDOW = 200_000


def describe(route: ModelRoute) -> str:
    """Return one line on a route: upstream model, host and window."""
    parts = ["built-in demo" if route.is_demo else f"{route.model_name} via {host_of(route.api_base)}"]
    window = window_of(route)
    if window is not None:
        parts.append(_short_count(window))
    return " · ".join(parts)


def window_of(route: ModelRoute) -> int | None:
    """Return the route's window in tokens, of models.yaml or else of the catalog; None if neither names it."""
    if route.max_input_tokens is not None:
        return route.max_input_tokens
    return _DEMO_WINDOW if route.is_demo else route.known_window


def _short_count(tokens: int) -> str:
    return f"{tokens / 1_000_000:g}m" if tokens >= 1_000_000 else f"{round(tokens / 1000)}k"
