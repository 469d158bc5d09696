"""Edits in place change the edited values and no other byte."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from proxyd.codecs.wire.json_patch import CUT, span_of, splice
from tests.support.effort import examples

ODD = (
    b' {\t"model" : "a\\u0062", "n":1.50e+03 ,\r\n "big":123456789012345678901234567890, "e\\u00e9":"\\ud83d\\ude00",'
    b'"s":"\\"}]\\\\", "o" : { "x":1 , "y" : [ 1,2 , {"z":null}] } , "t" :[ ] } \n'
)


@pytest.mark.parametrize(
    ("data", "changes", "expected"),
    [
        (b'{"a":1}', {}, b'{"a":1}'),
        (b'{ "a" : 1 , "b":2}', {"a": 3}, b'{ "a" : 3 , "b":2}'),
        (b'{"a":1}', {"b": "x"}, b'{"a":1,"b":"x"}'),
        (b"{}", {"b": 1, "c": [2]}, b'{"b":1,"c":[2]}'),
        (b" { } ", {"b": 1}, b' {"b":1 } '),
        (b'{"a":1,"b":2,"c":3}', {"a": CUT}, b'{"b":2,"c":3}'),
        (b'{"a":1,"b":2,"c":3}', {"b": CUT}, b'{"a":1,"c":3}'),
        (b'{"a":1, "b":2 , "c":3 }', {"c": CUT}, b'{"a":1, "b":2 }'),
        (b'{"a":1,"b":2,"c":3}', {"a": CUT, "b": CUT}, b'{"c":3}'),
        (b'{"a":1,"b":2,"c":3}', {"b": CUT, "c": CUT}, b'{"a":1}'),
        (b'{"a":1,"b":2,"c":3}', {"a": CUT, "c": CUT}, b'{"b":2}'),
        (b'{ "a":1 , "b":2 }', {"a": CUT, "b": CUT}, b"{  }"),
        (b'{"a":1,"b":2}', {"a": CUT, "b": CUT, "c": 3}, b'{"c":3}'),
        (b'{"a":1,"b":2}', {"b": CUT, "c": 3}, b'{"a":1,"c":3}'),
        (b'{"a":1}', {"b": CUT}, b'{"a":1}'),
        # A key that is written with an escape is the same key; one that stands twice is edited twice.
        (b'{"mod\\u0065l":"a"}', {"model": "b"}, b'{"mod\\u0065l":"b"}'),
        (b'{"a":1,"b":0,"a":2}', {"a": 9}, b'{"a":9,"b":0,"a":9}'),
        (b'{"a":1,"b":0,"a":2}', {"a": CUT}, b'{"b":0}'),
        # Changes within a value apply to the last duplicate, the one that parsers return.
        (b'{"l":"x","l":[1,2]}', {"l": {0: CUT}}, b'{"l":"x","l":[2]}'),
        (
            b'{"l":[1],"l":[{"c":2,"c":[{"t":1},3]}]}',
            {"l": {0: {"c": {0: CUT}}}},
            b'{"l":[1],"l":[{"c":2,"c":[3]}]}',
        ),
        (b'{"o":{"x":1},"o":{"x":1}}', {"o": {"x": 2}}, b'{"o":{"x":1},"o":{"x":2}}'),
        # Objects are merged, whatever their depth; everything else is replaced.
        (b'{"o":{ "x":1.0, "y":2}}', {"o": {"y": 3}}, b'{"o":{ "x":1.0, "y":3}}'),
        (b'{"o":{"x":1}}', {"o": {"p": {"q": 1}}}, b'{"o":{"x":1,"p":{"q":1}}}'),
        (b'{"o":{"x":1}}', {"o": {}}, b'{"o":{"x":1}}'),
        (b'{"o":[1]}', {"o": {"x": 1}}, b'{"o":{"x":1}}'),
        (b'{"o":{"x":1}}', {"o": [2]}, b'{"o":[2]}'),
        (b'{"o":"}"}', {"o": None}, b'{"o":null}'),
        # Positions edit arrays.
        (b'{"l":[ 1, 2 , 3]}', {"l": {1: CUT}}, b'{"l":[ 1 , 3]}'),
        (b'{"l":[1,2,3]}', {"l": {0: CUT, 2: CUT}}, b'{"l":[2]}'),
        (
            b'{"l":[{"c":[{"t":1},{"t":2}]},{"c":3}]}',
            {"l": {0: {"c": {0: CUT}}}},
            b'{"l":[{"c":[{"t":2}]},{"c":3}]}',
        ),
        (b'{"l":[1,2]}', {"l": {0: 7, 5: 8}}, b'{"l":[7,2]}'),
        # Quotes and backslashes in every combination.
        (b'{"a":"\\\\","b":"\\\\\\"","c":"\\\\\\\\"}', {"b": 1}, b'{"a":"\\\\","b":1,"c":"\\\\\\\\"}'),
        (b'{"\\"":1,"\\\\":2}', {'"': 3, "\\": 4}, b'{"\\"":3,"\\\\":4}'),
    ],
)
def test_edited_object(data: bytes, changes: dict[str, Any], expected: bytes) -> None:
    assert splice(data, changes) == expected


def test_other_bytes_are_unchanged() -> None:
    assert splice(ODD, {"model": "b"}) == ODD.replace(b'"a\\u0062"', b'"b"')
    assert splice(ODD, {"o": {"y": {2: {"z": 5}}}}) == ODD.replace(b"null", b"5")
    assert splice(ODD, {"s": CUT}) == ODD.replace(b',"s":"\\"}]\\\\"', b"")


scalars = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
)


def objects(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.dictionaries(st.text(max_size=3) | st.sampled_from("abcde"), inner, max_size=5)


values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=4) | objects(inner), max_leaves=6)


def merged(old: Any, new: Any) -> Any:
    """What `splice` promises, on parsed values."""
    if isinstance(new, dict) and isinstance(old, dict):
        kept = {key: value for key, value in old.items() if new.get(key) is not CUT}
        return kept | {key: merged(old.get(key), value) for key, value in new.items() if value is not CUT}
    return new


@settings(max_examples=examples(60), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(objects(values), objects(values), st.booleans(), st.sampled_from([None, 2, "\t"]))
def test_splice_merges_like_parsed_values(
    old: dict[str, Any], new: dict[str, Any], is_ascii: bool, indent: Any
) -> None:
    data = json.dumps(old, ensure_ascii=is_ascii, indent=indent).encode("utf-8", "surrogatepass")
    assert json.loads(splice(data, new).decode("utf-8", "surrogatepass")) == merged(old, new)


@settings(max_examples=examples(60), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(objects(values), st.sets(st.sampled_from("abcde")))
def test_removal_keeps_the_bytes_of_other_members(old: dict[str, Any], keys: set[str]) -> None:
    texts = {key: json.dumps(value) for key, value in old.items()}
    text = "{" + ",".join(f"{json.dumps(key)}:{text_of_value}" for key, text_of_value in texts.items()) + "}"
    left = (
        "{"
        + ",".join(f"{json.dumps(k)}:{text_of_value}" for k, text_of_value in texts.items() if k not in keys)
        + "}"
    )
    assert splice(text.encode(), dict.fromkeys(keys, CUT)) == left.encode()


TEXTS = ["1", "null", '"]"', '{"a":[1,"}"]}', "[]", '"\\\\\\""', "[[{}],2]"]


@given(st.lists(st.sampled_from(TEXTS), max_size=6), st.sets(st.integers(0, 7), min_size=1))
def test_array_items_are_removed_by_position(texts: list[str], positions: set[int]) -> None:
    text = f'{{"l":[{",".join(texts)}],"m":0}}'
    left = ",".join(text_of_value for at, text_of_value in enumerate(texts) if at not in positions)
    found = splice(text.encode(), {"l": dict.fromkeys(positions, CUT)})
    assert found == f'{{"l":[{left}],"m":0}}'.encode()


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (b'{"a":1,"t":[1]}', b"[1]"),
        (b' { "t" : { "t":[2] } , "a":{"t":[3]}} ', b'{ "t":[2] }'),
        (b'{"t":[4],"a":"}","t":"[\\"5"}', b'"[\\"5"'),
        (b'{"\\u0074" :6 }', b"6"),
    ],
)
def test_span_of_a_value(data: bytes, value: bytes) -> None:
    start, end = span_of(data, "t")
    assert data[start:end] == value


def test_span_of_a_missing_key() -> None:
    with pytest.raises(KeyError):
        span_of(b'{"a":{"t":1}}', "t")
