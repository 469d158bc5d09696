"""The upstream errors under tests/transcripts/errors.

Each file holds ``source`` (where the wording was read), ``status``, ``headers`` and ``body`` as the upstream sent them,
``context`` (the fields of `ErrorContext`) and ``expect`` (what our client is told).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from proxyd.codecs.openai.errors import ErrorContext
from tests.support.paths import TRANSCRIPTS

CASES = sorted((TRANSCRIPTS / "errors").glob("*/*.json"))


def read_case(path: Path) -> dict[str, Any]:
    case: dict[str, Any] = json.loads(path.read_text())
    assert set(case) == {"source", "status", "headers", "body", "context", "expect"}, path
    return case


def context_of(case: dict[str, Any]) -> ErrorContext:
    return ErrorContext(**case["context"])
