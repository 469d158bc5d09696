"""Every capture through every profile to its vendor's simulator: translation, refusal, lesson, and again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from proxyd.codecs.openai.request import translation
from proxyd.codecs.translation.translated import RequestOptions, run_to_end
from proxyd.config.routes import ModelRoute
from proxyd.providers.learned_quirks import LearnedQuirks
from proxyd.providers.registry import dialect_for, profile_for
from tests.captures import Capture, captures
from tests.support.vendors import VENDORS
from tests.support.vendors.engine import Vendor

__all__ = ["LEARNED", "MADE", "MAX_TRIES", "Cell", "Route", "cell", "requests_of", "routes"]

#: What has to be learned takes this many calls of the upstream at most.
MAX_TRIES = 3
HEADERS = {"authorization": "Bearer key", "api-key": "key"}

#: Vendors reached through a host that no profile knows, such as a gateway: their rules have to be learned.
LEARNED = (
    ("openai", "gpt-5.6"),
    ("openai", "gpt-5.4"),
    ("openai", "gpt-5"),
    ("openai", "gpt-4.1"),
    ("moonshot", "kimi-k2.6"),
    ("deepseek", "deepseek-v4-pro"),
    ("zhipu", "glm-5.3"),
    ("minimax", "MiniMax-M2.7"),
    ("gemini", "gemini-3-pro"),
    ("xai", "grok-4.3"),
    ("groq", "openai/gpt-oss-120b"),
    ("mistral", "mistral-large-2512"),
    ("vllm", "mistralai/Devstral-2-123B"),
    ("llamacpp", "qwen3.8-27b"),
    ("lmstudio", "qwen3.8-27b"),
)


#: What other clients ask for and no capture holds: fields over the first turn, by name.
MADE: dict[str, dict[str, Any]] = {
    "any_tool": {"tool_choice": {"type": "any"}},
    "named_tool": {"tool_choice": {"type": "tool", "name": "Bash", "disable_parallel_tool_use": True}},
    "named_tool_thinking_off": {
        "tool_choice": {"type": "tool", "name": "Bash"},
        "thinking": {"type": "disabled"},
        "output_config": {},
    },
    "thinking_by_budget": {"thinking": {"type": "enabled", "budget_tokens": 2000}, "output_config": {}},
    "sampling": {"temperature": 0.5, "top_p": 0.9, "top_k": 40, "stop_sequences": ["a", "b", "c", "d", "e"]},
    "bookkeeping": {"service_tier": "auto", "metadata": {"user_id": "u"}, "speed": "fast"},
}


def requests_of(version: str) -> list[Capture]:
    """What is sent through the matrix: captures that go to an upstream, since tokens are counted here, and `MADE`."""
    found = [capture for capture in captures(version).values() if capture.path == "/v1/messages"]
    first = captures(version)["first_turn"]
    made = [Capture(version, name, first.path, {**first.body, **fields}) for name, fields in MADE.items()]
    return [*found, *made]


@dataclass(frozen=True)
class Route:
    """A row of the matrix.

    Args:
        profile: by which the requests are translated.
        vendor: that judges them.
        model: the upstream's name of it.
    """

    profile: str
    vendor: Vendor
    model: str

    @property
    def is_known(self) -> bool:
        """Whether the profile is that of the vendor, so that the first try must do."""
        return self.profile == self.vendor.name

    @property
    def name(self) -> str:
        return (
            f"{self.profile} {self.model}"
            if self.is_known
            else f"{self.profile} to {self.vendor.name} {self.model}"
        )


@dataclass(frozen=True)
class Cell:
    """How one capture fared.

    Args:
        tries: calls of the upstream.
        refused: the rules that were broken, in order.
        is_taken: whether the last call was not refused.
        words: of the last refusal, for the reader of a failure.
    """

    tries: int
    refused: tuple[str, ...]
    is_taken: bool
    words: str = ""

    def is_right(self, route: Route) -> bool:
        return self.is_taken and self.tries <= (1 if route.is_known else MAX_TRIES)


def routes() -> Iterator[Route]:
    """All rows: each model of each vendor by its own profile, and those of `LEARNED` by ``generic``."""
    for vendor in VENDORS.values():
        for model in vendor.models:
            yield Route(vendor.name, vendor, model)
    for name, model in LEARNED:
        yield Route("generic", VENDORS[name], model)


def cell(route: Route, capture: Capture) -> Cell:
    """Send one capture along one route, learning from refusals as the proxy does."""
    entry = ModelRoute(
        model_id="m", model_name=route.model, api_base="https://vendor.example/v1", provider=route.profile
    )
    profile = profile_for(entry.api_base, entry.provider)
    lessons, refused, words = LearnedQuirks(), [], ""
    while len(refused) < MAX_TRIES:
        current = lessons.applied_to(entry)
        translated = run_to_end(
            translation(
                capture.body,
                dialect_for(profile, route.model, current.quirks),
                RequestOptions(model=route.model, stream=True, max_tokens=current.max_tokens),
            )
        )
        body = json.loads(translated.written())
        refusal = route.vendor.judge(body, HEADERS)
        if refusal is None:
            return Cell(len(refused) + 1, tuple(refused), True)
        refused.append(refusal.rule)
        raw = json.dumps(refusal.body).encode()
        words = raw.decode()
        learned = lessons.after(refusal.status, raw, body, entry)
        if learned is None:
            break
        lessons = learned
    return Cell(len(refused), tuple(refused), False, words)
