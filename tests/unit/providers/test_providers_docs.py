"""docs/providers.md says what the code does."""

from __future__ import annotations

import importlib.util
from types import ModuleType

import pytest

from proxyd.providers.registry import PROFILES
from tests.support.paths import DOCS


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate_providers", DOCS / "generate_providers.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_page_is_up_to_date(generator: ModuleType) -> None:
    assert (DOCS / "providers.md").read_text("utf-8") == generator.page(), (
        "run python docs/generate_providers.py"
    )


def test_page_shows_every_profile_and_quirk(generator: ModuleType) -> None:
    page = generator.page()
    assert all(f"\n## {name}\n" in page for name in PROFILES)
    assert all(f"| `{name}` | " in page for name in PROFILES["generic"].dialect.__dataclass_fields__)
    assert all(comment.strip() for comment in generator._comments().values())
