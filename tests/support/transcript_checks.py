"""What holds for every stream transcript, of whatever format (`tests.support.goldens_streams`)."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Iterable
from pathlib import Path

from proxyd.codecs.anthropic.events import event_from_data
from proxyd.codecs.anthropic.grammar import Grammar
from proxyd.codecs.wire.sse import SSEDecoder
from tests.support import goldens_streams as goldens
from tests.support.effort import examples, sampled
from tests.support.sse_reader import read_events

#: Random cuts tried per transcript.
RANDOM_SPLITS = examples(120)

_ENDINGS = (".expected.sse", ".expected.json", ".options.json", ".sse")


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *cuts, len(data)]
    return [data[start:end] for start, end in itertools.pairwise(edges)]


def check_whole(name: str) -> None:
    case = goldens.load(name)
    assert goldens.play(case.new_decoder(), [case.upstream]) == goldens.expected(name)


def check_byte_by_byte(name: str) -> None:
    case = goldens.load(name)
    single = [case.upstream[at : at + 1] for at in range(len(case.upstream))]
    assert goldens.play(case.new_decoder(), single) == goldens.expected(name)


def check_random_splits(name: str) -> None:
    case, expected = goldens.load(name), goldens.expected(name)
    size = len(case.upstream)
    source = random.Random(name)  # the same splits each time, so that a failure can be repeated
    for _ in range(RANDOM_SPLITS):
        cuts = sorted(source.randrange(size + 1) for _ in range(source.randint(1, 6)))
        assert goldens.play(case.new_decoder(), split(case.upstream, cuts)) == expected, cuts


def check_every_offset(name: str) -> None:
    """Cut in two at each byte, or a sample of them: the frames are the same.

    For short streams the client's stream is, too. All bytes are tried by the deep tests.
    """
    case = goldens.load(name)
    data = case.upstream
    frames = [*(decoder := SSEDecoder()).feed(data), *decoder.close()]
    for at in sampled(range(len(data) + 1)):
        decoder = SSEDecoder()
        assert [*decoder.feed(data[:at]), *decoder.feed(data[at:]), *decoder.close()] == frames, at
    if len(data) <= 400:
        expected = goldens.expected(name)
        for at in sampled(range(len(data) + 1)):
            assert goldens.play(case.new_decoder(), [data[:at], data[at:]]) == expected, at


def check_expectation_is_legal(name: str) -> None:
    grammar = Grammar()
    events = [(kind, json.loads(data)) for kind, data in read_events(goldens.expected(name).stream)]
    for kind, data in events:
        assert data["type"] == kind
        grammar.accept(event_from_data(data))
    assert grammar.has_ended
    kinds = [kind for kind, _ in events]
    assert kinds[0] == "message_start"
    assert kinds.count("message_start") == 1
    assert kinds.count("message_stop") + kinds.count("error") == 1
    stop_reasons = [data["delta"]["stop_reason"] for kind, data in events if kind == "message_delta"]
    assert all(stop_reasons)
    assert len(stop_reasons) == kinds.count("message_stop")


def check_readme(folder: Path, cases: Iterable[str]) -> None:
    """The README of a folder names its cases and no others, and each file belongs to one."""
    here = {name.rpartition("/")[2] for name in cases}
    lines = (folder / "README").read_text("utf-8").splitlines()
    assert {line.split("  ")[0] for line in lines if "  " in line.rstrip() and line[0] != " "} == here
    for path in folder.iterdir():
        if path.name != "README":
            case = next(path.name.removesuffix(end) for end in _ENDINGS if path.name.endswith(end))
            assert case in here, f"{path} belongs to no transcript"
