"""Where the repository and the test data are."""

from __future__ import annotations

from pathlib import Path

__all__ = ["DOCS", "ROOT", "TRANSCRIPTS"]

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
TRANSCRIPTS = ROOT / "tests" / "transcripts"
