"""JSON texts of tool inputs."""

from __future__ import annotations

from typing import Any

import pytest

from proxyd.codecs.cache.tool_inputs import ToolInputs


def test_object_is_written_once() -> None:
    inputs, value = ToolInputs(), {"path": "né", "n": [1, None]}
    text = inputs.as_json(value)
    assert text == '{"path":"né","n":[1,null]}'
    assert inputs.as_json(value) is text
    assert inputs.as_json({"path": "other"}) == '{"path":"other"}'


@pytest.mark.parametrize("value", [None, "text", [1], 5, {"a": float("nan")}])
def test_other_values_have_no_text(value: Any) -> None:
    assert ToolInputs().as_json(value) is None
