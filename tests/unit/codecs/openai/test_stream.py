"""The stream transcripts of Chat Completions: whole, cut at each byte and at random."""

from __future__ import annotations

import pytest

from proxyd.providers.registry import PROFILES
from tests.support import goldens_streams as goldens
from tests.support import transcript_checks as checks
from tests.support.rows import check_rows

CASES = goldens.cases()
STREAMS = [name for name in CASES if goldens.expected(name).refusal is None]

#: The Anthropic API is only spoken to directly.
TRANSLATED = [name for name in PROFILES if name != "anthropic"]


@pytest.mark.parametrize("name", CASES)
def test_transcript(name: str) -> None:
    """Whole, cut at each byte and at random places."""
    checks.check_whole(name)
    checks.check_byte_by_byte(name)
    checks.check_random_splits(name)
    checks.check_every_offset(name)


def test_expectations_are_legal() -> None:
    check_rows(STREAMS, checks.check_expectation_is_legal)


def test_every_profile_has_transcripts() -> None:
    assert {name.split("/")[0] for name in CASES} == set(TRANSLATED)
    assert len(CASES) >= 120


def test_every_transcript_is_explained() -> None:
    for profile in TRANSLATED:
        checks.check_readme(
            goldens.ROOT / profile, [name for name in CASES if name.startswith(f"{profile}/")]
        )
