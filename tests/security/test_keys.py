"""Where keys and prompts go, and where they never do (docs/spec/operations.md#e4, #e7, #e10)."""

from __future__ import annotations

import json
import shutil
import ssl
import subprocess
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from proxyd.errors import ProxyError, envelope
from proxyd.logs.redact import redact
from proxyd.redaction import masked
from proxyd.secret import Secret
from tests.support.harness import running_proxy
from tests.support.raw_sockets import RawClient, RawUpstream, post
from tests.support.servers import running_site
from tests.support.streams import CHUNKED, DIRECT, HELLO, TRANSLATED, as_chunks

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
                    response = await client.response()
    assert "set-cookie" not in response.headers
    for head in upstream.heads:
        names = {line.partition(b":")[0].decode().lower() for line in head.split(b"\r\n")[1:] if line}
        assert not names & {"cookie", "proxy-authorization", "x-private", "x-request-id"}
        assert (configured or CLIENT_KEY).encode() in head
        assert head.count(b"sk-") == 1, "one key and no other"
        assert ("anthropic-beta" in names) is direct
        assert f"host: 127.0.0.1:{upstream.port}".encode() in head.lower()


# -- by value


@pytest.mark.statement("E7")
def test_a_key_is_found_wherever_it_turns_up() -> None:
    key = Secret("correct horse battery")
    again = Secret("correct horse battery")
    text = {"a": ["x correct horse battery y"], "b": ("correct horse battery",), "c": "fine", "d": 5}
    assert redact(text) == {"a": ["x *** y"], "b": ["***"], "c": "fine", "d": 5}
    del again
    assert masked("(correct horse battery)") == "(***)", "the other one is still in use"
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
                response = await client.response()
            assert response.status == 401
            assert b"Incorrect API key" in response.body
            assert CONFIGURED.encode() not in response.body


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

    async def respond(request: web.Request) -> web.StreamResponse:
        asked.append(request.path)
        return web.Response(body=b"".join(TRANSLATED.values()), content_type="text/event-stream")

    runner = web.ServerRunner(web.Server(respond))  # type: ignore[arg-type]
    async with running_site(runner, context) as port:
        entry = {"model_id": "m", "api_base": f"https://{host}:{port}/v1"}
        settings: dict[str, Any] = {"ca_file": str(public) if trusts else "", "max_retries": 0}
        async with running_proxy([entry], **settings) as base, aiohttp.ClientSession() as session:
            headers = {"x-api-key": CLIENT_KEY}
            async with session.post(f"{base}/v1/messages", json=HELLO, headers=headers) as response:
                assert response.status == status
                text = await response.text()
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
            assert (await client.response()).status == 200
    assert (len(via.heads), len(straight.heads)) == ((1, 0) if trusts else (0, 1))
