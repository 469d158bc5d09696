"""docs/features.md says what the code does."""

from __future__ import annotations

import importlib.util
from types import ModuleType

import pytest

from proxyd.codecs.formats import FORMATS
from proxyd.providers.features import FEATURES
from tests.support.paths import DOCS


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate_features", DOCS / "generate_features.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_page_is_up_to_date(generator: ModuleType) -> None:
    assert (DOCS / "features.md").read_text("utf-8") == generator.page(), (
        "run python docs/generate_features.py"
    )


def test_every_kind_of_entry_has_all_features(generator: ModuleType) -> None:
    page = generator.page()
    assert all(f"(`{name}`)\n" in page for name in FORMATS)
    assert all(page.count(f"\n| {name} | ") == len(generator.kinds()) + 1 for name in FEATURES)
