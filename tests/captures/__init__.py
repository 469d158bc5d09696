"""What Claude Code really sends: the bodies of its requests, recorded with the real client, texts replaced by filler.

``make captures`` records them anew (`recording`). Each version has a folder: ``tools.json`` defines its tools, and each
other file is one request, whose ``tools`` name these definitions.
"""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["FOLDER", "Capture", "captures", "load", "versions"]

FOLDER = Path(__file__).parent
TOOLS_FILE = "tools.json"


@dataclass(frozen=True)
class Capture:
    """One request.

    Args:
        version: of Claude Code.
        name: what it was for, such as ``first_turn``.
        path: ``/v1/messages`` or ``/v1/messages/count_tokens``.
        body: as Claude Code sent it, but for the texts.
    """

    version: str
    name: str
    path: str
    body: dict[str, Any]


def versions() -> list[str]:
    """The versions there are captures of, the newest first."""
    found = [folder.name for folder in FOLDER.iterdir() if (folder / TOOLS_FILE).exists()]
    return sorted(found, key=lambda name: [int(part) for part in name.split(".")], reverse=True)


@functools.cache
def captures(version: str) -> dict[str, Capture]:
    """All requests of one version by name."""
    folder = FOLDER / version
    tools = json.loads((folder / TOOLS_FILE).read_text("utf-8"))
    found = {}
    for path in sorted(folder.glob("*.json")):
        if path.name != TOOLS_FILE:
            found[path.stem] = load(path, tools)
    return found


def load(path: Path, tools: dict[str, Any]) -> Capture:
    """One request, with the definitions of its tools put in their places."""
    stored = json.loads(path.read_text("utf-8"))
    body = stored["body"]
    if "tools" in body:
        body["tools"] = [tools[name] for name in body["tools"]]
    return Capture(path.parent.name, path.stem, stored["path"], body)
