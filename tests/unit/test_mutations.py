"""`make mutations` can be run: what it breaks is there, and so are the tests that have to notice."""

from __future__ import annotations

import re

from tests.support.paths import ROOT
from tests.system.mutations import MUTATIONS, TESTS


def test_each_place_that_is_broken_exists_once() -> None:
    for mutation in MUTATIONS:
        source = (ROOT / "proxyd" / mutation.file).read_text()
        assert source.count(mutation.before) == 1, mutation


def test_each_test_exists() -> None:
    for test in TESTS:
        file, _, name = test.partition("::")
        source = (ROOT / file).read_text()
        assert not name or re.search(rf"^(?:async )?def {name}\(", source, re.MULTILINE), test
