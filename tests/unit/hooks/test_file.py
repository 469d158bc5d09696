"""How a hook file is executed and its functions are found."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from proxyd.hooks.file import DoesNotLoad, functions_of, place_of

PATH = Path("/hooks/example.py")


def test_functions_take_payload_and_context_whatever_they_declare() -> None:
    found = functions_of(
        PATH,
        b"def request_hook(payload): return payload\n"
        b"async def response_hook(payload, ctx): return ctx\n"
        b"def helper(): pass\n",
    )
    assert {name: is_async for name, (_, is_async) in found.items()} == {
        "request_hook": False,
        "response_hook": True,
    }
    function, _ = found["request_hook"]
    assert function({"a": 1}, None) == {"a": 1}


def test_a_changed_source_is_executed_again() -> None:
    for text in ("old", "new"):
        function, _ = functions_of(PATH, f"def request_hook(p): return {text!r}\n".encode())["request_hook"]
        assert function(None, None) == text


def test_a_failed_file_leaves_the_module_of_its_predecessor() -> None:
    functions_of(PATH, b"MARK = 1\ndef request_hook(p): return p\n")
    with pytest.raises(DoesNotLoad, match=r"ZeroDivisionError: division by zero \(line 2\)"):
        functions_of(PATH, b"MARK = 2\n1 / 0\n")
    assert sys.modules["claude_proxy_hooks.example"].MARK == 1


def test_keys_in_the_message_are_masked() -> None:
    key = "sk-" + "a1b2c3d4" * 4
    with pytest.raises(DoesNotLoad) as caught:
        functions_of(PATH, f"raise ValueError('bad key {key}')\n".encode())
    assert key not in str(caught.value)


def test_the_place_of_an_exception_is_its_last_line_in_the_file() -> None:
    function, _ = functions_of(PATH, b"def request_hook(p):\n    return int(p)\n")["request_hook"]
    with pytest.raises(ValueError, match="invalid literal") as caught:
        function("x", None)
    assert place_of(caught.value, PATH) == 2
    assert place_of(caught.value, Path("/other.py")) == 0


def test_a_syntax_error_has_its_line_and_column() -> None:
    with pytest.raises(DoesNotLoad, match=r"SyntaxError: .* \(line 2, column \d+\)"):
        functions_of(PATH, b"x = 1\ndef f()\n    pass\n")
