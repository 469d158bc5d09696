"""Files of the distribution outside the package."""

from __future__ import annotations

from proxyd.config.package_files import find_packaged
from tests.support.paths import ROOT


def test_checkout_has_the_files_at_its_root() -> None:
    assert find_packaged("config", "catalog.yaml") == ROOT / "config" / "catalog.yaml"
    assert find_packaged("config", "nothing.yaml") is None
