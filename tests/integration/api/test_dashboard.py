"""The page, in a real browser, with real traffic through the daemon. Skipped where no Chromium is installed.

``DASHBOARD_SCREENSHOTS=docs`` writes the pictures of the documentation.
"""

from __future__ import annotations

import asyncio
import os
import random
import re
import shutil
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from aiohttp import web

from proxyd.codecs.anthropic.usage import Usage
from proxyd.config.routes import Pricing
from proxyd.daemon.configuration import LoadedConfig, load_configuration
from proxyd.daemon.server import Daemon
from proxyd.secret import Secret
from proxyd.telemetry.ledger_schema import COLUMNS, FILE, row_of
from tests.support.harness import chunk, running_proxy, running_upstream, sse
from tests.support.model_servers import ModelServer, serving
from tests.support.observing import ask, finished, new_ledger_file
from tests.support.ports import free_port

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt-get install chromium, then these run"),
    pytest.mark.asyncio(loop_scope="module"),  # that of the browser, whose start costs more than a test
]

WIDTHS = {"phone": (390, 844), "tablet": (820, 1180), "desktop": (1280, 900)}
TOKEN = "let-me-in-0123456789"
KEY = "sk-planted-0123456789abcdef"
PRICE = {"input": 0.6, "output": 2.5, "cache_read": 0.15}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def chromium() -> AsyncIterator[Any]:
    from playwright.async_api import async_playwright

    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        )
        yield browser
        await browser.close()


@pytest_asyncio.fixture(loop_scope="module")
async def browser(chromium: Any) -> AsyncIterator[Any]:
    """The browser, with no page open before the test and none after it."""
    yield chromium
    for context in chromium.contexts:
        await context.close()


class Page:
    """A page, and the errors in it."""

    def __init__(self, page: Any) -> None:
        self.page = page
        self.errors: list[str] = []
        self.foreign: list[str] = []
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", self._on_console)

    def _on_console(self, message: Any) -> None:
        # The browser itself logs a refused token and a stopped daemon; neither is a fault of the page.
        if message.type == "error" and "Failed to load resource" not in message.text:
            self.errors.append(message.text)

    async def open(self, base: str) -> None:
        self.page.on(
            "request", lambda request: request.url.startswith(base) or self.foreign.append(request.url)
        )
        response = await self.page.goto(f"{base}/dashboard")
        assert response.status == 200

    async def until(self, script: str) -> None:
        # Not wait_for_function, which evaluates strings in the page; its policy forbids that.
        async def holds() -> None:
            while not await self.page.evaluate(script):
                await asyncio.sleep(0.05)

        await asyncio.wait_for(holds(), 60)

    async def text(self, selector: str) -> str:
        return str(await self.page.inner_text(selector))


async def new_page(browser: Any, size: str = "desktop", **options: Any) -> Page:
    width, height = WIDTHS[size]
    context = await browser.new_context(
        viewport={"width": width, "height": height}, locale="en-GB", reduced_motion="reduce", **options
    )
    return Page(await context.new_page())


def history(folder: Path) -> None:
    """Fill the ledger with a month of calls that ends an hour ago."""
    chance = random.Random(8)
    models = [
        ("kimi", 6, Pricing(0.6, 2.5, 0.15)),
        ("deepseek", 3, Pricing(0.28, 0.42, 0.03)),
        ("glm", 2, None),
    ]
    database = new_ledger_file(folder / FILE)
    now, number = time.time(), 0
    records = []
    for day in range(30):
        if day % 7 in (5, 6):
            continue
        for _ in range(chance.randrange(15, 40)):
            model, _, pricing = chance.choices(models, [weight for _, weight, _ in models])[0]
            number += 1
            failed = chance.random() < 0.04
            usage = (
                Usage()
                if failed
                else Usage(
                    chance.randrange(500, 6000), chance.randrange(50, 1500), chance.randrange(10_000, 90_000)
                )
            )
            records.append(
                finished(
                    request_id=f"req_past{number}",
                    model=model,
                    route=model,
                    session_id=f"session-{day}",
                    started_at=now - 3600 - day * 86_400 - chance.random() * 8 * 3600,
                    outcome="refused" if failed else "ok",
                    status=429 if failed else 200,
                    error_type="rate_limit_error" if failed else None,
                    stop_reason=None if failed else "tool_use",
                    usage=usage,
                    pricing=pricing,
                    first_byte=10 + chance.uniform(0.4, 3),
                    ended=14 + chance.uniform(0, 30),
                )
            )
    names = ", ".join(COLUMNS)
    database.executemany(
        f"INSERT INTO calls ({names}) VALUES ({', '.join('?' * len(COLUMNS))})", map(row_of, records)
    )
    database.commit()
    database.close()


