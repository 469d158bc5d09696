"""Classes of requests, by which rules of models.yaml hand them to other entries."""

from __future__ import annotations

__all__ = ["AUXILIARY_KINDS", "CLASSES"]

#: Kinds of auxiliary requests that the proxy tells apart.
AUXILIARY_KINDS = ("title", "search", "review", "background")
#: Classes of requests as Claude Code names them, and these kinds.
CLASSES = (
    "main",
    "subagent",
    "workflow",
    "compaction",
    "auxiliary",
    "side_reply",
    *AUXILIARY_KINDS,
)
