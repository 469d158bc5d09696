"""A short form of ``make attack``."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.security.attack import CALLS, CLIENTS, attack


@pytest.mark.statement("D table")
async def test_no_response_reaches_another_client_whatever_upstreams_send(tmp_path: Path) -> None:
    report = await attack(20.0, tmp_path, rounds=1)
    assert report.faults == [], str(report)
    # A busy machine may not get through all of it in time.
    assert report.outcomes["whole"] > min(100, CLIENTS * CALLS), str(report)
    assert report.deeds["spoke while idle"] > 0, str(report)
