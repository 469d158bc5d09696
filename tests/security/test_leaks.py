"""Planted keys and words are found nowhere but on the way they are meant for (docs/spec/operations.md#e7).

Everything that can say something is made to: each endpoint, each log level, both log formats, the stored files, the
process list, the state dump, the commands that ask the daemon, hooks that crash with the key in their words, and a
handler of ours that does.
"""

from __future__ import annotations

import asyncio
import io
import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import structlog

from proxyd.logs import setup as logs
from proxyd.proxy.pump import StreamPump
from proxyd.secret import Secret
from tests.support.daemon_process import Process, process
from tests.support.harness import running_proxy
from tests.support.paths import ROOT
from tests.support.raw_sockets import Fault, RawClient, RawUpstream, Step, post
from tests.support.streams import CHUNKED, DIRECT, HELLO, TRANSLATED, as_chunks

WORDS = PROMPT, SYSTEM, ANSWER, THOUGHT, ARGUMENT = tuple(
    f"planted-{kind}-word-of-a-longer-text" for kind in ("prompt", "system", "answer", "thought", "argument")
)
#: In the client's two headers; in models.yaml, in a header of it, in the file env, in a key file; and our own token.
KEYS = API_KEY, BEARER, CONFIGURED, HEADER, FROM_ENV, FROM_FILE, TOKEN = (
    "plantedkeywithoutanyprefix0123456789",
    "planted.bearer.without.any.prefix",
    "planted-configured-key-in-the-file",
    "planted-header-of-an-entry-0123",
    "planted-key-of-the-file-env-0123",
    "planted-key-of-a-key-file-0123",
    "planted-access-token-of-the-proxy",
)
#: An upstream's own error message may quote a prompt. The client gets it; the log line of that call has the rest of it.
QUOTE = f"are bad keys for {PROMPT}"


class Upstream(RawUpstream):
    """Good, refused with the keys that it was sent in the words, broken, garbage: whatever gets logged somewhere."""

    def __init__(self) -> None:
        super().__init__(self._responses)

    def _responses(self, number: int) -> tuple[Step, ...]:
        sent = [key for key in KEYS if key.encode() in self.heads[number]]
        asked = (
            [QUOTE] if PROMPT.encode() in self.bodies[number] else []
        )  # a probe has no prompt of anybody's
        return _responses(number, " ".join((*sent, *asked)))


def _responses(number: int, echo: str) -> tuple[Step, ...]:
    frames = [
        frame.replace(b"Let me think. ", THOUGHT.encode())
        .replace(b"I will ", ANSWER.encode())
        .replace(b"a.txt", ARGUMENT.encode())
        for frame in TRANSLATED.values()
    ]
    refused = json.dumps({"error": {"message": echo, "type": "invalid_request_error"}}).encode()
    echoed = f"data: {json.dumps({'error': {'message': echo}})}\n\n".encode()
    return (
        (CHUNKED, as_chunks(*frames), b"0\r\n\r\n"),
        (b"HTTP/1.1 401 No\r\nContent-Length: %d\r\n\r\n%s" % (len(refused), refused),),
        (CHUNKED, as_chunks(*frames[:5]), Fault.RESET),
        (f"HTTP/1.1 {API_KEY} what\r\n\r\n".encode(), Fault.CLOSE),
        (CHUNKED, as_chunks(*frames[:4], f"data: {{{BEARER} {ANSWER}\n\n".encode()), Fault.CLOSE),
        (CHUNKED, as_chunks(*frames[:5], echoed), b"0\r\n\r\n"),
        (Fault.CLOSE,),
    )[number % 7]


MODELS = ("m", "configured", "direct", "from_env", "from_file")


def _planted() -> list[bytes]:
    payload = {
        **HELLO,
        "system": SYSTEM,
        "messages": [{"role": "user", "content": PROMPT}],
        "metadata": {"user_id": json.dumps({"session_id": API_KEY})},
    }
    headers = (f"X-Api-Key: {API_KEY}", f"Authorization: Bearer {BEARER}", f"X-Claude-Proxy-Token: {TOKEN}")
    return [
        *(post({**payload, "model": model}, *headers) for model in MODELS for _ in range(7)),
        post({**payload, "model": "no-such-model"}, *headers),
        *(post({**payload, "model": model, "stream": False}, *headers) for model in MODELS for _ in range(7)),
        post(json.dumps(payload).encode()[:-3], *headers),
        post(payload, *headers).replace(b"Host: 127.0.0.1", f"Host: x\r\nX-Api-Key {API_KEY}".encode()),
        post(payload, *headers, path="/v1/messages/count_tokens"),
        post(payload, *headers, path="/nothing"),
        post({**payload, "messages": PROMPT}, *headers),
    ]


