"""Clouds that serve Claude's Messages API at addresses of their own (docs/spec/vertex.md#claude)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from urllib.parse import quote

__all__ = ["VERTEX", "ClaudePlatform"]


@dataclass(frozen=True, slots=True)
class ClaudePlatform:
    """How a cloud's requests differ from those of Anthropic's API. Responses do not.

    Args:
        version: ``anthropic_version``, which the body carries in place of a header.
        path: model, whether a stream is requested -> what follows the base address; the body then names no model.
        counting_path: the same for ``count_tokens``, whose body does name the model.
        betas: values of ``anthropic-beta`` that are taken -> how they are called there. Others are refused with 400.
        not_counted: those of them that ``count_tokens`` refuses.
    """

    version: str
    path: Callable[[str, bool], str]
    counting_path: str
    betas: Mapping[str, str]
    not_counted: frozenset[str] = field(default_factory=frozenset)

    def betas_of(self, header: str, *, is_message: bool) -> str:
        """Return what is sent of the client's ``anthropic-beta``."""
        known = (self.betas.get(beta.strip()) for beta in header.split(","))
        kept = (beta for beta in known if beta and (is_message or beta not in self.not_counted))
        return ",".join(dict.fromkeys(kept))


def _same(names: Iterable[str]) -> dict[str, str]:
    return {name: name for name in names}


def _vertex_path(model: str, is_stream: bool) -> str:
    method = "streamRawPredict" if is_stream else "rawPredict"
    return f"/publishers/anthropic/models/{quote(model, safe='@-_.~')}:{method}"


VERTEX = ClaudePlatform(
    version="vertex-2023-10-16",
    path=_vertex_path,
    counting_path="/publishers/anthropic/models/count-tokens:rawPredict",
    betas={
        **_same(
            (
                "compact-2026-01-12",
                "compact-2026-09-04",
                "computer-use-2025-01-24",
                "computer-use-2025-11-24",
                "context-1m-2025-08-07",
                "context-management-2025-06-27",
                "dangerous-tool-use-2026-09-03",
                "interleaved-thinking-2025-05-14",
                "per-turn-control-2026-07-01",
                "thinking-binding-controls-2026-08-01",
                "thinking-display-updates-2026-08-18",
                "tool-search-tool-2025-10-19",
                "web-search-2025-03-05",
            )
        ),
        "advanced-tool-use-2025-11-20": "tool-search-tool-2025-10-19",
    },
    not_counted=frozenset({"web-search-2025-03-05"}),
)
