"""Entries over HTTP: what can be added, adding, removing, and who may."""

from __future__ import annotations

import json
import stat
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from proxyd.daemon.configuration import load_configuration
from proxyd.daemon.server import Daemon
from tests.support.keyrings import MemoryKeyring, using_keyring
from tests.support.model_servers import ModelServer, serving

TOKEN = "let-me-in-0123456789"
KEY = "sk-planted-0123456789abcdef"
MODELS = f"""\
# Mine.
settings:
  auth_token: {TOKEN}   # for the page
models:
  # The first.
  - model_id: demo   # quick
    api_base: builtin:demo
"""
LIST = {"/v1/models": {"data": [{"id": "big", "context_length": 262_144}, {"id": "small"}]}}


class Service:
    """A daemon with a models.yaml in a folder of its own, and a client with the token."""

    def __init__(self, base: str, folder: Path, session: aiohttp.ClientSession) -> None:
        self.base, self.folder, self.session = base, folder, session

    @property
    def text(self) -> str:
        return (self.folder / "models.yaml").read_text()

    async def ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> tuple[int, Any]:
        headers = {"x-claude-proxy-token": TOKEN}
        async with self.session.request(
            method, f"{self.base}/v1/entries{path}", json=body, headers=headers
        ) as response:
            return response.status, json.loads(await response.read())

    async def refusal(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> str:
        status, found = await self.ask(method, path, body)
        assert status in (400, 403), found
        return str(found["error"]["message"])


@asynccontextmanager
async def service(folder: Path, text: str = MODELS) -> AsyncIterator[Service]:
    path = folder / "models.yaml"
    path.write_text(text)
    path.chmod(0o600)
    flags = {"port": 0, "keep_warm": False}
    daemon = Daemon(load_configuration(flags, str(path), {"HOME": str(folder)}))
    await daemon.start()
    try:
        async with aiohttp.ClientSession() as session:
            yield Service("http://{}:{}".format(*daemon.addresses[0]), folder, session)
    finally:
        await daemon.drain()
        await daemon.close()


async def test_an_entry_is_listed_added_and_removed(tmp_path: Path) -> None:
    async with serving(ModelServer(LIST)) as server, service(tmp_path) as here:
        body = {"api_base": f"{server.base}/v1"}
        status, listed = await here.ask("POST", "/models", body)
        assert (status, [each["name"] for each in listed["models"]]) == (200, ["big", "small"])
        assert listed["models"][0]["max_input_tokens"] == 262_144
        assert here.text == MODELS, "looking writes nothing"
        status, added = await here.ask("POST", "", {**body, "model": "big"})
        assert (status, added["model_id"]) == (200, "big")
        assert here.text.startswith(MODELS)
        assert "# OpenAI-compatible server: big. Added by" in here.text
        assert "already, as big" in await here.refusal("POST", "", {**body, "model": "big"})
        assert await here.ask("DELETE", "/big") == (
            200,
            {"removed": "big", "path": f"{tmp_path}/models.yaml"},
        )
        assert here.text == MODELS
        assert "is the only entry" in await here.refusal("DELETE", "/demo")
        assert "no entry has the model_id 'big'" in await here.refusal("DELETE", "/big")


async def test_a_pasted_key_goes_into_env_and_to_no_other_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("MOONSHOT_API_KEY", "MOONSHOT_API_KEY_2"):
        monkeypatch.delenv(name, raising=False)
    async with serving(ModelServer(LIST, key=KEY)) as server, service(tmp_path) as here:
        kimi = {"vendor": "kimi", "api_base": f"{server.base}/v1"}
        assert "needs one; paste it" in await here.refusal("POST", "/models", kimi)
        for pasted, said in (
            ("sk-12 34567890", "key: expected a key without blanks"),
            ('""', "key: expected a key; got nothing"),
            ("sk-0123****cdef", "key: this is a masked key"),
            ("MOONSHOT_API_KEY", "key: this is the name of a variable; paste the key itself"),
            ("$HOME", "key: this is the name of a variable"),
        ):
            assert said in await here.refusal("POST", "/models", {**kimi, "key": pasted})
        assert server.asked == []
        wrong = await here.refusal("POST", "/models", {**kimi, "key": "sk-wrong-0123456789"})
        assert "401" in wrong
        assert "sk-wrong" not in wrong
        assert not (tmp_path / "env").exists()
        status, _ = await here.ask("POST", "", {**kimi, "key": f"Bearer {KEY}", "model": "small"})
        assert status == 200
        env = tmp_path / "env"
        assert env.read_text() == f"MOONSHOT_API_KEY={KEY}\n"
        assert stat.S_IMODE(env.stat().st_mode) == 0o600
        assert "api_key: ${MOONSHOT_API_KEY}" in here.text
        assert KEY not in here.text
        # Its address is no vendor's, and the running daemon has not taken the entry over: the key stays here.
        asked = len(server.asked)
        assert "needs one; paste it" in await here.refusal("POST", "/models", kimi)
        assert len(server.asked) == asked
        # A key of another account gets a variable of its own.
        server.key = "sk-second-0123456789"
        status, _ = await here.ask("POST", "", {**kimi, "key": server.key, "model": "big"})
        assert status == 200
        assert f"MOONSHOT_API_KEY_2={server.key}\n" in env.read_text()


async def test_a_key_of_the_systems_keyring_serves_another_model_of_its_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MOONSHOT_API_KEY", raising=False)
    async with serving(ModelServer(LIST, key=KEY)) as server, serving(ModelServer(LIST)) as other:
        kimi = {"vendor": "kimi", "api_base": f"{server.base}/v1"}
        first = f"  - {{model_id: small, api_base: '{server.base}/v1', api_key: '${{keyring:MOONSHOT_API_KEY}}'}}\n"
        with using_keyring(MemoryKeyring(MOONSHOT_API_KEY=KEY)):
            async with service(tmp_path, MODELS + first) as here:
                _, found = await here.ask("GET", "/vendors")
                assert next(each["has_key"] for each in found["vendors"] if each["vendor"] == "kimi")
                elsewhere = {**kimi, "api_base": f"{other.base}/v1"}
                assert "needs one; paste it" in await here.refusal("POST", "/models", elsewhere)
                assert other.asked == []
                assert (await here.ask("POST", "", {**kimi, "model": "big"}))[0] == 200
                assert here.text.count("${keyring:MOONSHOT_API_KEY}") == 2
                assert not (tmp_path / "env").exists()


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({}, "the name of a known vendor, or api_base"),
        ({"api_base": "no address"}, "api_base: "),
        ({"vendor": "azure"}, "has an address for each account"),
        ({"vendor": 1}, "vendor: expected a text"),
        ({"api_key": "${file:/etc/passwd}"}, "api_key: unknown"),
    ],
)
async def test_bad_input_is_named(tmp_path: Path, body: dict[str, Any], message: str) -> None:
    async with service(tmp_path) as here:
        assert message in await here.refusal("POST", "/models", body)
        assert here.text == MODELS


