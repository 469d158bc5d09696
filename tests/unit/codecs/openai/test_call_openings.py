"""Openings of calls: decided as early as the text allows, and bounded."""

from __future__ import annotations

import pytest

from proxyd.codecs.openai.call_openings import (
    MARKERS,
    MAX_OPENING,
    Match,
    match_opening,
    partial_marker_length,
)
from proxyd.codecs.openai.tool_call_formats import FORMATS
from tests.support.text_calls import CALLS, offered

NAMES = offered().names


@pytest.mark.parametrize("name", CALLS)
def test_every_opening_is_perhaps_one_until_it_is_one(name: str) -> None:
    text = CALLS[name]
    is_start = "bare" in name
    answers = [match_opening(text[:at], 0, NAMES, is_start=is_start)[0] for at in range(1, len(text) + 1)]
    first = answers.index(Match.YES)
    assert set(answers[:first]) <= {Match.PERHAPS}
    assert set(answers[first:]) == {Match.YES}


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("<tool_call>", Match.PERHAPS),
        ("<tool_call>\n", Match.PERHAPS),
        ("<tool_call>x", Match.NO),
        ("<tool_call>Ba", Match.PERHAPS),
        ("<tool_call>Bash", Match.PERHAPS),
        ("<tool_call>Bash ", Match.PERHAPS),
        ("<tool_call>Bash a", Match.NO),
        ("[TOOL_CALLS]BashOutput", Match.PERHAPS),
        ("[TOOL_CALLS]BashOutput{", Match.YES),
        ("[TOOL_CALLS]BashO{", Match.NO),
        ("<|channel|>commentary to=Bash code", Match.NO),
        ("<|channel|>analysis", Match.PERHAPS),
        ("<tool_call>" + " " * MAX_OPENING + "{", Match.NO),
        ("<tool_call>" + " " * (MAX_OPENING - 20) + "{", Match.YES),
        ("<tool_call>" + " " * 2 * MAX_OPENING, Match.NO),
        ('{"name": "Bash", "parameters": {', Match.NO),  # only at the start
    ],
)
def test_answers(text: str, answer: Match) -> None:
    assert match_opening(text, 0, NAMES)[0] is answer


def test_markers() -> None:
    for each in FORMATS:
        if not each.is_alone:
            for opening in each.openings:
                assert MARKERS.match(opening), opening
    assert partial_marker_length("a <tool") == 5
    assert partial_marker_length("a <tool_call>") == 0
    assert partial_marker_length("a <b") == 0
    assert partial_marker_length("[") == 1
    assert partial_marker_length("") == 0
