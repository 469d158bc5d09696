"""The fast path of Responses deltas: it returns a text only where parsing would."""

from __future__ import annotations

import json
from typing import Any

import pytest

from proxyd.codecs.responses.delta_template import DeltaTemplate
from proxyd.codecs.wire.sse import SSEFrame

EVENT = b"response.output_text.delta"
BEFORE = {"type": "response.output_text.delta", "sequence_number": 8, "output_index": 1, "content_index": 0}


def data(delta: str, number: Any = 9, **fields: Any) -> bytes:
    return json.dumps({**BEFORE, "sequence_number": number, "delta": delta, **fields}).encode()


def learned(first: bytes) -> DeltaTemplate:
    template = DeltaTemplate()
    learn(template, first)
    return template


def learn(template: DeltaTemplate, data: bytes) -> None:
    template.learn(SSEFrame(EVENT, data), json.loads(data))


def text_of(template: DeltaTemplate, data: bytes) -> str:
    return template.read(b"event: %b\ndata: %b" % (EVENT, data))[0]


@pytest.mark.parametrize(
    "form",
    [
        lambda delta, number: data(delta, number),
        lambda delta, number: data(delta, number, logprobs=[]),
        # the number behind the text, as some servers sort their keys
        lambda delta, number: json.dumps({"delta": delta, "sequence_number": number, "type": "t"}).encode(),
        lambda delta, number: json.dumps({"type": "t", "delta": delta}).encode(),
    ],
)
def test_the_next_event_of_the_same_form_is_recognised(form: Any) -> None:
    template = learned(form("a", 9))
    assert template.kind
    assert [text_of(template, form(text, 10 + at)) for at, text in enumerate(("b", 'c "d"\n', "ä"))] == [
        "b",
        'c "d"\n',
        "ä",
    ]


@pytest.mark.parametrize(
    "other",
    [
        data("b", 11),  # an event is missing
        data("b", 9),  # repeated
        data("b", 10, output_index=2),
        data("b", 10, logprobs=[]),
        data("", 10),
        data("b", 10)[:-1],
        b"",
        b'{"type":"response.completed"}',
    ],
)
def test_another_event_is_left_to_the_parser(other: bytes) -> None:
    template = learned(data("a"))
    assert text_of(template, other) == ""
    assert text_of(template, data("b", 10)) == "b", "a declined event has no side effect"


@pytest.mark.parametrize(
    "first",
    [
        data("a", "9"),
        data("a", 9.5),
        data("a", None),
        data("a", number=[9]),
        data("a", item={"delta": "x"}),
        data("a", extra={"sequence_number": 3}),
        data("a" * 5000),
        data("a") + b"\n",
    ],
)
def test_an_event_of_which_parts_may_mean_more_is_not_learned(first: bytes) -> None:
    template = DeltaTemplate()
    learn(template, first)
    assert template.kind == ""
    assert text_of(template, first) == ""


def test_a_server_that_pads_each_event_is_given_up() -> None:
    template = DeltaTemplate()
    for number in range(30):
        event = data("a", number, obfuscation="x" * number)
        assert text_of(template, event) == ""
        learn(template, event)
    assert template.kind == ""
