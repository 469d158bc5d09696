"""What the log says of a response that cannot be read: never a key, and never words of a prompt or of a model."""

from __future__ import annotations

import base64
import json

import pytest
from structlog.testing import capture_logs

from proxyd.logs.redact import redact_event
from tests.support.faults import MODES
from tests.support.harness import running_proxy
from tests.support.raw_sockets import RawClient, RawUpstream, post
from tests.support.streams import HELLO

KEY = "upstream-credential/with+marks=="
WORDS = "The zebra crossed Elm Street"


def _spellings(text: str) -> list[str]:
    return [
        text,
        json.dumps(text)[1:-1].replace("/", "\\/"),
        base64.b64encode(text.encode()).decode(),
        text.replace("/", "%2F").replace("+", "%2B").replace("=", "%3D"),
    ]


BODIES = {
    "text": ("text/plain", "{0} {1}"),
    "JSON of unknown form": ("application/json", '{{"reply": "{0}", "{0}": "{1}"}}'),
    "JSON that is cut": ("application/json", '{{"reply": "{0} {1}'),
    "page": ("text/html", "<html>{0} {1}</html>"),
    "error with status 200": ("application/json", '{{"type": "error", "error": {{"message": "{0} {1}"}}}}'),
}


@pytest.mark.parametrize("number", range(len(_spellings(KEY))))
@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("mode", MODES)
async def test_the_log_has_neither_keys_nor_words(mode: str, body: str, number: int) -> None:
    kind, text = BODIES[body]
    data = text.format(_spellings(KEY)[number], WORDS).encode()
    head = f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {len(data)}\r\n\r\n"
    upstream = RawUpstream(lambda _: [head.encode() + data])
    entry = {"model_id": "m", "api_key": KEY, "direct": mode == "direct"}
    request = {**HELLO, "messages": [{"role": "user", "content": WORDS}]}
    with capture_logs(processors=[redact_event]) as lines:
        async with upstream.running():
            base = upstream.base if mode == "direct" else f"{upstream.base}/v1"
            async with (
                running_proxy([{**entry, "api_base": base}], max_retries=0) as proxy,
                RawClient.to(proxy) as client,
            ):
                await client.send(post(request))
                await client.response()
    logged = json.dumps(lines, default=str, ensure_ascii=False)
    assert WORDS not in logged
    assert not any(spelling in logged for spelling in _spellings(KEY))
    said = [line["seen"] for line in lines if line["event"] == "upstream.bad_reply"]
    if body == "page":
        assert len(said) == 1
