"""Try the features of one entry by small calls, as Claude Code makes them, through a temporary daemon."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from proxyd import jsonio
from proxyd.api.probe import STREAM, TOOL_CALL, ProbeResult, Question, probe
from proxyd.cli.upstream_probe import temporary_daemon, why_not_called
from proxyd.providers.features import NO, Feature

if TYPE_CHECKING:
    from proxyd.config.routes import ModelRoute
    from proxyd.daemon.configuration import LoadedConfig

__all__ = ["try_features"]

#: A square of 64 by 64 red pixels.
_RED_PNG = (
    "iVBORw0KGgoAAAANSUhEUgAAAEAAAABACAIAAAAlC+aJAAAAS0lEQVR42u3PQQkAAAgAsetfWiP4FgYrsKZeS0BAQEBAQEBA"
    "QEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEDgsqnc8OJg6Ln3AAAAAElFTkSuQmCC"
)
_PDF_WORD = "ZEBRA"


def _pdf() -> str:
    """Return a PDF with one word, in base64."""
    content = b"BT /F1 24 Tf 20 100 Td (%b) Tj ET" % _PDF_WORD.encode()
    objects = (
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 200 200] /Contents 4 0 R"
        b" /Resources << /Font << /F1 << /Type /Font /Subtype /Type1 /BaseFont /Helvetica >> >> >> >>",
        b"<< /Length %d >>\nstream\n%b\nendstream" % (len(content), content),
    )
    body, places = b"%PDF-1.4\n", []
    for number, each in enumerate(objects, 1):
        places.append(len(body))
        body += b"%d 0 obj\n%b\nendobj\n" % (number, each)
    table = b"xref\n0 5\n0000000000 65535 f \n" + b"".join(b"%010d 00000 n \n" % place for place in places)
    end = b"trailer << /Size 5 /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % len(body)
    return base64.b64encode(body + table + end).decode()


@dataclass(frozen=True, slots=True)
class _Trial:
    """A question, and how its response is judged: None if the feature works, else what was seen instead."""

    question: Question
    judge: Callable[[ProbeResult], str | None]


def _blocks(result: ProbeResult, kind: str) -> list[Mapping[str, Any]]:
    content = result.message.get("content")
    blocks = content if isinstance(content, list) else []
    return [block for block in blocks if isinstance(block, dict) and block.get("type") == kind]


def _text(result: ProbeResult) -> str:
    return " ".join(str(block.get("text", "")) for block in _blocks(result, "text"))


def _says(word: str) -> Callable[[ProbeResult], str | None]:
    return lambda result: None if word in _text(result).lower() else f"the response does not say {word!r}"


def _has_calls(count: int) -> Callable[[ProbeResult], str | None]:
    def judge(result: ProbeResult) -> str | None:
        return None if len(result.tools) >= count else f"the model made {len(result.tools)} of {count} calls"

    return judge


def _has_json(result: ProbeResult) -> str | None:
    try:
        value = jsonio.loads(_text(result))
    except jsonio.JSONError:
        return "the response is not JSON"
    is_valid = isinstance(value, dict) and isinstance(value.get("sum"), int)
    return None if is_valid else "the response does not fit the schema"


def _has_results(result: ProbeResult) -> str | None:
    found = [block.get("content") for block in _blocks(result, "web_search_tool_result")]
    if any(isinstance(content, list) and content for content in found):
        return None
    return _text(result)[:200] or "no results"


def _has_verdict(result: ProbeResult) -> str | None:
    results = result.message.get("safeguard_results")
    status = results[0].get("status") if isinstance(results, list) and results else None
    if not result.tools:
        return "the model made no call that could be checked"
    kind = status.get("type") if isinstance(status, dict) else None
    return None if kind == "available" else f"no verdict: {kind or 'nothing was said of it'}"


def _image(data: str) -> dict[str, Any]:
    return {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": data}}


def _document(data: str) -> dict[str, Any]:
    return {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": data}}


_SUM_SCHEMA = {
    "type": "object",
    "properties": {"sum": {"type": "integer"}},
    "required": ["sum"],
    "additionalProperties": False,
}
_SAFEGUARDS = [{"type": "dangerous_tool_use", "classifier_context": {"v": 1, "live_cwd": "/"}}]


def _trials() -> dict[str, _Trial]:
    """Return how each feature is tried; the others cannot be by a small call."""
    both = "Call the report tool twice in this one response: with the word one, and with the word two."
    return {
        "streaming": _Trial(STREAM, lambda result: None),
        "tools": _Trial(TOOL_CALL, _has_calls(1)),
        "parallel tools": _Trial(Question(both, tools=TOOL_CALL.tools), _has_calls(2)),
        "thinking": _Trial(
            Question(
                "What is 17 times 23? Think first.",
                max_tokens=2048,
                stream=False,
                fields={"thinking": {"type": "enabled", "budget_tokens": 1024}},
            ),
            lambda result: (
                None
                if _blocks(result, "thinking") or _blocks(result, "redacted_thinking")
                else "no thinking came back"
            ),
        ),
        "images": _Trial(
            Question(
                "Which colour fills this image? Answer with one English word.",
                stream=False,
                blocks=[_image(_RED_PNG)],
            ),
            _says("red"),
        ),
        "PDFs": _Trial(
            Question("Which word is on this page?", stream=False, blocks=[_document(_pdf())]),
            _says(_PDF_WORD.lower()),
        ),
        "web search": _Trial(
            Question(
                "Perform a web search for the query: Claude Code",
                max_tokens=1024,
                stream=False,
                tools=[{"type": "web_search_20250305", "name": "web_search", "max_uses": 1}],
            ),
            _has_results,
        ),
        "auto mode": _Trial(
            Question(TOOL_CALL.text, stream=False, tools=TOOL_CALL.tools, fields={"safeguards": _SAFEGUARDS}),
            _has_verdict,
        ),
        "structured outputs": _Trial(
            Question(
                "What is 2 plus 3?",
                stream=False,
                fields={"output_config": {"format": {"type": "json_schema", "schema": _SUM_SCHEMA}}},
            ),
            _has_json,
        ),
    }


async def try_features(
    loaded: LoadedConfig, route: ModelRoute, features: Sequence[Feature]
) -> dict[str, dict[str, Any]]:
    """Try the features that the entry has, one after the other.

    Returns:
        Name -> ``ok`` (None if it was not tried), ``said``, and ``ms`` if it was tried.
    """
    why = route.missing_key or why_not_called(route)
    trials = {} if why is not None else _trials()
    found: dict[str, dict[str, Any]] = {}
    async with temporary_daemon(loaded) as (host, port):
        for feature in features:
            trial = trials.get(feature.name)
            if trial is None or feature.served == NO:
                found[feature.name] = {"ok": None, "said": why or "not tried"}
                continue
            result = await asyncio.to_thread(probe, host, port, route.model_id, trial.question)
            seen = trial.judge(result) if result.is_ok else result.error
            if not result.is_ok and result.status is not None:
                seen = f"{result.status}: {seen}"
            found[feature.name] = {
                "ok": seen is None,
                "said": seen or "works",
                "ms": round(result.duration_s * 1000),
            }
    return found
