"""The sizes of prompts that fit, as they are learned from refusals and from accepted prompts."""

from __future__ import annotations

from dataclasses import replace

from proxyd.codecs.upstream_errors.errors import ErrorContext
from proxyd.config.routes import ModelRoute
from proxyd.providers.learned_sizes import MAX_AGE_S, LearnedSizes, Sizes

NOW = 1e9
ROUTE = ModelRoute(model_id="m", model_name="x", api_base="http://127.0.0.1:1/v1")


def test_a_window_is_new_once() -> None:
    learned = LearnedSizes()
    assert learned.keep_window(ROUTE, 30000, NOW) == ("max_input_tokens: 30000",)
    assert learned.keep_window(ROUTE, 30000, NOW) == ()
    assert learned.keep_window(ROUTE, 32768, NOW) == ("max_input_tokens: 32768",)
    assert learned.keep_window(replace(ROUTE, max_input_tokens=8192), 8192, NOW) == ()


def test_a_window_is_of_one_route_and_model() -> None:
    learned = LearnedSizes()
    learned.keep_window(ROUTE, 30000, NOW)
    assert learned.of(replace(ROUTE, model_name="y"), NOW) == Sizes()
    assert learned.of(replace(ROUTE, api_base="http://127.0.0.1:2/v1"), NOW) == Sizes()


def test_the_largest_accepted_prompt_counts() -> None:
    learned = LearnedSizes()
    for estimate in (5000, None, 9000, 7000):
        learned.keep_accepted(ROUTE, estimate, NOW)
    assert learned.of(ROUTE, NOW) == Sizes(largest_accepted=9000)


def test_an_accepted_prompt_far_over_the_window_ends_it() -> None:
    learned = LearnedSizes()
    learned.keep_window(ROUTE, 10000, NOW)
    learned.keep_accepted(ROUTE, 12000, NOW)  # an estimate may be off
    assert learned.of(ROUTE, NOW) == Sizes(10000, 12000, NOW)
    learned.keep_accepted(ROUTE, 16000, NOW)
    assert learned.of(ROUTE, NOW) == Sizes(None, 16000, NOW)


def test_a_context_is_informed_and_models_yaml_comes_first() -> None:
    learned = LearnedSizes()
    learned.keep_window(ROUTE, 30000, NOW)
    learned.keep_accepted(ROUTE, 9000, NOW)
    context = ErrorContext()
    learned.inform(context, ROUTE, NOW)
    assert (context.window, context.largest_accepted) == (30000, 9000)
    context = ErrorContext(window=8192)
    learned.inform(context, ROUTE, NOW)
    assert context.window == 8192


def test_a_window_is_kept_for_thirty_days() -> None:
    learned, restarted = LearnedSizes(), LearnedSizes()
    learned.keep_window(ROUTE, 30000, NOW)
    learned.keep_accepted(replace(ROUTE, model_id="other"), 9000, NOW)
    assert learned.of(ROUTE, NOW + MAX_AGE_S).window is None
    learned.keep_window(ROUTE, 30000, NOW + 5)
    restarted.load(learned.to_rows(), NOW + 9)
    assert restarted.of(ROUTE, NOW + 9) == Sizes(30000, None, NOW + 5)
    assert len(restarted.to_rows()) == 1
    assert restarted.of(replace(ROUTE, extra_body={"options": {"num_ctx": 65536}}), NOW + 9).window is None
    restarted = LearnedSizes()
    restarted.load(learned.to_rows(), NOW + MAX_AGE_S + 9)
    assert restarted.to_rows() == []
