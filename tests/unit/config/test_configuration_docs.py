"""The pages on configuration: their tables are those in force, their examples load."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType

import pytest

from proxyd.config.models import load_text
from proxyd.daemon.configuration import checks
from tests.support.paths import DOCS


def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "generate_configuration", DOCS / "generate_configuration.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def blocks(page: str, language: str) -> list[str]:
    text = (DOCS / page).read_text("utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def test_the_tables_are_up_to_date() -> None:
    text = (DOCS / "configuration.md").read_text("utf-8")
    assert generator().page(text) == text, "run make docs"


@pytest.mark.parametrize("page", ["configuration.md", "keys.md"])
def test_every_yaml_example_loads(page: str) -> None:
    examples = blocks(page, "yaml")
    assert examples
    for example in examples:
        assert load_text(example, Path("models.yaml"), {}, checks=checks()).table.routes


def test_the_wrappers_models_are_those_of_the_example() -> None:
    (wrapper,) = blocks("keys.md", "json")
    providers = json.loads(wrapper)
    entries = next(example for example in blocks("keys.md", "yaml") if "doubao-fast" in example)
    table = load_text(entries, Path("models.yaml"), {}, checks=checks()).table
    for provider in providers.values():
        assert set(provider) == {"base_url", "auth_key", "model", "small_model"}
        assert provider["base_url"] == "http://127.0.0.1:8082"
        assert {provider["model"], provider["small_model"]} <= set(table.ids())
