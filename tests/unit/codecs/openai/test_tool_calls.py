"""Assignment of fragments to calls (docs/spec/chat-to-messages.md#tool-calls), and the end of arguments."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxyd.codecs.openai.tool_calls import JsonExtent, ToolCalls
from proxyd.errors import BadReply


def fragment(
    index: Any = None, call_id: Any = None, name: Any = None, arguments: Any = None, **more: Any
) -> dict[str, Any]:
    return {"index": index, "id": call_id, "function": {"name": name, "arguments": arguments}, **more}


def assigned(*fragments: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Id, name and arguments of each call."""
    calls = ToolCalls()
    for each in fragments:
        calls.add(each)
    return [
        (slot.call_id, slot.name, slot.arguments() or ("{}" if slot.has_placeholder else ""))
        for slot in calls.slots
    ]


CASES: dict[str, tuple[list[dict[str, Any]], list[tuple[str, str, str]]]] = {
    "fragments": ([fragment(0, "a", "R", ""), fragment(0, None, None, '{"p"'), fragment(0, None, None, ":1}")],
                  [("a", "R", '{"p":1}')]),
    "rule 2, another id": ([fragment(0, "a", "R", "{}"), fragment(0, "b", "S", "{}")],
                           [("a", "R", "{}"), ("b", "S", "{}")]),
    "rule 3, the id is known": ([fragment(None, "a", "R", "{"), fragment(None, "b", "S", "{"),
                                 fragment(None, "a", None, "}"), fragment(None, "b", None, "}")],
                                [("a", "R", "{}"), ("b", "S", "{}")]),
    "rule 3, neither": ([fragment(None, None, "R", "{"), fragment(None, None, None, "}"),
                         fragment(None, None, "R", '{"q":1}')],
                        [("", "R", "{}"), ("", "R", '{"q":1}')]),
    "rule 4": ([fragment(0, "a", "R", '{"p":1}'), fragment(0, None, None, '{"p":2}')],
               [("a", "R", '{"p":1}'), ("", "R", '{"p":2}')]),
    "rule 5": ([fragment(0, "a", "R", '{"p":1}'), fragment(0, None, None, '{"p":1}')],
               [("a", "R", '{"p":1}')]),
    "everything repeated": ([fragment(0, "a", "R", '{"p":1}'), fragment(0, "a", "R", '{"p":1}')],
                          [("a", "R", '{"p":1}')]),
    "a fragment that equals the arguments so far": ([fragment(0, "a", "R", "1"), fragment(0, None, None, "1")],
                                                    [("a", "R", "11")]),
    "late id and name": ([fragment(0, None, None, "{"), fragment(0, "a", None, "}"), fragment(0, None, "R")],
                         [("a", "R", "{}")]),
    "empty strings": ([fragment(0, "a", "R", ""), fragment(0, "", "", "{}")], [("a", "R", "{}")]),
    "an id for each fragment": ([fragment(0, "a", "R", "{"), fragment(0, "b", None, "}")], [("a", "R", "{}")]),
    "index of another kind": ([fragment(True, None, "R", "{"), fragment("0", None, None, "}")],
                              [("", "R", "{}")]),
    "null as a string": ([fragment(0, "a", "R", " null ")], [("a", "R", "{}")]),
    "a second object after a brace in a string": (
        [fragment(0, "a", "R", '{"p":"}'), fragment(0, None, None, '{"}')], [("a", "R", '{"p":"}{"}')]),
    "a placeholder, then arguments": ([fragment(0, "a", "R", "{}"), fragment(0, None, None, '{"p"'),
                                       fragment(0, None, None, ":1}")], [("a", "R", '{"p":1}')]),
    "a placeholder, then all again": ([fragment(0, "a", "R", " { } "), fragment(0, "a", "R", '{"p":1}')],
                                      [("a", "R", '{"p":1}')]),
    "placeholders of two calls": ([fragment(0, "a", "R", "{}"), fragment(1, "b", "R", "{}"),
                                   fragment(0, None, None, '{"p":1}')], [("a", "R", '{"p":1}'), ("b", "R", "{}")]),
    "a brace too many": ([fragment(0, "a", "R", '{"p":1}}')], [("a", "R", '{"p":1}')]),
    "a brace too many, in a fragment": ([fragment(0, "a", "R", '{"p":1}'), fragment(0, None, None, "}")],
                                        [("a", "R", '{"p":1}')]),
    "a token of the template": ([fragment(0, "a", "R", '{"p":1}'), fragment(0, None, None, "<|end|>")],
                                [("a", "R", '{"p":1}')]),
    "copies in one fragment": ([fragment(0, "a", "R", '{"p":1}{"p":1}')], [("a", "R", '{"p":1}')]),
    "a copy with other blanks": ([fragment(0, "a", "R", '{"p":'), fragment(0, None, None, '1}'),
                                  fragment(0, None, None, '{"p": 1}')], [("a", "R", '{"p":1}')]),
    "a copy with other blanks, no index": ([fragment(None, None, "R", '{"p":1}'),
                                            fragment(None, None, "R", '{"p": 1}')], [("", "R", '{"p":1}')]),
    "a copy as a JSON string": ([fragment(0, "a", "R", '{"p":1}'), fragment(0, "a", "R", '"{\\"p\\":1}"')],
                                [("a", "R", '{"p":1}')]),
    "the same arguments under another id": ([fragment(0, "a", "R", '{"p":1}'), fragment(0, "b", "R", '{"p":1}')],
                                            [("a", "R", '{"p":1}'), ("b", "R", '{"p":1}')]),
    "no object, never ends": ([fragment(0, "a", "R", "[1]"), fragment(0, None, None, " and more")],
                              [("a", "R", "[1] and more")]),
    "nothing but junk": ([{"function": 1}, {"id": 2}], [("", "", "")]),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_fragments_are_assigned_to_their_call(name: str) -> None:
    fragments, expected = CASES[name]
    assert assigned(*fragments) == expected


def test_arguments_as_an_object() -> None:
    assert assigned(fragment(0, "a", "R", {"p": [1, None, "é"]})) == [("a", "R", '{"p":[1,null,"é"]}')]
    with pytest.raises(BadReply):
        assigned(fragment(0, "a", "R", {"p": float("nan")}))


def test_thought_signature_on_the_call_or_its_function() -> None:
    google = {"google": {"thought_signature": "s"}}
    place = "extra_content.google.thought_signature"
    for late, prefix in (
        ({"extra_content": google}, ""),
        ({"function": {"extra_content": google}}, "function."),
    ):
        calls = ToolCalls()
        calls.add(fragment(0, "a", "R", "{}"))
        slot, is_new = calls.add({"index": 0, **late})
        assert (slot.signature, is_new) == ((prefix + place, "s"), False)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.dictionaries(st.text(max_size=6), values, max_size=4),
    st.booleans(),
    st.sampled_from(["", "}", "{", '"', " "]),
    st.data(),
)
def test_object_is_complete_at_its_last_character(
    value: dict[str, Any], is_ascii: bool, excess: str, data: st.DataObject
) -> None:
    text = json.dumps(value, ensure_ascii=is_ascii)
    at = data.draw(st.integers(0, len(text) - 1))
    extent = JsonExtent()
    assert extent.feed(text[:at]) == at
    assert not extent.is_complete
    assert extent.feed(text[at:-1]) == len(text) - 1 - at
    assert not extent.is_complete
    assert extent.feed(text[-1] + excess) == 1
    assert extent.is_complete
    assert extent.feed(excess) == 0
