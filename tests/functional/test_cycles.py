"""A call that is over leaves nothing that must be searched for: all it held is free at once."""

from __future__ import annotations

import gc
from collections import Counter

import pytest

from tests.functional.faults import MODES
from tests.functional.raw import RawClient, RawUpstream, post
from tests.functional.streams import CHUNKED, HELLO, as_chunks
from tests.harness import running_proxy

CALLS = 40


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("mode", MODES)
async def test_a_call_leaves_no_cycles(mode: str, stream: bool) -> None:
    answer = [CHUNKED, as_chunks(*MODES[mode].values()), b"0\r\n\r\n"]
    upstream = RawUpstream(lambda _: answer)
    found: Counter[str] = Counter()
    async with upstream.running():
        entry = {"model_id": "m", "api_base": f"{upstream.base}/v1", "direct": mode == "direct"}
        async with running_proxy([entry]) as base, RawClient.to(base) as client:

            async def calls(count: int) -> None:
                for _ in range(count):
                    await client.send(post({**HELLO, "stream": stream}))
                    assert (await client.answer()).status == 200

            await calls(5)
            gc.collect()
            gc.disable()
            gc.set_debug(gc.DEBUG_SAVEALL)
            try:
                await calls(CALLS)
                gc.collect()
                kinds = (type(each) for each in gc.garbage)
                found.update(f"{kind.__module__}.{kind.__name__}" for kind in kinds)
            finally:
                gc.set_debug(0)
                gc.garbage.clear()
                gc.enable()
    ours = {name: count for name, count in found.items() if name.startswith("proxyd.")}
    assert not ours, ours