HOOKS = {
    "crashes": f"""
import os
def request_hook(payload):
    raise ValueError("{CONFIGURED} " + str(payload))
def response_hook(payload):
    raise KeyError("{FROM_ENV} " + str(payload))
def stream_event_hook(event, ctx):
    raise SystemExit("{API_KEY} " + str(event))
""",
    "does_not_load": f'raise RuntimeError("{CONFIGURED} {FROM_ENV} {FROM_FILE}")\n',
}


def _folder(folder: Path) -> None:
    """What a user keeps beside models.yaml."""
    for name, text in (("env", f"PLANTED={FROM_ENV}\n"), ("a.key", f"{FROM_FILE}\n")):
        (folder / name).write_text(text)
        (folder / name).chmod(0o600)
    (folder / "hooks").mkdir(mode=0o755)
    for name, text in HOOKS.items():
        (folder / "hooks" / f"{name}.py").write_text(text)
        (folder / "hooks" / f"{name}.py").chmod(0o644)


def _entries(upstream: RawUpstream) -> list[dict[str, Any]]:
    base = f"{upstream.base}/v1"
    return [
        {
            "model_id": "configured",
            "api_base": base,
            "api_key": CONFIGURED,
            "extra_headers": {"x-token": HEADER},
        },
        {"model_id": "direct", "api_base": base, "direct": True, "extra_headers": {"x-goog-api-key": HEADER}},
        {"model_id": "from_env", "api_base": base, "api_key": "${PLANTED}"},
        {"model_id": "from_file", "api_base": base, "api_key": "${file:a.key}"},
    ]


async def _get(base: str, path: str, wait_s: float = 5) -> bytes:
    async with RawClient.to(base) as client:
        head = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nX-Claude-Proxy-Token: {TOKEN}\r\n"
        await client.send(f"{head}X-Api-Key: {API_KEY}\r\n\r\n".encode())
        return await asyncio.wait_for(client.reader.read(), wait_s)


async def _command(folder: Path, daemon: Process, *arguments: str) -> bytes:
    """What a command says, on both streams; its exit code says what it found."""
    port = daemon.base.rpartition(":")[2]
    environ = {"PATH": os.defpath, "HOME": str(folder), "PYTHONPATH": str(ROOT), "PORT": port}
    done = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "proxyd", *arguments, "--models", str(folder / "models.yaml")),
        env={**environ, "CLAUDE_PROXY_AUTH_TOKEN": TOKEN, "ANTHROPIC_AUTH_TOKEN": BEARER},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        said, _ = await asyncio.wait_for(done.communicate(), 60)
    finally:
        if done.returncode is None:
            done.kill()
            await done.wait()
    assert b"Traceback" not in said, said
    return said


def _arguments_of(pid: int) -> bytes:
    return subprocess.run(["ps", "-o", "args=", "-p", str(pid)], capture_output=True, check=True).stdout


def _files_below(folder: Path) -> dict[str, bytes]:
    """What the daemon has written: its ledger, its records, its state. Not what the user has."""
    own = {folder / "models.yaml", folder / "env", folder / "a.key"}
    return {
        str(path): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path not in own and folder / "hooks" not in path.parents
    }


def _check(places: dict[str, bytes]) -> None:
    for place, data in places.items():
        for key in KEYS:
            assert key.encode() not in data, f"{key} in {place}: {_around(data, key)}"
        for word in WORDS:
            assert word.encode() not in data, f"{word} in {place}: {_around(data, word)}"


def _around(data: bytes, word: str) -> bytes:
    at = data.find(word.encode())
    return data[max(0, at - 200) : at + 200]


