"""What one daemon has learned of an upstream reaches the others by the store, and nothing of it is lost."""

from __future__ import annotations

import asyncio
from pathlib import Path
from time import time

import pytest

from proxyd.codecs.anthropic.usage import Usage
from proxyd.config.routes import ModelRoute
from proxyd.providers.learned_quirks import CallKind, LearnedQuirks
from proxyd.proxy.learned_file import FILE, LearnedQuirkFile, read_learned
from proxyd.proxy.shared_learning import SharedLearning
from proxyd.store.interface import LearnedRow, StoreFailed
from proxyd.store.sqlite import SqliteKeyStore
from proxyd.telemetry.call_record import CallRecord
from proxyd.telemetry.token_calibration import Calibration

ROUTE = ModelRoute(model_id="m", model_name="x", api_base="http://127.0.0.1:1/v1")
OTHER = ModelRoute(model_id="n", model_name="y", api_base="http://127.0.0.1:1/v1")
KIND, NOW = CallKind(has_tools=True), int(time())
SAMPLING = LearnedQuirks({"sampling": []}, None, ("quirks: {sampling: []}",))
BOTH = LearnedQuirks({"sampling": [], "stop_limit": 0}, 4096, (*SAMPLING.lines, "max_tokens: 4096"))


class Peer:
    """What one daemon has learned, its file, and its exchange with the store in `folder`."""

    def __init__(self, folder: Path, name: str) -> None:
        self.file = LearnedQuirkFile(folder / name / FILE)
        self.calibration = Calibration()
        self.store = SqliteKeyStore(folder / "keys.db")
        self.learning = SharedLearning(self.store, self.file, self.calibration, lambda: NOW)

    def learn(self, quirks: LearnedQuirks, at: int = NOW, route: ModelRoute = ROUTE) -> None:
        self.file.store.keep(route, KIND, quirks, at)
        self.file.save()

    def knows(self, route: ModelRoute = ROUTE) -> LearnedQuirks:
        return self.file.store.of(route, KIND, NOW)

    def window(self) -> int | None:
        return self.file.store.sizes.of(ROUTE, NOW).window

    def call(self, tokens: int, model: str = "x") -> None:
        record = CallRecord("r", outcome="ok", upstream_model=model, usage=Usage(input_tokens=tokens))
        record.estimated_input_tokens, record.estimated_tool_tokens = 1000, 100
        self.calibration.observe(record)

    def exchange(self) -> None:
        self.learning.begin()()()


@pytest.fixture
def peers(tmp_path: Path) -> list[Peer]:
    return [Peer(tmp_path, name) for name in "ab"]


async def test_quirks_reach_the_others_and_their_files(peers: list[Peer], tmp_path: Path) -> None:
    one, two = peers
    one.learn(SAMPLING)
    for each in (one, two):
        each.exchange()
    assert two.knows() == SAMPLING
    two.learn(BOTH, NOW + 1)
    one.learn(BOTH, NOW, OTHER)
    for each in (two, one, two):
        each.exchange()
    assert one.knows() == two.knows() == BOTH
    assert two.knows(OTHER) == BOTH
    late = Peer(tmp_path, "c")
    late.learn(SAMPLING, NOW - 9)
    late.exchange()
    assert late.knows() == BOTH, "the last one learned counts, also over what a file had"
    await asyncio.get_running_loop().shutdown_default_executor()
    assert read_learned(tmp_path / "b" / FILE).of(OTHER, KIND, NOW) == BOTH


async def test_two_that_learn_in_the_same_second_agree(peers: list[Peer]) -> None:
    one, two = peers
    one.learn(SAMPLING)
    two.learn(BOTH)
    for each in (one, two, one):
        each.exchange()
    assert one.knows() == two.knows() == BOTH


async def test_windows_are_learned_and_refuted_for_all(peers: list[Peer]) -> None:
    one, two = peers
    for each in (one, two):
        each.file.store.sizes.keep_accepted(ROUTE, 500, NOW)
    one.file.store.sizes.keep_window(ROUTE, 8000, NOW)
    one.file.save()
    for each in (one, two):
        each.exchange()
    assert (one.window(), two.window()) == (8000, 8000)
    assert two.file.store.sizes.of(ROUTE, NOW).largest_accepted == 500
    assert two.file.store.sizes.keep_accepted(ROUTE, 20_000, NOW + 1)
    two.file.save()
    for each in (two, one):
        each.exchange()
    assert (one.window(), two.window()) == (None, None)
    one.file.store.sizes.keep_window(ROUTE, 30_000, NOW + 2)
    one.file.save()
    for each in (one, two):
        each.exchange()
    assert two.window() == 30_000
    one.file.store.sizes.keep_window(ROUTE, 30_000, NOW + 3)
    one.file.save()
    one.exchange()
    assert two.file.store.sizes.keep_accepted(ROUTE, 50_000, NOW + 4)
    two.file.save()
    for each in (two, one):
        each.exchange()
    assert (one.window(), two.window()) == (None, None), "refuted later than it was learned again"


