"""What people paste where a key is asked for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxyd.onboarding.pasted_key import read_pasted_key, variable_named

KEY = "sk-0123456789abcdef=="


@pytest.mark.parametrize(
    "text",
    [
        KEY,
        f"  {KEY}\t",
        f'"{KEY}"',
        f"'{KEY}'",
        f"“{KEY}”",
        f"`{KEY}`",
        f"Bearer {KEY}",
        f"bearer  {KEY}",
        f"Authorization: Bearer {KEY}",
        f"x-api-key: {KEY}",
        f"MOONSHOT_API_KEY={KEY}",
        f"export MOONSHOT_API_KEY='{KEY}'",
        f'export KEY="Bearer {KEY}";',
    ],
)
def test_a_key_without_what_is_around_it(text: str) -> None:
    assert read_pasted_key(text) == KEY


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "got nothing"),
        ("  ''  ", "got nothing"),
        ("Authorization: Bearer ", "got nothing"),
        ("sk-0123 456789ab", "without blanks"),
        ("sk-0123\n456789ab", "without blanks"),
        ("sk-0123456789…", "printable ASCII"),
        ("sk-01234567\x1b[31m89", "printable ASCII"),
        ("sk-0123****cdef", "masked"),
        ("sk-1", "of 8 to 8192 characters; got 4"),
        ("k" * 9000, "got 9000"),
    ],
)
def test_what_is_no_key_is_refused_without_showing_it(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said) as caught:
        read_pasted_key(text)
    assert len(text) < 8 or text.strip() not in str(caught.value)


@given(st.text(max_size=60))
def test_any_text_gives_a_key_that_a_header_can_hold_or_an_error(text: str) -> None:
    try:
        key = read_pasted_key(text)
    except ValueError:
        return
    assert key.isascii()
    assert key.isprintable()
    assert " " not in key
    assert read_pasted_key(key) == key


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("MOONSHOT_API_KEY", "MOONSHOT_API_KEY"),
        ("$KEY", "KEY"),
        ("${my_key}", "my_key"),
        ("set_here", "set_here"),
        ("sk-0123456789abcdef", None),
        ("abcdef0123456789", None),
        ("ABCDEF0123456789", None),
        ("two words", None),
    ],
)
def test_the_name_of_a_variable(text: str, name: str | None) -> None:
    assert variable_named(text, {"set_here": "x"}) == name
