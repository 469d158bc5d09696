"""Large JSON texts are parsed and written as small ones are, by calls of bounded size."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import ujson
from hypothesis import example, given
from hypothesis import strategies as st

from proxyd import jsonio
from proxyd.codecs.wire import large_json

#: Texts with quotes, backslashes, surrogates and characters of one to four bytes.
TEXTS = st.text(st.sampled_from('"\\,:[]{}a \n\u20ac\U0001f600\ud83d\ude00\x00\xe9'), max_size=60)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | TEXTS,
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(TEXTS, inner, max_size=6),
    max_leaves=20,
)


BYTES, COUNT = large_json.PIECE_BYTES, large_json.PIECE_VALUES


@pytest.fixture(scope="module", params=[(16, 1), (23, 2), (40, 6)], ids=str)
def small_pieces(request: pytest.FixtureRequest) -> Iterator[None]:
    """Pieces of a few bytes and values."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(large_json, "PIECE_BYTES", request.param[0])
        patched.setattr(large_json, "PIECE_VALUES", request.param[1])
        yield


@pytest.mark.usefixtures("small_pieces")
@given(VALUES, st.booleans(), st.sampled_from([None, 1]))
def test_parses_what_the_parser_does(value: Any, is_ascii: bool, indent: int | None) -> None:
    data = json.dumps(value, ensure_ascii=is_ascii, indent=indent).encode("utf-8", "surrogatepass")
    try:
        expected = jsonio.loads(data)
    except jsonio.JSONError:  # a lone surrogate that is not escaped
        with pytest.raises(jsonio.JSONError):
            large_json.loads(data)
    else:
        assert large_json.loads(data) == expected


@pytest.mark.usefixtures("small_pieces")
@given(VALUES, st.data())
@example(["aaaaaaaaaaaaaaaaaaaaaaaa", {"bbbbbbbb": ["c", "d", "dddddddddddddddddd"]}], None)
def test_refuses_what_the_parser_refuses(value: Any, data: st.DataObject | None) -> None:
    """A text with a byte removed, doubled or exchanged is accepted by both, with the same value, or by neither."""
    written = json.dumps(value).encode()
    if data is None:
        mutants = [
            written[:at] + new + written[at + 1 :]
            for at in range(len(written))
            for new in (b"", b",", b"]", b"}", b'"', b"0", b"[")
        ]
    else:
        at = data.draw(st.integers(0, len(written) - 1))
        new = data.draw(st.sampled_from([b"", b",", b"]", b"}", b'"', b":", b"0", b" ", b"{", b"[", b"\\"]))
        mutants = [written[:at] + new + written[at + data.draw(st.integers(0, 1)) :]]
    for mutant in mutants:
        try:
            expected = jsonio.loads(mutant)
        except jsonio.JSONError:
            with pytest.raises(jsonio.JSONError):
                large_json.loads(mutant)
        else:
            assert large_json.loads(mutant) == expected, mutant


@pytest.mark.usefixtures("small_pieces")
@given(VALUES)
def test_writes_what_the_writer_does(value: Any) -> None:
    assert json.loads(large_json.dumps(value)) == json.loads(jsonio.dumps(value))


def test_a_number_without_a_json_form_is_refused() -> None:
    with pytest.raises(jsonio.JSONError):
        large_json.dumps({"a": [float("nan")]})


def test_nesting_and_number_of_values_are_bounded() -> None:
    deep = "[" * (jsonio.MAX_DEPTH + 1) + "]" * (jsonio.MAX_DEPTH + 1)
    with pytest.raises(jsonio.JSONError, match="nested deeper than 256 levels"):
        large_json.loads(deep.encode())
    assert large_json.loads(deep[1:-1].encode())
    with pytest.raises(jsonio.TooManyValues, match="more than 200000 values"):
        large_json.loads(b"[" + b"1," * jsonio.MAX_REQUEST_VALUES + b"1]")


MIB = 1 << 20
#: Requests of the greatest size and of the greatest number of values.
SHAPES: dict[str, Any] = {
    "one text": {"a": [{"text": "x" * (MIB // 2)}]},
    "escapes": {"a": '\n\\"' * (MIB // 2)},
    "wide characters": ["\u20ac\U0001f600" * (MIB // 4)],
    "many members": {f"k{number}": number for number in range(50_000)},
    "many blocks": {"messages": [{"content": [{"type": "text", "text": "a"}] * 15_000}]},
    "many texts": {"messages": [{"role": "user", "content": "x" * 1000}] * 2000},
    "deep": [[[[[[[1] * 9] * 9] * 9] * 9] * 9]],
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("is_ascii", [True, False], ids=["escaped", "UTF-8"])
def test_no_call_of_the_library_is_large(shape: str, is_ascii: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """What one call takes is bounded by its bytes and its values."""
    monkeypatch.setattr(large_json, "PIECE_BYTES", BYTES)
    monkeypatch.setattr(large_json, "PIECE_VALUES", COUNT)
    value = SHAPES[shape]
    data = json.dumps(value, ensure_ascii=is_ascii).encode()
    sizes: list[tuple[int, int]] = []
    parse, write = ujson.loads, ujson.dumps

    def loads(text: bytes) -> Any:
        sizes.append((len(text), text.count(b",") + text.count(b"[") + text.count(b"{")))
        return parse(text)

    def dumps(part: Any, *options: Any, **more: Any) -> str:
        written = write(part, *options, **more)
        sizes.append((len(written) // 6, 0 if isinstance(part, str) else written.count(",")))
        return written

    monkeypatch.setattr(ujson, "loads", loads)
    monkeypatch.setattr(ujson, "dumps", dumps)
    parsed = large_json.loads(data)
    written = large_json.dumps(parsed)
    monkeypatch.undo()
    assert parsed == value == json.loads(written)
    assert max(size for size, _ in sizes) <= 2 * BYTES
    if shape not in ("escapes", "one text", "many texts"):  # whose texts may hold what looks like a value
        assert max(count for _, count in sizes) <= 2 * COUNT


@pytest.mark.usefixtures("small_pieces")
def test_bytes_that_are_no_text_are_refused() -> None:
    for text in (b"\x80" * 100, b"\xf0" * 100, b"a" * 15 + b"\xf0\x80", b"\xff\xfe" * 50):
        with pytest.raises(jsonio.JSONError):
            large_json.loads(b'"' + text + b'"')
