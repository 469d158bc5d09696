"""Keys of other programs in an entry: the fault says what to write, and shows no value."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxyd.config.models import load_text
from proxyd.errors import ConfigError


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("api_key_name", "write 'api_key: ${NAME}' with the name of the variable that holds the key"),
        ("key", "write 'api_key: ${NAME}'"),
        ("base_url", "write 'api_base: ADDRESS'"),
        ("url", "write 'api_base: ADDRESS'"),
        (
            "model",
            "write 'model_id: NAME' for what clients ask for, 'model_name: NAME' for the upstream's name",
        ),
    ],
)
def test_foreign_key_of_an_entry(name: str, line: str) -> None:
    text = f"- {{model_id: a, api_base: 'http://localhost:1/v1', {name}: a-secret-value}}\n"
    with pytest.raises(ConfigError) as caught:
        load_text(text, Path("models.yaml"), {})
    assert f"models[0].{name}: unknown key; {line}" in caught.value.message
    assert "a-secret-value" not in caught.value.message


@pytest.mark.parametrize(
    ("entry", "faults"),
    [
        (
            "{name: a, url: 'http://localhost:1/v1'}",
            ["name: unknown key; write 'model_id", "url: unknown key; write"],
        ),
        (
            "{model_id: a, api_bas: 'http://localhost:1/v1'}",
            ["api_bas: unknown key; did you mean 'api_base'?"],
        ),
        (
            "{model_id: a, frobnicate: 1}",
            ["api_base is missing; every entry needs one", "unknown key; known are"],
        ),
    ],
)
def test_key_under_another_name_is_not_reported_as_missing(entry: str, faults: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        load_text(f"- {entry}\n", Path("models.yaml"), {})
    lines = caught.value.message.splitlines()
    assert len(lines) == len(faults)
    for line, fault in zip(lines, faults, strict=True):
        assert fault in line


def test_misspelt_keys_keep_their_hint() -> None:
    with pytest.raises(ConfigError, match=r"unknown key; did you mean 'api_base'\?"):
        load_text("- {model_id: a, api_bas: 'http://localhost:1/v1'}\n", Path("models.yaml"), {})


def test_foreign_name_where_our_key_does_not_exist() -> None:
    with pytest.raises(ConfigError, match="known are settings, models"):
        load_text("{url: x, models: [{model_id: a, api_base: 'builtin:demo'}]}\n", Path("models.yaml"), {})
