"""The sizes of prompts that fit, as they are learned from refusals and from accepted prompts."""

from __future__ import annotations

from dataclasses import replace

from proxyd.codecs.upstream_errors.errors import ErrorContext
from proxyd.config.routes import ModelRoute
from proxyd.providers.learned_quirks import LearnedQuirkStore, Sizes

ROUTE = ModelRoute(model_id="m", model_name="x", api_base="http://127.0.0.1:1/v1")


def test_a_window_is_new_once() -> None:
    learned = LearnedQuirkStore()
    assert learned.keep_window(ROUTE, 30000) == ("max_input_tokens: 30000",)
    assert learned.keep_window(ROUTE, 30000) == ()
    assert learned.keep_window(ROUTE, 32768) == ("max_input_tokens: 32768",)
    assert learned.keep_window(replace(ROUTE, max_input_tokens=8192), 8192) == ()


def test_a_window_is_of_one_route_and_model() -> None:
    learned = LearnedQuirkStore()
    learned.keep_window(ROUTE, 30000)
    assert learned.sizes_of(replace(ROUTE, model_name="y")) == Sizes()
    assert learned.sizes_of(replace(ROUTE, api_base="http://127.0.0.1:2/v1")) == Sizes()


def test_the_largest_accepted_prompt_counts() -> None:
    learned = LearnedQuirkStore()
    for estimate in (5000, None, 9000, 7000):
        learned.keep_accepted(ROUTE, estimate)
    assert learned.sizes_of(ROUTE) == Sizes(largest_accepted=9000)


def test_an_accepted_prompt_far_over_the_window_ends_it() -> None:
    learned = LearnedQuirkStore()
    learned.keep_window(ROUTE, 10000)
    learned.keep_accepted(ROUTE, 12000)  # an estimate may be off
    assert learned.sizes_of(ROUTE) == Sizes(10000, 12000)
    learned.keep_accepted(ROUTE, 16000)
    assert learned.sizes_of(ROUTE) == Sizes(None, 16000)


def test_a_context_is_informed_and_models_yaml_comes_first() -> None:
    learned = LearnedQuirkStore()
    learned.keep_window(ROUTE, 30000)
    learned.keep_accepted(ROUTE, 9000)
    context = ErrorContext()
    learned.inform(context, ROUTE)
    assert (context.window, context.largest_accepted) == (30000, 9000)
    context = ErrorContext(window=8192)
    learned.inform(context, ROUTE)
    assert context.window == 8192
