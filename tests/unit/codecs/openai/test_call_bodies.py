"""The end of a call's body, wherever it is cut, and what the body holds."""

from __future__ import annotations

import pytest

from proxyd.codecs.openai.call_bodies import ObjectReader, TextCall, read_call, reader_for
from proxyd.codecs.openai.tool_call_formats import FORMATS, Body, CallFormat
from tests.support.text_calls import offered

BY_NAME = {each.name: each for each in FORMATS}
CALL = next(each for each in FORMATS if each.body is Body.CALL)


@pytest.mark.parametrize(
    ("text", "end", "is_bad"),
    [
        ("{}", 2, False),
        ('{"a": [1, {"b": "}"}]} tail', 22, False),
        ('{"a": "\\"}"}x', 12, False),
        ('"a": 1}x', 7, False),
        ("{'a'}", 1, True),
        ("{<", 1, True),
        ('{"a": 1', -1, False),
        ('{"a\\', -1, False),
    ],
)
def test_end_of_an_object(text: str, end: int, is_bad: bool) -> None:
    for at in range(1, len(text)):
        reader = ObjectReader()
        found = reader.feed(text[:at])
        if found < 0:
            rest = reader.feed(text[at:])
            found = rest + at if rest >= 0 else rest
        assert (found, reader.is_bad) == (end, is_bad), at


@pytest.mark.parametrize("chosen", [each for each in FORMATS if each.syntax], ids=lambda each: each.name)
def test_body_without_parameters(chosen: CallFormat) -> None:
    assert chosen.syntax is not None
    end = chosen.syntax.begins[-1]
    assert reader_for(chosen).feed(end + "tail") == len(end)
    assert read_call(chosen, "TaskList", end, offered()) == TextCall("TaskList", "{}")
    assert read_call(chosen, "Bash", end, offered()) is None


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ('{"name": "Bash", "arguments": {"command": "a"}}', '{"command":"a"}'),
        ('{"name": "functions.Bash", "args": {"command": "a"}}', '{"command":"a"}'),
        ('{"function": "Bash", "input": {"command": "a"}}', '{"command":"a"}'),
        ('{"function": {"name": "Bash", "arguments": "{\\"command\\": \\"a\\"}"}}', '{"command":"a"}'),
        ('{"name": "Bash", "arguments": "{\\"cmd\\": 1}"}', None),
        ('{"name": "Bash", "arguments": 5}', None),
        ('{"name": "Shell", "arguments": {}}', None),
        ('{"name": ["Bash"], "arguments": {}}', None),
        ('{"name": "Bash", "arguments": {"command": NaN}}', None),
        ('{"name": "Bash",, "arguments": {}}', None),
        ('{"a": 1}', None),
    ],
)
def test_whole_calls(body: str, expected: str | None) -> None:
    found = read_call(CALL, "", body, offered())
    assert found == (None if expected is None else TextCall("Bash", expected))
