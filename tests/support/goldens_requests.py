"""Request transcripts: Messages requests, and what each vendor must be sent for them.

In ``tests/transcripts/requests/<profile>/``, ``<case>.request.json`` is what a client sent, ``<case>.upstream.json``
the body for the upstream; ``<case>.responses.json`` and ``<case>.gemini-api.json`` those of the Responses and of the
Gemini API, where the profile offers it.
``<case>.route.json``, where present, holds what the route configures: the keys of
`~proxyd.codecs.openai.request.RequestOptions`, and ``quirks``. Without it the model is the request's, and the
upstream streams.

``python -m tests.support.goldens_requests`` rewrites the expectations; review the difference like code.
"""

from __future__ import annotations

import json
from typing import Any

from proxyd.codecs.formats import CHAT, FORMATS, Format
from proxyd.codecs.translation.translated import RequestOptions, Translated, run_to_end
from proxyd.providers.registry import PROFILES, dialect_for
from tests.support.paths import TRANSCRIPTS

ROOT = TRANSCRIPTS / "requests"

#: Format -> the middle of the name of its expectations.
_ENDINGS = {each.name: each.folder or "upstream" for each in FORMATS.values()}


def cases() -> list[str]:
    """All cases as ``profile/case``."""
    return sorted(
        str(path.relative_to(ROOT)).removesuffix(".request.json") for path in ROOT.glob("*/*.request.json")
    )


def formats_of(case: str) -> list[Format]:
    """The formats in which a case has an expectation."""
    return [CHAT, *(FORMATS[name] for name in PROFILES[case.split("/")[0]].formats)]


def translate(case: str, chosen: Format = CHAT) -> Translated:
    """What the code makes of a case now."""
    payload = _read(case, "request")
    route: dict[str, Any] = _read(case, "route") if (ROOT / f"{case}.route.json").exists() else {}
    quirks = route.pop("quirks", {})
    options = RequestOptions(**{"model": payload["model"], "stream": True, **route})
    profile = PROFILES[case.split("/")[0]]
    dialect = dialect_for(profile, options.model, quirks, chosen)
    return run_to_end(chosen.translation(payload, dialect, options))


def expected(case: str, chosen: Format = CHAT) -> Any:
    return _read(case, _ENDINGS[chosen.name])


def write(case: str, chosen: Format, body: dict[str, Any]) -> bool:
    """Store an expectation; whether it differs from the one before."""
    path = ROOT / f"{case}.{_ENDINGS[chosen.name]}.json"
    text = json.dumps(body, ensure_ascii=False, indent=1) + "\n"
    if path.exists() and path.read_text("utf-8") == text:
        return False
    path.write_text(text, "utf-8")
    return True


def _read(case: str, kind: str) -> Any:
    return json.loads((ROOT / f"{case}.{kind}.json").read_text("utf-8"))


if __name__ == "__main__":
    for name in cases():
        for each in formats_of(name):
            if write(name, each, translate(name, each).body):
                print(f"rewritten: {name} {each.name}")