async def test_calibrations_add_up(peers: list[Peer], tmp_path: Path) -> None:
    one, two = peers
    alone = Calibration()
    for peer, tokens in ((one, 1500), (two, 2500), (one, 1200), (one, 3000), (two, 900)):
        finish = peer.learning.begin()()
        peer.call(tokens)  # while an exchange runs
        finish()
        record = CallRecord("r", outcome="ok", upstream_model="x", usage=Usage(input_tokens=tokens))
        record.estimated_input_tokens, record.estimated_tool_tokens = 1000, 100
        alone.observe(record)
        assert peer.calibration.corrected("x", 3000, 300) == alone.corrected("x", 3000, 300)
        peer.exchange()
    for peer in peers:
        peer.exchange()
        assert peer.calibration.corrected("x", 3000, 300) == alone.corrected("x", 3000, 300)
    late = Peer(tmp_path, "c")
    late.exchange()
    assert late.calibration.corrected("x", 3000, 300) == alone.corrected("x", 3000, 300)
    late.exchange()
    one.exchange()
    assert one.calibration.corrected("x", 3000, 300) == alone.corrected("x", 3000, 300), (
        "it has added nothing"
    )


async def test_what_could_not_be_stored_is_sent_later(
    peers: list[Peer], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = peers
    two.call(3000)
    two.exchange()

    def refuse(*_: object) -> None:
        raise StoreFailed("gone")

    with monkeypatch.context() as patch:
        patch.setattr(one.store, "merge_learned", refuse)
        for number in range(3):
            one.call(1500)
            one.learn(BOTH, NOW + number)
            run = one.learning.begin()
            one.call(1500)
            with pytest.raises(StoreFailed):
                run()
            one.learning.fail()
    for each in (one, two):
        each.exchange()
    assert two.knows() == BOTH
    expected = Calibration()
    for tokens in (3000, *[1500] * 6):
        record = CallRecord("r", outcome="ok", upstream_model="x", usage=Usage(input_tokens=tokens))
        record.estimated_input_tokens, record.estimated_tool_tokens = 1000, 100
        expected.observe(record)
    assert two.calibration.corrected("x", 3000, 300) == expected.corrected("x", 3000, 300)


async def test_rows_that_nobody_can_use_are_skipped(peers: list[Peer]) -> None:
    one, two = peers
    one.learn(SAMPLING)
    one.call(1500)
    one.exchange()
    rows = [
        LearnedRow("calibration", "x", '{"sums": [1, -2]}'), LearnedRow("calibration", "y", "[]"),
        LearnedRow("quirks", "e:10", "{"), LearnedRow("quirks", "f:10", '{"at": "soon"}'),
        LearnedRow("window", "e", '{"entry": "e", "window": "wide", "at": 5}'), LearnedRow("of", "later", "1"),
    ]  # fmt: skip
    two.store.merge_learned(rows, lambda row, _: row.value)
    two.call(1500, model="with\0nul \ud800")
    two.call(1500)
    two.exchange()
    one.exchange()
    assert two.knows() == SAMPLING
    assert two.calibration.corrected("x", 1000, 100) == one.calibration.corrected("x", 1000, 100) > 1000
    assert {row.name for row in two.store.learned(0)[1] if row.kind == "calibration"} == {"x", "y"}


async def test_all_is_sent_again_to_another_database(peers: list[Peer]) -> None:
    one, two = peers
    for number in range(3):
        one.learn(SAMPLING, NOW + number)
        one.call(1500)
        one.exchange()
    before = one.calibration.corrected("x", 1000, 100)
    one.store.close()
    for path in one.store.path.parent.glob("keys.db*"):
        path.unlink()
    two.learn(BOTH, NOW, OTHER)
    two.exchange()
    for each in (one, one, two):
        each.exchange()
    assert two.knows() == SAMPLING
    assert one.knows(OTHER) == BOTH
    assert two.calibration.corrected("x", 1000, 100) == before