class Scene:
    """Entries for three routes, and an upstream that responds, refuses, breaks off, or streams until told."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.folder = folder
        self.settings = settings
        self.go_on = asyncio.Event()

    async def respond(self, request: web.Request) -> web.StreamResponse:
        model = (await request.json())["model"]
        usage = {
            "prompt_tokens": 1200,
            "completion_tokens": 34,
            "prompt_tokens_details": {"cached_tokens": 900},
        }
        if model == "glm-5.2":
            return web.json_response({"error": {"message": "You are too fast"}}, status=429)
        if model == "deepseek-v4":
            body = sse(chunk({"content": "half an answ"}), done=False)
            return web.Response(body=body, content_type="text/event-stream")
        if not (await request.json())["messages"][-1]["content"].startswith("go on"):
            body = sse(chunk({"content": "Hello"}), chunk({}, "stop"), chunk(usage=usage))
            return web.Response(body=body, content_type="text/event-stream")
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        for _ in range(40):
            await response.write(sse(chunk({"content": "twelve chars"}), done=False))
        await self.go_on.wait()
        await response.write(sse(chunk({}, "stop"), chunk(usage=usage)))
        return response

    def entries(self, base: str) -> list[dict[str, Any]]:
        return [
            {"model_id": "kimi", "model_name": "kimi-k2.6", "api_base": base + "/v1", "pricing": PRICE,
             "aliases": ["claude-haiku-*"], "fallback": ["deepseek"]},
            {"model_id": "deepseek", "model_name": "deepseek-v4", "api_base": base + "/v1"},
            {"model_id": "glm", "model_name": "glm-5.2", "api_base": base + "/v1"},
        ]  # fmt: skip


async def test_the_page_shows_real_traffic(tmp_path: Path, browser: Any) -> None:
    history(tmp_path)
    scene = Scene(tmp_path, max_retries=0)
    async with (
        running_upstream(scene.respond) as upstream,
        running_proxy(scene.entries(upstream.base), state_folder=tmp_path, max_retries=0) as base,
        aiohttp.ClientSession() as session,
    ):
        await ask(session, base, model="kimi", stream=True)
        await ask(session, base, model="claude-haiku-5-5", stream=True)
        await ask(session, base, model="deepseek", stream=True)
        await ask(session, base, model="glm", stream=True)
        going_on = [
            asyncio.create_task(
                ask(session, base, model="kimi", stream=True, messages=[{"role": "user", "content": "go on"}])
            )
            for _ in range(2)
        ]
        page = await new_page(browser)
        await page.open(base)
        await page.until("document.body.dataset.state === 'live'")
        await page.until("document.querySelectorAll('#active tr').length === 2")
        await page.until("/~\\d/.test(document.querySelector('#active').innerText)")
        await page.until("document.querySelectorAll('#recent tr').length > 8")
        await page.until("document.querySelectorAll('#routes tr').length === 3")
        await page.until("document.querySelectorAll('#chart rect').length > 3")
        assert (await page.text("#tile-active")) == "2"
        assert "streaming" in await page.text("#active")
        recent = await page.text("#recent")
        assert "broke off\nthe upstream closed the stream" in recent
        assert "refused 429" in recent
        assert "You are too fast" in recent
        assert "requested as claude-haiku-5-5" in recent
        kimi = (await page.text("#routes tr:first-child")).split()
        assert kimi[0] == "kimi"
        assert "works" in kimi
        await page.page.select_option("#filter-outcome", "failures")
        assert "done" not in await page.text("#recent")
        await page.page.select_option("#filter-outcome", "")
        assert re.search(r"median of the last \d+ calls; 95\s% below", await page.text("#tile-ttfb-note"))
        scale = (await page.text("#chart-scale")).split()
        assert re.fullmatch(r"[125]0*(\.0)?[kM]?", scale[0]), "the scale ends at a round number"
        assert scale[-1] == "0"
        sessions = await page.text("#sessions")
        assert "session-" in sessions
        assert "kimi" in sessions
        await page.page.click("[data-period=minutes]")
        await page.until("document.querySelectorAll('#chart rect').length > 1")
        assert (await page.text("#chart-axis")).count(":") == 3
        await page.page.click("[data-period=days]")
        await page.until("document.querySelectorAll('#chart rect').length > 25")
        await page.page.click("[data-measure=cost_usd]")
        assert "$" in await page.text("#legend")
        await page.page.click("[data-measure=tokens]")
        if folder := os.environ.get("DASHBOARD_SCREENSHOTS"):
            await screenshots(browser, base, Path(folder))
        scene.go_on.set()
        await asyncio.gather(*going_on)
        await page.until("document.querySelectorAll('#active tr').length === 0")
        assert await page.page.is_visible("#active-empty")
        await page.until("document.querySelector('#recent tr td:nth-child(4)').innerText.startsWith('done')")
        assert page.errors == []
        assert page.foreign == []
    # The daemon has stopped: the page says so, and retries.
    await page.until("document.body.dataset.state === 'lost'")
    assert "does not respond" in await page.text("#connection")
    assert page.errors == []


async def screenshots(browser: Any, base: str, folder: Path) -> None:
    for size in WIDTHS:
        for scheme in ("light", "dark") if size == "desktop" else ("light",):
            page = await new_page(browser, size, color_scheme=scheme, device_scale_factor=1)
            await page.open(base)
            await page.until("document.querySelectorAll('#routes tr').length === 3")
            await page.until("document.querySelectorAll('#active tr').length === 2")
            await page.until("/\\d/.test(document.querySelector('#tile-active-note').innerText)")
            name = f"dashboard-{size}{'-dark' if scheme == 'dark' else ''}.png"
            await page.page.screenshot(path=folder / name)
            await page.page.context.close()


async def test_an_empty_page_fits_each_screen(tmp_path: Path, browser: Any) -> None:
    async with running_proxy(
        [{"model_id": "demo", "api_base": "builtin:demo"}], state_folder=tmp_path
    ) as base:
        for size in WIDTHS:
            page = await new_page(browser, size)
            await page.open(base)
            await page.until("document.body.dataset.state === 'live'")
            await page.until("document.querySelectorAll('#routes tr').length === 1")
            assert "Nothing is in flight." in await page.text("#in-flight")
            assert f"ANTHROPIC_BASE_URL={base}" in await page.text("#recent-empty")
            assert await page.page.is_hidden("#recent-box")
            wide = await page.page.evaluate("document.documentElement.scrollWidth > innerWidth")
            assert not wide, f"the page scrolls sideways on a {size}"
            assert page.errors == []
            assert page.foreign == []
        # By keyboard alone: the first stop skips to the calls, and every control can be reached.
        await page.page.keyboard.press("Tab")
        assert await page.page.evaluate("document.activeElement.className") == "skip"
        stops = set()
        for _ in range(14):
            await page.page.keyboard.press("Tab")
            stops.add(
                await page.page.evaluate(
                    "document.activeElement.innerText.trim() || document.activeElement.id"
                )
            )
        assert {"24 hours", "30 days", "Tokens", "Cost", "Test", "Configuration in force"} <= stops


async def test_the_page_requires_the_token(tmp_path: Path, browser: Any) -> None:
    entry = {"model_id": "demo", "api_base": "builtin:demo"}
    async with running_proxy([entry], state_folder=tmp_path, auth_token=Secret(TOKEN)) as base:
        page = await new_page(browser)
        await page.open(base)
        await page.page.wait_for_selector("#sign-in[open]")
        await page.page.fill("#token", "wrong-token")
        await page.page.keyboard.press("Enter")
        await page.until("document.querySelector('#sign-in-error').innerText.includes('not accepted')")
        assert await page.text("#routes") == ""
        await page.page.fill("#token", TOKEN)
        await page.page.keyboard.press("Enter")
        await page.until("document.body.dataset.state === 'live'")
        await page.until("document.querySelectorAll('#routes tr').length === 1")
        assert TOKEN not in await page.page.content()
        assert await page.text("#hint") == "claude-proxy code demo"
        assert "ANTHROPIC_AUTH_TOKEN=YOUR_ACCESS_TOKEN" in await page.text("#hint-others")
        assert page.errors == []


async def test_a_model_is_added_tested_and_removed(
    tmp_path: Path, browser: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    path = tmp_path / "models.yaml"
    text = f"# Mine.\nsettings: {{auth_token: {TOKEN}}}\nmodels:\n- {{model_id: demo, api_base: 'builtin:demo'}}  # 1\n"
    path.write_text(text)
    path.chmod(0o600)

    def load() -> LoadedConfig:
        return load_configuration({"port": 0}, str(path), {})

    daemon = Daemon(load(), reload=load)
    await daemon.start()
    documents = {"/v1/models": {"data": [{"id": "big", "context_length": 262_144}, {"id": "small"}]}}
    try:
        async with serving(ModelServer(documents)) as server:
            page = await new_page(browser)
            page.page.on("dialog", lambda dialog: asyncio.ensure_future(dialog.accept()))
            await page.open(f"http://127.0.0.1:{daemon.addresses[0][1]}")
            await page.page.fill("#token", TOKEN)
            await page.page.keyboard.press("Enter")
            await page.until("document.querySelectorAll('#routes tr').length === 1")
            await page.page.click("#add-model")
            await page.until("document.querySelectorAll('#add-vendor option').length > 10")
            await page.page.select_option("#add-vendor", "other")
            await page.page.fill("#add-address", "nonsense://")
            await page.page.evaluate("document.querySelector('#add-address').type = 'text'")
            await page.page.click("#add-submit")
            await page.until("document.querySelector('#add-error').innerText.startsWith('api_base: ')")
            await page.page.fill("#add-address", f"{server.base}/v1")
            await page.page.click("#add-submit")
            await page.until("document.querySelectorAll('#add-name option').length === 2")
            assert "big (262k window)" in await page.text("#add-name")
            await page.page.select_option("#add-name", "big")
            if folder := os.environ.get("DASHBOARD_SCREENSHOTS"):
                await page.page.screenshot(path=Path(folder) / "dashboard-add-desktop.png")
            await page.page.click("#add-submit")
            await page.until("/works, /.test(document.querySelector('#routes').innerText)")
            assert path.read_text().startswith(text)
            assert server.chats[-1]["model"] == "big"
            await page.page.click("[data-remove=big]")
            await page.until("document.querySelectorAll('#routes tr').length === 1")
            assert path.read_text() == text
            assert page.errors == []
            assert page.foreign == []
    finally:
        await daemon.drain()
        await daemon.close()


async def test_the_hint_asks_for_a_key_where_one_is_needed(tmp_path: Path, browser: Any) -> None:
    entry = {"model_id": "kimi", "api_base": "https://api.moonshot.ai/anthropic", "direct": True}
    for keys, word in (({}, "YOUR_KEY"), ({"api_key": KEY}, "any")):
        async with running_proxy([{**entry, **keys}], state_folder=tmp_path) as base:
            page = await new_page(browser)
            await page.open(base)
            await page.until("document.querySelectorAll('#routes tr').length === 1")
            prefix = f"ANTHROPIC_AUTH_TOKEN={word} " if word == "YOUR_KEY" else ""
            assert await page.text("#hint") == f"{prefix}claude-proxy code kimi"
            assert f"ANTHROPIC_AUTH_TOKEN={word}" in await page.text("#hint-others")


async def test_client_data_is_never_rendered_as_markup(tmp_path: Path, browser: Any) -> None:
    async def respond(request: web.Request) -> web.StreamResponse:
        return web.json_response({"error": {"message": "<img src=x onerror=alert(1)> no"}}, status=400)

    evil = "<script>document.title='taken'</script>"
    async with running_upstream(respond) as upstream:
        entry = {"model_id": "m", "api_base": upstream.base + "/v1", "aliases": ["<*"]}
        async with running_proxy([entry], state_folder=tmp_path) as base, aiohttp.ClientSession() as session:
            await ask(session, base, model=evil)
            page = await new_page(browser)
            await page.open(base)
            await page.until("document.querySelectorAll('#recent tr').length === 1")
            assert evil in await page.text("#recent")
            assert await page.page.title() == "claude-proxy"
            assert page.errors == []
            assert page.foreign == []


async def test_a_page_of_another_origin_can_read_nothing(tmp_path: Path, browser: Any) -> None:
    """Another site in the same browser can neither read the feed nor frame the page."""

    async def site(request: web.Request) -> web.StreamResponse:
        return web.Response(text="<!doctype html><title>elsewhere</title>", content_type="text/html")

    entry = {"model_id": "demo", "api_base": "builtin:demo"}
    async with running_upstream(site) as elsewhere, running_proxy([entry], state_folder=tmp_path) as base:
        page = await new_page(browser)
        # Another name for this machine is another origin to a browser.
        await page.page.goto(elsewhere.base.replace("127.0.0.1", "localhost"))
        for path in ("/events", "/v1/stats", "/metrics", "/test-connection"):
            seen = await page.page.evaluate(
                "url => fetch(url).then((response) => response.text(), () => 'nothing')", base + path
            )
            assert seen == "nothing"
        await page.page.evaluate(
            "url => new Promise((done) => { const frame = document.createElement('iframe'); frame.onload = done;"
            " frame.src = url; document.body.append(frame); })",
            f"{base}/dashboard",
        )
        framed = page.page.frames[1]
        assert await framed.query_selector("#routes") is None


async def open_row(page: Page, model: str) -> None:
    """Open the details of the newest call of `model`."""
    await page.page.click(f"#recent tr:has(td:text-is('{model}')) button")
    await page.until("document.querySelector('#detail').open")


async def test_a_click_on_a_call_shows_what_is_known_of_it(tmp_path: Path, browser: Any) -> None:
    scene = Scene(tmp_path)
    async with (
        running_upstream(scene.respond) as upstream,
        running_proxy(
            [{**entry, "api_key": KEY} for entry in scene.entries(upstream.base)],
            state_folder=tmp_path,
            max_retries=0,
        ) as base,
        aiohttp.ClientSession() as session,
    ):
        await ask(session, base, model="glm", stream=True, top_k=4)
        await ask(session, base, model="kimi", stream=True)
        await ask(session, base, model="no-such-model", stream=True)
        for size in WIDTHS:
            page = await new_page(browser, size)
            await page.open(base)
            await page.until("document.querySelectorAll('#recent tr').length === 3")
            await open_row(page, "glm")
            await page.until("/Attempt 1/.test(document.querySelector('#detail').innerText)")
            shown = await page.text("#detail")
            assert f"POST {upstream.base}/v1/chat/completions" in shown
            assert "You are too fast" in shown
            assert "Altered on the way" in shown
            assert "top_k" in shown
            assert f"curl '{upstream.base}/v1/chat/completions'" in shown
            assert '-H "authorization: Bearer $API_KEY"' in shown
            content = await page.page.evaluate("document.querySelector('#detail').textContent")
            assert "Bearer ***" in content
            assert KEY not in content
            wide = await page.page.evaluate("document.documentElement.scrollWidth > innerWidth")
            assert not wide, f"the page scrolls sideways on a {size}"
            await picture(page, f"detail-{size}")
            await page.page.keyboard.press("Escape")
            assert not await page.page.evaluate("document.querySelector('#detail').open")
            await open_row(page, "no-such-model")
            shown = await page.text("#detail")
            assert "refused 404" in shown
            assert "known models: kimi" in shown
            await page.page.click("#detail button[autofocus]")
            await open_row(page, "kimi")
            await page.until("/record: all/.test(document.querySelector('#detail').innerText)")
            assert page.errors == []
            await page.page.context.close()


async def test_the_calls_can_be_filtered(tmp_path: Path, browser: Any) -> None:
    scene = Scene(tmp_path)
    async with (
        running_upstream(scene.respond) as upstream,
        running_proxy(scene.entries(upstream.base), state_folder=tmp_path, max_retries=0) as base,
        aiohttp.ClientSession() as session,
    ):
        for number, model in enumerate(("kimi", "glm", "kimi", "deepseek")):
            session.headers["x-claude-code-session-id"] = f"session-{number % 2}"
            await ask(session, base, model=model, stream=True)
        page = await new_page(browser)
        await page.open(base)

        async def shows(*models: str) -> None:
            script = "[...document.querySelectorAll('#recent tr td:nth-child(2)')].map((td) => td.innerText)"
            await page.until(f"{script}.sort().join() === {','.join(models)!r}")

        await shows("deepseek", "glm", "kimi", "kimi")
        await page.page.select_option("#filter-model", "kimi")
        await shows("kimi", "kimi")
        await page.page.select_option("#filter-model", "")
        await page.page.select_option("#filter-session", "session-1")
        await shows("deepseek", "glm")
        await page.page.select_option("#filter-outcome", "ok")
        await page.until("!document.querySelector('#recent-none').hidden")
        await page.page.click("#filters button[type=reset]")
        await shows("deepseek", "glm", "kimi", "kimi")
        await page.page.fill("#filter-text", "TOO FAST")
        await shows("glm")
        assert page.errors == []


async def test_a_model_can_be_tested_and_its_state_is_in_plain_words(tmp_path: Path, browser: Any) -> None:
    scene = Scene(tmp_path)
    async with running_upstream(scene.respond) as upstream:
        missing = {"model_id": "without-key", "api_base": upstream.base + "/v1", "api_key": "${NO_SUCH_KEY}"}
        dead = {"model_id": "dead", "api_base": f"http://127.0.0.1:{free_port()}/v1"}
        entries = [*scene.entries(upstream.base), missing, dead]
        async with running_proxy(entries, state_folder=tmp_path, max_retries=0) as base:
            page = await new_page(browser)
            await page.open(base)
            await page.until("document.querySelectorAll('#routes tr').length === 5")
            assert "ready, not used yet" in await page.text("#routes tr:nth-child(1)")
            assert "cannot work: no key" in await page.text("#routes tr:nth-child(4) span.bad")
            assert "NO_SUCH_KEY" in await page.text("#routes tr:nth-child(4)")
            await page.page.click("[data-test=kimi]")
            await page.page.click("[data-test=glm]")
            await page.until("/works, /.test(document.querySelector('#routes tr:nth-child(1)').innerText)")
            await page.until(
                "/429: You are/.test(document.querySelector('#routes tr:nth-child(3)').innerText)"
            )
            assert len(upstream.requests) == 2
            for _ in range(5):  # circuit_failures
                await page.page.click("[data-test=dead]")
                await page.until("!document.querySelector('[data-test=dead]').disabled")
            await page.until(
                "/paused after failures/.test(document.querySelector('#routes tr:nth-child(5)').innerText)"
            )
            assert await page.page.is_visible("#routes tr:nth-child(5) td span.bad")
            assert page.errors == []


#: Shows the folder of the test as that of a user, for the picture.
_SHORTEN = """([from, to]) => {
  const texts = document.createTreeWalker(document.querySelector("#problems"), NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) texts.currentNode.data = texts.currentNode.data.replaceAll(from, to);
}"""


@pytest.mark.parametrize("size", WIDTHS)
async def test_a_rejected_file_and_a_broken_hook_are_banners(tmp_path: Path, browser: Any, size: str) -> None:
    path, hooks = tmp_path / "models.yaml", tmp_path / "hooks"
    path.write_text("- {model_id: demo, api_base: 'builtin:demo'}\n")
    hooks.mkdir(mode=0o755)
    (hooks / "mark.py").write_text("def request_hook(payload)\n    return payload\n")
    (hooks / "mark.py").chmod(0o644)
    for each in (tmp_path, path):
        each.chmod(each.stat().st_mode & ~0o022)

    def load() -> LoadedConfig:
        return load_configuration({"port": 0}, str(path), {})

    daemon = Daemon(load(), reload=load)
    await daemon.start()
    try:
        page = await new_page(browser, size)
        await page.open(f"http://127.0.0.1:{daemon.addresses[0][1]}")
        await page.until(
            "/mark: SyntaxError.*line 1, column/.test(document.querySelector('#problems').innerText)"
        )
        path.write_text("- {model_id: demo, api_bas: 'builtin:demo'}\n")
        await page.until("/rejected/.test(document.querySelector('#problems').innerText)")
        shown = await page.text("#problems")
        assert f"{path}:1:20: models[0].api_bas: unknown key; did you mean 'api_base'?" in shown
        wide = await page.page.evaluate("document.documentElement.scrollWidth > innerWidth")
        assert not wide, f"the page scrolls sideways on a {size}"
        await page.page.evaluate(_SHORTEN, [str(tmp_path), "~/.config/claude-proxy"])
        await picture(page, f"problems-{size}")
        path.write_text("- {model_id: demo, api_base: 'builtin:demo'}\n")
        (hooks / "mark.py").write_text("def request_hook(payload):\n    return payload\n")
        await page.until("!document.querySelector('#problems').innerText")
        assert page.errors == []
    finally:
        await daemon.drain()
        await daemon.close()


async def picture(page: Page, name: str) -> None:
    folder = os.environ.get("DASHBOARD_SCREENSHOTS")
    if folder and name.endswith("-desktop"):
        await page.page.screenshot(path=Path(folder) / f"dashboard-{name}.png")
