"""Code fences and spans of a text that is read in parts."""

from __future__ import annotations

import pytest

from proxyd.codecs.openai.code_fences import CodeFences


@pytest.mark.parametrize(
    ("text", "is_in_code"),
    [
        ("", False),
        ("text", False),
        ("```", True),
        ("```py", True),
        ("```py\n", True),
        ("```py\nx\n```", True),
        ("```py\nx\n```\n", False),
        ("```\n~~~\n", True),
        ("````\n```\n", True),
        ("````\n````\n", False),
        ("~~~~\n~~~\n", True),
        ("```\n``` not the end\n", True),
        ("```a``` b\n", False),
        ("  - x\n    ```\n", True),
        ("> ```\n> x", True),
        ("a ``` b\n", False),
        ("a `", True),
        ("a `b", True),
        ("a `b` ", False),
        ("a `b\n", False),
        ("x" * 300 + "`", True),
    ],
)
def test_state_after_a_text(text: str, is_in_code: bool) -> None:
    for at in range(len(text) + 1):
        fences = CodeFences()
        fences.feed(text[:at])
        fences.feed(text[at:])
        assert fences.is_in_code is is_in_code, at


def test_start_of_a_line() -> None:
    fences = CodeFences()
    fences.feed("a `")
    fences.start_line()
    assert not fences.is_in_code
    fences.feed("```")
    assert fences.is_in_code
