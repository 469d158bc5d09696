"""What calls add to the metrics."""

from __future__ import annotations

from typing import Any

import pytest

from proxyd.codecs.anthropic.usage import Usage
from proxyd.telemetry.otel import conventions as names
from proxyd.telemetry.otel.measurements import INSTRUMENTS, Measurement, measurements_of
from tests.support.observing import finished
from tests.support.otel_calls import traced_call


def measured(attempts: int = 1, **fields: Any) -> dict[str, list[Measurement]]:
    found: dict[str, list[Measurement]] = {}
    for each in measurements_of(traced_call(attempts, **fields), lambda route, url: "moonshot"):
        found.setdefault(each.instrument, []).append(each)
    return found


def test_a_call_with_a_retry() -> None:
    found = measured(2, usage=Usage(100, 21, 300, 40))
    assert found.keys() == INSTRUMENTS.keys()
    failed, served = found[names.CLIENT_DURATION]
    assert failed.attributes[names.ERROR_TYPE] == "overloaded_error"
    assert names.ERROR_TYPE not in served.attributes
    assert served.value == pytest.approx(0.1, abs=0.1)
    assert served.attributes[names.PROVIDER_NAME] == "moonshot_ai"
    assert (served.attributes[names.SERVER_ADDRESS], served.attributes[names.SERVER_PORT]) == (
        "up.example",
        8443,
    )
    assert [each.value for each in found[names.CLIENT_FIRST_CHUNK]] == [pytest.approx(0.0625)]
    tokens = {each.attributes[names.TOKEN_TYPE]: each.value for each in found[names.CLIENT_TOKEN_USAGE]}
    assert tokens == {"input": 440, "output": 21}
    assert [each.value for each in found[names.SERVER_DURATION]] == [2.0]
    assert [each.value for each in found[names.SERVER_FIRST_TOKEN]] == [0.25]
    assert [each.value for each in found[names.SERVER_PER_TOKEN]] == [pytest.approx(1.75 / 20)]
    assert names.SERVER_ADDRESS not in found[names.SERVER_DURATION][0].attributes


def test_what_is_not_known_is_not_measured() -> None:
    refused = measured(usage=Usage(), outcome="refused", status=529, error_type="overloaded_error")
    assert refused.keys() == {names.CLIENT_DURATION, names.CLIENT_FIRST_CHUNK, names.SERVER_DURATION}
    assert refused[names.SERVER_DURATION][0].attributes[names.ERROR_TYPE] == "overloaded_error"
    whole = measured(usage=Usage(1, 1), first_byte=None)
    assert names.SERVER_FIRST_TOKEN not in whole
    assert names.SERVER_PER_TOKEN not in measured(usage=Usage(1, 1))


def test_what_is_no_message_of_a_client() -> None:
    assert measured(kind="count") == {}
    assert measured(0) == {}
    assert measurements_of(finished(), lambda route, url: "x") == []
    own = measured(kind="image")
    assert names.CLIENT_TOKEN_USAGE in own
    assert names.SERVER_DURATION not in own
    # Metrics count the calls whose spans are not sampled, too.
    assert measured(sample=0.0).keys() == INSTRUMENTS.keys()
