"""The upstream errors under tests/transcripts/errors.

Each file holds ``source`` (where the wording was read), ``status``, ``headers`` and ``body`` as the upstream sent them,
``context`` (the fields of `ErrorContext`) and ``expect`` (what our client gets).
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from proxyd.codecs.upstream_errors.errors import ErrorContext
from tests.support.paths import TRANSCRIPTS

#: What Claude Code 2.1.330 was seen to recover from (docs/spec/errors.md#too-long).
RECOVERABLE = re.compile(
    r"prompt is too long: \d+ tokens > \d+ maximum"
    r"|input length and `max_tokens` exceed context limit: \d+ \+ \d+ > \d+"
    r"|max_tokens: \d+ > \d+, which is the maximum allowed number of output tokens for \S.*"
    r"|prompt is too long.*maximum context length.*"
)

CASES = sorted((TRANSCRIPTS / "errors").glob("*/*.json"))


def read_case(path: Path) -> dict[str, Any]:
    case: dict[str, Any] = json.loads(path.read_text())
    assert set(case) == {"source", "status", "headers", "body", "context", "expect"}, path
    return case


def context_of(case: dict[str, Any]) -> ErrorContext:
    return ErrorContext(**case["context"])
