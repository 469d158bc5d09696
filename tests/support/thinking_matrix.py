"""What each client state of thinking becomes for each model that the vendors' simulators know.

``python -m tests.support.thinking_matrix`` rewrites the expectations; review the difference like code.
"""

from __future__ import annotations

import json
from typing import Any

from proxyd.codecs.openai.request import to_openai_request
from proxyd.codecs.translation.translated import RequestOptions
from proxyd.providers.registry import PROFILES, dialect_for
from tests.support.paths import TRANSCRIPTS
from tests.support.vendors import VENDORS

__all__ = ["MODELS", "STATES", "expected", "thinking_fields"]

PATH = TRANSCRIPTS / "thinking" / "matrix.json"

_ADAPTIVE = {"type": "adaptive"}
#: Client state -> the fields of its request. Claude Code's "off", and its side calls, send the effort alone.
STATES: dict[str, dict[str, Any]] = {
    "nothing": {},
    "effort alone": {"output_config": {"effort": "high"}},
    "disabled": {"thinking": {"type": "disabled"}, "output_config": {"effort": "high"}},
    "adaptive": {"thinking": _ADAPTIVE},
    "low": {"thinking": _ADAPTIVE, "output_config": {"effort": "low"}},
    "medium": {"thinking": _ADAPTIVE, "output_config": {"effort": "medium"}},
    "high": {"thinking": _ADAPTIVE, "output_config": {"effort": "high"}},
    "xhigh": {"thinking": _ADAPTIVE, "output_config": {"effort": "xhigh"}},
    "max": {"thinking": _ADAPTIVE, "output_config": {"effort": "max"}},
    "budget 5000": {"thinking": {"type": "enabled", "budget_tokens": 5000}},
}

#: Profile and model.
MODELS = [(vendor.name, model) for vendor in VENDORS.values() for model in vendor.models] + [
    ("generic", "some-model"),
    ("generic", "glm-5.3"),
]


def thinking_fields(profile: str, model: str, fields: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of the upstream request that are there because of `fields`."""
    dialect = dialect_for(PROFILES[profile], model, {})
    payload = {"model": "x", "messages": [{"role": "user", "content": "hi"}], **fields}
    body = to_openai_request(payload, dialect, RequestOptions(model, True)).body
    for name in ("model", "messages", "stream", "stream_options", *dialect.body):
        body.pop(name, None)
    return body


def expected() -> dict[str, dict[str, Any]]:
    """Return profile and model -> client state -> fields."""
    found: dict[str, dict[str, Any]] = json.loads(PATH.read_text("utf-8"))
    return found


def _current() -> dict[str, dict[str, Any]]:
    return {
        f"{profile} {model}": {
            state: thinking_fields(profile, model, fields) for state, fields in STATES.items()
        }
        for profile, model in MODELS
    }


if __name__ == "__main__":
    PATH.parent.mkdir(exist_ok=True)
    PATH.write_text(json.dumps(_current(), indent=1) + "\n", "utf-8")
