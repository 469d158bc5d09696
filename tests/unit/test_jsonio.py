"""Limits of the JSON parser."""

from __future__ import annotations

import gc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxyd import jsonio

#: Text before and after each level except the innermost one.
SHAPES = [("[", "]"), ('{"a":', "}"), ('{"a":"x","b":', ',"c":[]}'), ('[{},"x",', "]"), ('[{"a":1},', ",{}]")]


@pytest.mark.parametrize("innermost", ["[]", "{}", '{"a":"x"}', '["x"]'])
@pytest.mark.parametrize(("before", "after"), SHAPES)
def test_nesting_is_bounded(before: str, after: str, innermost: str) -> None:
    around = jsonio.MAX_DEPTH - 1
    text = before * around + innermost + after * around
    text += " " * 600  # short texts are not checked
    value = jsonio.loads(text)
    assert value
    gc.collect(0)  # which stops tracking dicts without containers
    assert jsonio.loads(text.encode()) == value
    with pytest.raises(jsonio.JSONError, match="nested deeper than 256 levels"):
        jsonio.loads(before + text + after)


def test_scalars_are_not_deep() -> None:
    assert jsonio.loads('"' + "x" * 600 + '"') == "x" * 600
    assert jsonio.loads("[" + "1," * 600 + "1]") == [1] * 601


COUNT = jsonio.MAX_VALUES


def values(count: int, shape: str) -> bytes:
    """Build a JSON text with `count` commas and brackets outside strings."""
    if shape == "members":
        return b"{" + b",".join(b'"k%d":1' % number for number in range(count)) + b"}"
    if shape == "numbers":
        return b"[" + b",".join([b"1"] * count) + b"]"
    if shape == "lists":
        return b"[" + b",".join([b"[]"] * (count // 2)) + b"]"
    # Each string contains characters that would count as three more, and escaped quotes.
    return b"[" + b",".join([rb'",[{\"\\\\\\\",\\"'] * count) + b"]"


@pytest.mark.parametrize("shape", ["members", "numbers", "lists", "strings"])
@pytest.mark.parametrize("kind", [bytes, str])
def test_number_of_values_is_bounded(shape: str, kind: type) -> None:
    most, more = values(COUNT, shape), values(COUNT + 2, shape)
    assert jsonio.loads(most if kind is bytes else most.decode())
    for text in (more, b"\n " + more, more + b" " * 100):
        with pytest.raises(jsonio.TooManyValues, match="more than 50000 values"):
            jsonio.loads(text if kind is bytes else text.decode())
    assert jsonio.loads(more, is_ours=True)


@given(
    st.lists(st.sampled_from(['"', "\\", ",", "[", "{", "a", "\u20ac"]), max_size=60).map("".join),
    st.integers(1, 9),
)
def test_count_agrees_with_the_parser(text: str, step: int) -> None:
    """Strings and escapes may be split by the steps in which values are counted."""
    value = [text, {text: [text, "", {}]}, [], text]
    count = 10  # commas and brackets
    data = jsonio.dumps(value)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(jsonio, "_STEP", step)
        assert not jsonio.has_more_values(data, count)
        assert jsonio.has_more_values(data, count - 1)


def test_long_text_is_one_value() -> None:
    text = 'code(a, b)[{"c": "\\\\"}], ' * 200_000
    assert (
        jsonio.loads(jsonio.dumps({"content": [{"type": "text", "text": text}]}))["content"][0]["text"]
        == text
    )