async def test_lists_and_files_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    server = ModelServer({})
    async with serving(server), service(tmp_path) as here:
        base = f"{server.base}/v1"
        kimi = {"vendor": "kimi", "api_base": base, "key": KEY}
        for document, said in (
            (b'{"data": []}', "the list is empty; use 'claude-proxy add' with --model"),
            (
                b'["' + b"x" * (5 << 20) + b'"]',
                "larger than 4 MB; check the address, or use 'claude-proxy add'",
            ),
            (b"<html></html>", "expected JSON, got a web page; check the address, or use"),
        ):
            server.documents = {"/v1/models": (200, "application/json", document)}
            assert f"{base}/models: " in (refusal := await here.refusal("POST", "/models", kimi))
            assert said in refusal
        server.documents = LIST
        real = tmp_path / "dotfiles" / "models.yaml"
        real.parent.mkdir()
        (tmp_path / "models.yaml").rename(real)
        (tmp_path / "models.yaml").symlink_to("dotfiles/models.yaml")
        assert (await here.ask("POST", "", {**kimi, "model": "big"}))[0] == 200
        assert (tmp_path / "models.yaml").is_symlink()
        assert "model_id: big" in real.read_text()
        real.unlink()
        assert f"is a link to {real}, which does not" in await here.refusal(
            "POST", "", {**kimi, "model": "small"}
        )
        real.mkdir()
        assert "and this is a folder; move it" in await here.refusal("POST", "", {**kimi, "model": "small"})


async def test_only_the_access_token_opens_it(tmp_path: Path) -> None:
    async with service(tmp_path) as here:
        async with here.session.get(f"{here.base}/v1/entries/vendors") as response:
            assert response.status == 401
        status, found = await here.ask("GET", "/vendors")
        assert status == 200
        assert "kimi" in [each["vendor"] for each in found["vendors"]]
        assert KEY not in json.dumps(found)
    open_text = "- {model_id: demo, api_base: 'builtin:demo'}\n"
    async with service(tmp_path, open_text) as here:
        assert "set auth_token" in await here.refusal("GET", "/vendors")
        assert "set auth_token" in await here.refusal("DELETE", "/demo")
        assert "set auth_token" in await here.refusal("POST", "", {"vendor": "kimi", "model": "m"})
        assert here.text == open_text
