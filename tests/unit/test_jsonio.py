"""JSON in and out, and how deep it may nest."""

from __future__ import annotations

import gc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxyd import jsonio

#: What stands around each level but the innermost one.
SHAPES = [("[", "]"), ('{"a":', "}"), ('{"a":"x","b":', ',"c":[]}'), ('[{},"x",', "]"), ('[{"a":1},', ",{}]")]


@pytest.mark.parametrize("innermost", ["[]", "{}", '{"a":"x"}', '["x"]'])
@pytest.mark.parametrize(("ahead", "behind"), SHAPES)
def test_nesting_is_bounded_whatever_it_is_made_of(ahead: str, behind: str, innermost: str) -> None:
    around = jsonio.MAX_DEPTH - 1
    text = ahead * around + innermost + behind * around
    text += " " * 600  # short ones are not looked through
    value = jsonio.loads(text)
    assert value
    gc.collect()
    assert jsonio.loads(text.encode()) == value
    with pytest.raises(jsonio.JSONError, match="nested deeper than 256 levels"):
        jsonio.loads(ahead + text + behind)


def test_what_is_no_container_is_not_deep() -> None:
    assert jsonio.loads('"' + "x" * 600 + '"') == "x" * 600
    assert jsonio.loads("[" + "1," * 600 + "1]") == [1] * 601


COUNT = jsonio.MAX_VALUES


def values(count: int, shape: str) -> bytes:
    """A JSON text with so many commas and brackets outside strings."""
    if shape == "members":
        return b"{" + b",".join(b'"k%d":1' % number for number in range(count)) + b"}"
    if shape == "numbers":
        return b"[" + b",".join([b"1"] * count) + b"]"
    if shape == "lists":
        return b"[" + b",".join([b"[]"] * (count // 2)) + b"]"
    # Each string holds what would be three more, and what looks like its end.
    return b"[" + b",".join([rb'",[{\"\\\\\\\",\\"'] * count) + b"]"


@pytest.mark.parametrize("shape", ["members", "numbers", "lists", "strings"])
@pytest.mark.parametrize("kind", [bytes, str])
def test_the_number_of_values_is_bounded(shape: str, kind: type) -> None:
    most, more = values(COUNT, shape), values(COUNT + 2, shape)
    assert jsonio.loads(most if kind is bytes else most.decode())
    for text in (more, b"\n " + more, more + b" " * 100):
        with pytest.raises(jsonio.TooManyValues, match="more than 200000 values"):
            jsonio.loads(text if kind is bytes else text.decode())
    assert jsonio.loads(more, is_ours=True)


@given(
    st.lists(st.sampled_from(['"', "\\", ",", "[", "{", "a", "\u20ac"]), max_size=60).map("".join),
    st.integers(1, 9),
)
def test_values_are_counted_as_they_are_parsed(text: str, step: int) -> None:
    """However strings and escapes lie across the steps in which they are counted."""
    value = [text, {text: [text, "", {}]}, [], text]
    count = 10  # commas and brackets
    data = jsonio.dumps(value)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(jsonio, "_STEP", step)
        patched.setattr(jsonio, "MAX_VALUES", count)
        assert not jsonio._has_too_many_values(data)
        patched.setattr(jsonio, "MAX_VALUES", count - 1)
        assert jsonio._has_too_many_values(data)


def test_a_long_text_is_few_values() -> None:
    text = 'code(a, b)[{"c": "\\\\"}], ' * 200_000
    assert (
        jsonio.loads(jsonio.dumps({"content": [{"type": "text", "text": text}]}))["content"][0]["text"]
        == text
    )
