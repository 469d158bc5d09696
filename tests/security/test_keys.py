"""Where keys and prompts go, and where they never do (operations.md E4, E7, E10; issue 5, item 8)."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import ssl
import subprocess
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from proxyd.errors import ProxyError, envelope
from proxyd.logs import redact
from proxyd.secret import Secret, masked
from tests.functional.raw import Fault, RawClient, RawUpstream, Step, post
from tests.functional.streams import CHUNKED, DIRECT, HELLO, TRANSLATED, as_chunks
from tests.functional.test_lifecycle import process
from tests.harness import running_proxy

# -- E4

CLIENT_KEY = "sk-client-0123456789abcdef"
CONFIGURED = "sk-configured-0123456789abcdef"
LEAKY = (
    f"X-Api-Key: {CLIENT_KEY}",
    "Cookie: session=sweet",
    "Proxy-Authorization: Basic cHJveHk=",
    "Connection: keep-alive, X-Private",
    "X-Private: hop",
    "Anthropic-Beta: one",
    "Anthropic-Version: 2023-06-01",
)


@pytest.mark.statement("E4")
@pytest.mark.parametrize("direct", [True, False])
@pytest.mark.parametrize("configured", [None, CONFIGURED])
async def test_what_an_upstream_is_sent(direct: bool, configured: str | None) -> None:
    frames = DIRECT if direct else TRANSLATED
    upstream = RawUpstream(
        lambda _: (
            CHUNKED.replace(b"\r\n\r\n", b"\r\nSet-Cookie: a=b\r\n\r\n"),
            as_chunks(*frames.values()),
            b"0\r\n\r\n",
        )
    )
    async with upstream.running():
        entry = {"model_id": "m", "api_base": f"{upstream.base}/v1", "direct": direct}
        async with running_proxy([entry if configured is None else {**entry, "api_key": configured}]) as base:
            for _ in range(2):  # no cookie comes back the second time
                async with RawClient.to(base) as client:
                    await client.send(post(HELLO, *LEAKY))
                    answer = await client.answer()
    assert "set-cookie" not in answer.headers
    for head in upstream.heads:
        names = {line.partition(b":")[0].decode().lower() for line in head.split(b"\r\n")[1:] if line}
        assert not names & {"cookie", "proxy-authorization", "x-private", "x-request-id"}
        assert (configured or CLIENT_KEY).encode() in head
        assert head.count(b"sk-") == 1, "one key and no other"
        assert ("anthropic-beta" in names) is direct
        assert f"host: 127.0.0.1:{upstream.port}".encode() in head.lower()


# -- E7: by value


@pytest.mark.statement("E7")
def test_a_key_is_found_wherever_it_turns_up() -> None:
    key = Secret("correct horse battery")
    again = Secret("correct horse battery")
    text = {"a": ["x correct horse battery y"], "b": ("correct horse battery",), "c": "fine", "d": 5}
    assert redact(text) == {"a": ["x *** y"], "b": ["***"], "c": "fine", "d": 5}
    del again
    assert masked(b"(correct horse battery)") == b"(***)", "the other one is still in use"
    assert (
        envelope(ProxyError("no such key: correct horse battery"))["error"]["message"] == "no such key: ***"
    )
    del key
    assert masked("correct horse battery") == "correct horse battery", "nobody's key any more"


@pytest.mark.statement("E7")
def test_a_short_key_masks_no_words() -> None:
    key = Secret("any")
    assert masked("many words") == "many words"
    assert repr(key) == "***"


@pytest.mark.statement("E7")
@pytest.mark.parametrize(
    "name", ["api_key", "x-api-key", "Authorization", "cookie", "auth_token", "password"]
)
def test_a_key_is_masked_by_the_name_of_its_field(name: str) -> None:
    assert redact({name: "anything at all"}) == {name: "***"}


# -- item 8: planted keys and words

PROMPT, SYSTEM, ANSWER, THOUGHT, ARGUMENT = (
    f"planted-{kind}-word" for kind in ("prompt", "system", "answer", "thought", "argument")
)
PLANTED_KEY = "plantedkeywithoutanyprefix0123456789"
PLANTED_TOKEN = "planted.bearer.without.any.prefix"
PLANTED_CONFIGURED = "planted-configured-key-in-the-file"


def _answers(number: int) -> tuple[Step, ...]:
    """Good, refused with the key in the words, broken, garbage: whatever gets logged somewhere."""
    frames = [
        frame.replace(b"Let me think. ", THOUGHT.encode())
        .replace(b"I will ", ANSWER.encode())
        .replace(b".txt", ARGUMENT.encode())
        for frame in TRANSLATED.values()
    ]
    echo = f"bad key {PLANTED_KEY} {PLANTED_TOKEN} {PLANTED_CONFIGURED} for {PROMPT}"
    refused = json.dumps({"error": {"message": echo[:90], "type": "invalid_request_error"}}).encode()
    return (
        (CHUNKED, as_chunks(*frames), b"0\r\n\r\n"),
        (b"HTTP/1.1 401 No\r\nContent-Length: %d\r\n\r\n%s" % (len(refused), refused),),
        (CHUNKED, as_chunks(*frames[:5]), Fault.RESET),
        (f"HTTP/1.1 {PLANTED_KEY} what\r\n\r\n".encode(), Fault.CLOSE),
        (CHUNKED, as_chunks(*frames[:4], f"data: {{{PLANTED_TOKEN} {ANSWER}\n\n".encode()), Fault.CLOSE),
        (Fault.CLOSE,),
    )[number % 6]


def _planted() -> list[bytes]:
    payload = {
        **HELLO,
        "system": SYSTEM,
        "messages": [{"role": "user", "content": PROMPT}],
        "metadata": {"user_id": "someone"},
    }
    headers = (f"X-Api-Key: {PLANTED_KEY}", f"Authorization: Bearer {PLANTED_TOKEN}")
    return [
        *(
            post({**payload, "model": model}, *headers)
            for model in ("m", "configured", "direct")
            for _ in range(6)
        ),
        post({**payload, "model": "no-such-model"}, *headers),
        post({**payload, "stream": False}, *headers),
        post(json.dumps(payload).encode()[:-3], *headers),
        post(payload, *headers).replace(b"Host: 127.0.0.1", f"Host: x\r\nX-Api-Key {PLANTED_KEY}".encode()),
        post(payload, *headers, path="/v1/messages/count_tokens"),
        post(payload, *headers, path="/nothing"),
        post({**payload, "messages": PROMPT}, *headers),
    ]


def _arguments_of(pid: int) -> bytes:
    return subprocess.run(["ps", "-o", "args=", "-p", str(pid)], capture_output=True, check=True).stdout


def _files_below(folder: Path) -> dict[Path, bytes]:
    """What the daemon has written: its ledger, its records, its state."""
    found = (path for path in folder.rglob("*") if path.is_file() and path.name != "models.yaml")
    return {path: path.read_bytes() for path in found}


async def _planted_calls(folder: Path, **more: Any) -> dict[str, bytes]:
    """Make all the calls, at debug, where most is logged; returns what can be found where afterwards."""
    upstream = RawUpstream(_answers)
    seen = b""
    async with upstream.running():
        base_url = f"{upstream.base}/v1"
        entries = (
            {"model_id": "configured", "api_base": base_url, "api_key": PLANTED_CONFIGURED},
            {"model_id": "direct", "api_base": base_url, "direct": True},
        )
        settings = {"log_level": "debug", "max_retries": 0, "circuit_failures": 0, "record": "all", **more}
        async with process(folder, upstream, *entries, **settings) as daemon:
            arguments = _arguments_of(daemon.handle.pid)
            for request in _planted():
                async with RawClient.to(daemon.base) as client:
                    await client.send(request)
                    await client.answer()
            for path in ("/metrics", "/v1/stats", "/v1/models", "/dashboard", "/readyz?verbose"):
                async with RawClient.to(daemon.base) as client:
                    await client.send(
                        f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()
                    )
                    seen += await asyncio.wait_for(client.reader.read(), 5)
            daemon.send(signal.SIGUSR2)
            await daemon.says("state.daemon")
            daemon.send(signal.SIGTERM)
            assert await daemon.ended(10) == 0
    assert len(daemon.log("call.finished")) >= 15, "the calls did run"
    stored = {str(path): data for path, data in _files_below(folder).items()}
    assert sum(path.endswith("/call.json") for path in stored) >= 15, "and were recorded"
    return {"the log": json.dumps(daemon.lines).encode(), "the endpoints": seen, "ps": arguments, **stored}


@pytest.mark.statement("E7")
async def test_planted_keys_and_words_are_found_nowhere(tmp_path: Path) -> None:
    for place, data in (await _planted_calls(tmp_path)).items():
        for planted in (PLANTED_KEY, PLANTED_TOKEN, PLANTED_CONFIGURED):
            assert planted.encode() not in data, f"{planted} in {place}"
        for word in (PROMPT, SYSTEM, ANSWER, THOUGHT, ARGUMENT):
            # An upstream's own error message may quote a prompt, and is what the log line of that call must say.
            if place == "the log":
                data = data.replace(f"bad key *** *** *** for {word}".encode(), b"")
            assert word.encode() not in data, f"{word} in {place}"


@pytest.mark.statement("E7")
async def test_records_of_bodies_hold_words_and_no_keys(tmp_path: Path) -> None:
    places = await _planted_calls(tmp_path, record_bodies=True)
    for place, data in places.items():
        for planted in (PLANTED_KEY, PLANTED_TOKEN, PLANTED_CONFIGURED):
            assert planted.encode() not in data, f"{planted} in {place}"
    recorded = b"".join(data for place, data in places.items() if "/records/" in place)
    for word in (PROMPT, SYSTEM, ANSWER, THOUGHT, ARGUMENT):
        assert word.encode() in recorded, f"{word}: so the search above would have found it"


@pytest.mark.statement("E7")
async def test_a_key_in_an_error_of_an_upstream_does_not_reach_the_client() -> None:
    body = json.dumps({"error": {"message": f"Incorrect API key: {CONFIGURED}", "type": "x"}}).encode()
    upstream = RawUpstream(
        lambda _: (b"HTTP/1.1 401 No\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body),)
    )
    async with upstream.running():
        for direct in (True, False):
            entry = {"model_id": "m", "api_base": upstream.base, "direct": direct, "api_key": CONFIGURED}
            async with running_proxy([entry]) as base, RawClient.to(base) as client:
                await client.send(post(HELLO))
                answer = await client.answer()
            assert answer.status == 401
            assert b"Incorrect API key" in answer.body
            assert CONFIGURED.encode() not in answer.body


# -- E10


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed, so there is no certificate to test with")
    folder = tmp_path_factory.mktemp("certificate")
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
    ]
    command += ["-days", "2", "-subj", "/CN=test", "-addext", "subjectAltName=DNS:localhost"]
    subprocess.run([*command, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    return key, certificate


@pytest.mark.statement("E10")
@pytest.mark.parametrize(
    ("host", "trusts", "status"),
    [("localhost", True, 200), ("127.0.0.1", True, 502), ("localhost", False, 502)],
)
async def test_certificates_are_verified(
    certificate: tuple[Path, Path], host: str, trusts: bool, status: int
) -> None:
    key, public = certificate
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(public, key)
    asked: list[str] = []

    async def answer(request: web.Request) -> web.StreamResponse:
        asked.append(request.path)
        return web.Response(body=b"".join(TRANSLATED.values()), content_type="text/event-stream")

    runner = web.ServerRunner(web.Server(answer))  # type: ignore[arg-type]
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    try:
        entry = {"model_id": "m", "api_base": f"https://{host}:{runner.addresses[0][1]}/v1"}
        settings: dict[str, Any] = {"ca_file": str(public) if trusts else "", "max_retries": 0}
        async with running_proxy([entry], **settings) as base, aiohttp.ClientSession() as session:
            headers = {"x-api-key": CLIENT_KEY}
            async with session.post(f"{base}/v1/messages", json=HELLO, headers=headers) as response:
                assert response.status == status
                text = await response.text()
    finally:
        await runner.cleanup()
    assert len(asked) == (status == 200)
    if status == 502:
        assert "could not be verified" in text
        assert host in text


@pytest.mark.statement("E10")
@pytest.mark.parametrize("trusts", [True, False])
async def test_a_proxy_of_the_environment_is_used_only_when_trusted(
    trusts: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    via, straight = (
        RawUpstream(lambda _: (CHUNKED, as_chunks(*TRANSLATED.values()), b"0\r\n\r\n")) for _ in range(2)
    )
    async with via.running(), straight.running():
        monkeypatch.setenv("http_proxy", via.base)
        monkeypatch.delenv("no_proxy", raising=False)
        entry = {"model_id": "m", "api_base": f"{straight.base}/v1"}
        async with running_proxy([entry], trust_env=trusts) as base, RawClient.to(base) as client:
            await client.send(post(HELLO))
            assert (await client.answer()).status == 200
    assert (len(via.heads), len(straight.heads)) == ((1, 0) if trusts else (0, 1))