@pytest.mark.statement("E7")
@pytest.mark.parametrize("level", ["debug", "info", "warning", "error"])
async def test_planted_keys_and_words_are_found_nowhere(level: str, tmp_path: Path) -> None:
    _folder(tmp_path)
    upstream = Upstream()
    places: dict[str, bytes] = {}
    async with upstream.running():
        settings = {"log_level": level, "max_retries": 0, "circuit_failures": 0, "auth_token": TOKEN}
        started = process(
            tmp_path, upstream, *_entries(upstream), is_quiet=level in ("warning", "error"), **settings
        )
        async with started as daemon:
            places["ps"] = _arguments_of(daemon.handle.pid)
            async with RawClient.to(daemon.base) as feed:
                await feed.send(
                    f"GET /events HTTP/1.1\r\nHost: localhost\r\nX-Claude-Proxy-Token: {TOKEN}\r\n\r\n".encode()
                )
                for request in _planted():
                    async with RawClient.to(daemon.base) as client:
                        await client.send(request)
                        await client.response()
                places["the feed"] = await _what_has_come(feed)
            for path in (
                "/metrics", "/v1/stats", "/v1/stats?session=x", "/v1/models", "/dashboard", "/readyz?verbose",
                "/test-connection", "/", "/healthz",
            ):  # fmt: skip
                places[path] = await _get(daemon.base, path, 30)
            async with RawClient.to(daemon.base) as client:
                token = f"X-Claude-Proxy-Token: {TOKEN}"
                await client.send(post({"probe": True}, token, path="/test-connection"))
                places["the probe"] = (await client.response(30)).body
            places["the page's feed"] = await _hello(daemon.base)
            daemon.send(signal.SIGUSR2)
            if level == "info":
                commands = (("status",), ("status", "--json"), ("doctor",), ("doctor", "--json", "--probe"))
                for arguments in (*commands, ("check",), ("check", "--json", "--probe"), ("stats", "--json")):
                    places[" ".join(arguments)] = await _command(tmp_path, daemon, *arguments)
                assert b'"state": "running"' in places["status --json"]
                assert b"does_not_load" in places["status"]
                (tmp_path / "models.yaml").write_text(
                    f"- {{model_id: m, api_key: {CONFIGURED}, nonsense: 1}}"
                )
                daemon.send(signal.SIGHUP)
                await daemon.says("config.rejected")
            daemon.send(signal.SIGTERM)
            assert await daemon.ended(30) == 0
    if level in ("debug", "info"):
        assert len(daemon.log("call.finished")) >= 60, "the calls did run"
        assert daemon.log("state.daemon")
    if level != "error":
        assert daemon.log("hook.failed")
    assert daemon.log("hook.not_loaded")
    places["the log"] = b"\n".join(json.dumps(line).encode() for line in daemon.lines)
    stored = _files_below(tmp_path)
    assert any(name.endswith("usage.db") for name in stored)
    if level != "error":
        assert b"are bad keys for" in places["the log"], "what is no quote is said"
    _check({**places, **stored})


async def _what_has_come(client: RawClient) -> bytes:
    """What a listener has been sent so far, and within a moment."""
    found = b""
    while b"proxyd" not in found:
        try:
            found += await asyncio.wait_for(client.reader.read(1 << 20), 0.3)
        except asyncio.TimeoutError:
            break
    assert b"event: call" in found
    return found


async def _hello(base: str) -> bytes:
    """The first message of the feed: the last calls."""
    async with RawClient.to(base) as client:
        await client.send(
            f"GET /events HTTP/1.1\r\nHost: localhost\r\nX-Claude-Proxy-Token: {TOKEN}\r\n\r\n".encode()
        )
        return await asyncio.wait_for(client.reader.readuntil(b"event: active"), 30)


# -- what an upstream quotes of a prompt

#: With what JSON escapes, and what it may.
QUOTED = f'{PROMPT} says: "Gr\u00fc\u00dfe \U0001f600"\nand\tmore'
#: How an upstream quotes: as it reads, cut, within JSON, with a repetition.
QUOTES = {
    "whole": QUOTED,
    "cut": QUOTED[8:52],
    "as_json": json.dumps({"role": "user", "content": QUOTED}),
    "twice": f"{QUOTED[:30]} ... {QUOTED[-30:]}",
}


