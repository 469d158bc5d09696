"""After masking, every quote begins or ends a string, wherever the text is sliced."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxyd.codecs.wire import json_mask


@given(st.lists(st.text(st.sampled_from('"\\ab\u20ac'), max_size=20), max_size=5), st.integers(1, 9))
def test_quotes_left_are_those_of_strings(texts: list[str], size: int) -> None:
    data = json.dumps(texts).encode()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(json_mask, "SLICE_BYTES", size)
        mask = json_mask.masked(data)
    assert len(mask) == len(data)
    assert mask.count(b'"') == 2 * len(texts)
    strings = mask.split(b'"')[1::2]
    assert [len(text) for text in strings] == [len(json.dumps(text)) - 2 for text in texts]
    for at, byte in enumerate(mask):
        assert byte == data[at] or byte in json_mask.ESCAPED
