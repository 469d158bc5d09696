"""JSON in and out, and how deep it may nest."""

from __future__ import annotations

import gc

import pytest

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