@pytest.mark.statement("E7")
@pytest.mark.parametrize("how", QUOTES)
@pytest.mark.parametrize("size", [0, 20_000, 700_000], ids=["small", "unread", "large"])
@pytest.mark.parametrize("ascii_only", [True, False])
@pytest.mark.parametrize("mode", ["translated", "direct"])
async def test_an_upstream_that_quotes_the_prompt_is_not_quoted(
    mode: str, ascii_only: bool, size: int, how: str
) -> None:
    """In the log, the lines of retries and fallbacks among it, nor in the feed: the client is told all of it."""
    said = {"error": {"message": f"messages.0 is no good: {QUOTES[how]}; try less", "type": "api_error"}}
    refused = json.dumps(said).encode()
    text_page = f"<p>{QUOTES[how]}</p>".encode()
    upstream = RawUpstream(
        lambda number: [
            b"HTTP/1.1 %b\r\nContent-Length: %d\r\n\r\n%b" % (b"503 No", len(refused), refused)
            if number < 2
            else b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: %d\r\n\r\n%b"
            % (len(text_page), text_page)
        ]
    )
    messages = [{"role": "user", "content": QUOTED}, {"role": "user", "content": "x" * size}]
    payload = {"model": "m", "messages": messages, "max_tokens": 9, "stream": True}
    body = json.dumps(payload, ensure_ascii=ascii_only).encode()
    session = "X-Claude-Code-Session-Id: s1"
    with _logging("debug", "json") as stream:
        async with upstream.running():
            entry = {"api_base": f"{upstream.base}/v1", "direct": mode == "direct"}
            entries = [
                {"model_id": "m", **entry, "fallback": ["n"]},
                {"model_id": "n", **entry},
            ]
            async with running_proxy(entries, max_retries=1) as base, RawClient.to(base) as feed:
                await feed.send(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
                for _ in range(2):
                    async with RawClient.to(base) as client:
                        await client.send(post(body, session))
                        response = await client.response()
                        assert response.status >= 500
                said_there = await _what_has_come(feed)
        assert logs._queue is not None
        assert logs._queue.flush()
        logged = stream.getvalue()
    lines = [json.loads(line) for line in logged.splitlines()]
    assert {"call.finished", "call.fallback", "upstream.bad_reply"} <= {line["event"] for line in lines}
    if mode == "translated":
        (line, _) = [line for line in lines if line["event"] == "call.fallback"]
        assert line["why"].startswith("messages.0 is no good:")
        assert "; try less (" in line["why"] or size == 700_000
        assert line["address"] == f"{upstream.base}/v1/chat/completions"
    for place in (logged, said_there.decode()):
        for at in range(len(PROMPT) - 23):
            assert PROMPT[at : at + 24] not in place
        # Escaped once more, it falls into runs that are too short to tell.
        assert how == "as_json" or "Gr\u00fc\u00dfe" not in place


@pytest.mark.statement("E7")
@pytest.mark.parametrize("mode", ["translated", "direct"])
async def test_an_error_within_a_stream_is_remembered_by_its_first_words(mode: str) -> None:
    """The request is gone by then, so nobody can tell what of the words is its."""
    events = list((TRANSLATED if mode == "translated" else DIRECT).values())
    error = {"type": f"{PROMPT} {PROMPT}", "message": f"Overloaded because of {PROMPT}"}
    failed = b"event: error\ndata: %b\n\n" % json.dumps({"type": "error", "error": error}).encode()
    upstream = RawUpstream(lambda _: [CHUNKED, as_chunks(*events[:5], failed), b"0\r\n\r\n"])
    with _logging("debug", "json") as stream:
        async with upstream.running():
            entry = {"model_id": "m", "api_base": upstream.base, "direct": mode == "direct"}
            async with running_proxy([entry]) as base, RawClient.to(base) as client:
                await client.send(post({**HELLO, "messages": [{"role": "user", "content": PROMPT}]}))
                response = await client.response()
        assert logs._queue is not None
        assert logs._queue.flush()
        lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert PROMPT.encode() in response.body
    (line,) = [line for line in lines if line["event"] == "call.finished"]
    assert line.get("error") == ("Overloaded because of p…" if mode == "translated" else None)
    assert PROMPT not in json.dumps(lines)


# -- in this process: what no configuration makes happen


@contextmanager
def _logging(level: str, log_format: str) -> Iterator[io.StringIO]:
    stream = io.StringIO()
    logs.configure(level, log_format, stream)
    try:
        yield stream
    finally:
        if logs._queue is not None:
            logs._queue.close()
        structlog.reset_defaults()


@pytest.mark.statement("E7")
@pytest.mark.parametrize("mode", ["translated", "direct"])
@pytest.mark.parametrize("log_format", ["json", "console"])
@pytest.mark.parametrize("place", ["before", "within"])
async def test_a_crash_of_ours_says_where_and_not_what(
    place: str, log_format: str, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An exception's own words may hold a key, or a prompt; so may those of the one that it came from."""
    sound, reads = StreamPump._decode, 0

    def read(self: Any) -> bytes:
        nonlocal reads
        reads += 1
        if reads > (0 if place == "before" else 1):
            try:
                raise KeyError(f"{API_KEY} {PROMPT}")
            except KeyError as exc:
                raise ValueError(f"bad value {CONFIGURED}\n{PROMPT} {BEARER}") from exc
        return sound(self)

    monkeypatch.setattr(StreamPump, "_decode", read)
    upstream = RawUpstream(lambda _: [CHUNKED, *map(as_chunks, TRANSLATED.values()), b"0\r\n\r\n"])
    with _logging("debug", log_format) as stream:
        async with upstream.running():
            entry = {
                "model_id": "m",
                "api_base": f"{upstream.base}/v1",
                "direct": mode == "direct",
                "api_key": CONFIGURED,
            }
            async with running_proxy([entry]) as base, RawClient.to(base) as client:
                await client.send(post(HELLO, f"X-Api-Key: {API_KEY}", f"Authorization: Bearer {BEARER}"))
                response = await client.response()
        assert logs._queue is not None
        assert logs._queue.flush()
        said = stream.getvalue()
    assert "request.crashed" in said
    for kind in ("KeyError", "ValueError", "test_leaks.py", "in read"):
        assert kind in said, "a traceback without its places is of no use"
    _check({"the log": said.encode(), "the answer": response.body})


@pytest.mark.statement("E7")
def test_an_exception_whose_words_are_of_code_keeps_them() -> None:
    """Those of the interpreter about names and types, of the system, and our own assertions."""
    with _logging("info", "json") as stream:
        for exc in (
            TypeError("f() takes 1 argument"),
            FileNotFoundError(2, "No such file"),
            AssertionError("why"),
        ):
            logs.get_logger("test").error("request.crashed", exc_info=exc)
        logs.get_logger("test").error("request.crashed", exc_info=ValueError("planted"))
        assert logs._queue is not None
        assert logs._queue.flush()
        lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert "f() takes 1 argument" in lines[0]["exception"]
    assert "No such file" in lines[1]["exception"]
    assert "why" in lines[2]["exception"]
    assert lines[3]["exception"].startswith("ValueError")
    assert "planted" not in lines[3]["exception"]


@pytest.mark.statement("E7")
async def test_bodies_are_logged_only_where_it_is_asked_for_and_keys_not_even_then(tmp_path: Path) -> None:
    upstream = Upstream()
    async with upstream.running():
        entry = {"model_id": "m", "api_base": f"{upstream.base}/v1", "api_key": CONFIGURED}
        with _logging("debug", "json") as stream:
            async with running_proxy([entry], log_bodies=True) as base, RawClient.to(base) as client:
                payload = {**HELLO, "messages": [{"role": "user", "content": f"{PROMPT} {CONFIGURED}"}]}
                await client.send(post(payload, f"X-Api-Key: {API_KEY}"))
                await client.response()
            assert logs._queue is not None
            assert logs._queue.flush()
            said = stream.getvalue()
    assert PROMPT in said
    assert ANSWER in said
    assert CONFIGURED not in said
    assert API_KEY not in said


def _core_limit_of(pid: int) -> str:
    limits = Path(f"/proc/{pid}/limits")
    if not limits.exists():
        pytest.skip("this system does not tell the limits of a process")
    (line,) = [line for line in limits.read_text().splitlines() if line.startswith("Max core file size")]
    return line.split()[4]


@pytest.mark.statement("E7")
async def test_the_daemon_leaves_no_core(tmp_path: Path) -> None:
    """Its memory holds keys and prompts; the limit is its own, however it was started."""
    soft, hard = resource.getrlimit(resource.RLIMIT_CORE)
    if hard == 0:
        pytest.skip("cores are off here anyway")
    resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))  # which the daemon inherits
    try:
        upstream = RawUpstream(lambda _: ())
        async with upstream.running(), process(tmp_path, upstream) as daemon:
            assert _core_limit_of(daemon.handle.pid) == "0"
    finally:
        resource.setrlimit(resource.RLIMIT_CORE, (soft, hard))


def test_a_secret_shows_itself_in_no_form() -> None:
    secret = Secret(API_KEY)
    for text in (
        repr(secret),
        str(secret),
        f"{secret}",
        f"{secret!r}",
        repr({"key": secret}),
        repr([secret]),
    ):
        assert API_KEY not in text
