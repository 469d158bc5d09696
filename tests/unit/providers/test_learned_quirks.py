"""What one call learns from the refusals of an upstream, one after the other."""

from __future__ import annotations

from typing import Any

import pytest

from proxyd import jsonio
from proxyd.config.routes import ModelRoute
from proxyd.providers.learned_quirks import CallKind, LearnedQuirks, LearnedQuirkStore

ROUTE = ModelRoute(model_id="m", model_name="x", api_base="http://127.0.0.1:1/v1")
SENT: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "u"}], "max_tokens": 9}
REASONING = "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."


def refusal(message: str) -> bytes:
    return jsonio.dumps({"error": {"message": message, "type": "invalid_request_error"}})


@pytest.mark.parametrize(
    ("fields", "also"),
    [
        ({}, {}),
        ({"temperature": 0.5}, {"sampling": []}),
        ({"stop": ["a"]}, {"stop_limit": 0}),
        ({"top_p": 0.5, "stop": ["a"]}, {"sampling": [], "stop_limit": 0}),
    ],
)
def test_openais_reasoning_models_are_recognised_at_once(
    fields: dict[str, Any], also: dict[str, Any]
) -> None:
    learned = LearnedQuirks().after(400, refusal(REASONING), {**SENT, **fields}, ROUTE)
    assert learned is not None
    assert learned.quirks == {"max_tokens_field": "max_completion_tokens", **also}
    assert len(learned.lines) == 1


def test_another_name_of_the_limit_alone_is_no_reasoning_model() -> None:
    words = "Unsupported parameter: max_tokens"
    learned = LearnedQuirks().after(400, refusal(words), {**SENT, "temperature": 0.5}, ROUTE)
    assert learned is not None
    assert learned.quirks == {"max_tokens_field": "max_completion_tokens"}


def test_kinds_of_calls_are_apart() -> None:
    store, quirks = LearnedQuirkStore(), LearnedQuirks({"stop_limit": 0}, None, ("quirks: {stop_limit: 0}",))
    thinking = CallKind.of({"thinking": {"type": "adaptive"}, "tools": [{}]})
    assert thinking == CallKind(has_tools=True, thinks=True)
    assert CallKind.of({"thinking": {"type": "disabled"}, "tools": []}) == CallKind()
    assert store.keep(ROUTE, thinking, quirks, 0) == quirks.lines
    assert store.of(ROUTE, thinking, 9) == quirks
    assert store.of(ROUTE, CallKind(), 9) == LearnedQuirks()
