"""Draw what terminals show: docs/terminal-80.svg and docs/terminal-100.svg, and the pictures of docs/screens.md.

A real daemon runs in tmux, with an upstream of this script. What is drawn is what tmux shows after a few calls: its
log, and in docs/screens/ the commands of `SCREENS` at 80 and 120 columns, dark and light.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shlex
import socket
import sys
import tempfile
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

ROOT = Path(__file__).resolve().parent.parent
WIDTHS = (80, 100)
ROWS = 40
#: Of one character of 14 px in DejaVu Sans Mono.
CELL_WIDTH, LINE_HEIGHT, MARGIN = 8.43, 19, 14
#: theme -> background, and the color of each code
THEMES = {
    "dark": (
        "#1b1e26",
        {"": "#d8dee9", "1": "#ffffff", "2": "#7b8496", "31": "#f0747c", "32": "#9ece6a", "33": "#e5c07b",
         "36": "#7dcfdc"},
    ),
    "light": (
        "#fbfaf7",
        {"": "#2b303a", "1": "#000000", "2": "#7a808a", "31": "#b3261e", "32": "#2e7d32", "33": "#8a6100",
         "36": "#0b6e7f"},
    ),
}  # fmt: skip
#: The commands of docs/screens.md -> a text that shows when the screen is complete.
SCREENS = {
    "models": "no-key",
    "check": "no-key",
    "doctor": "Claude Code",
    "stats": "glm",
    "top": "streaming",
}
SCREEN_WIDTHS = (80, 120)
SCREEN_ROWS = 100
_SGR = re.compile(r"\x1b\[([0-9;]*)m")
_DEADLINE_S = 30.0

#: Status and body of the upstream, or the usage of an answer, by the first part of the path.
USAGES: dict[str, dict[str, Any]] = {
    "kimi": {
        "prompt_tokens": 42_900,
        "completion_tokens": 240,
        "prompt_tokens_details": {"cached_tokens": 21_500},
    },
    "glm": {"prompt_tokens": 3_120, "completion_tokens": 81},
}
REFUSALS = {
    "busy": (429, {"retry-after": "7200"}, {"message": "Daily quota spent.", "type": "rate_limit_error"}),
    "wrong-key": (401, {}, {"message": "Incorrect API key provided.", "code": "invalid_api_key"}),
    "wrong-path": (404, {}, {"message": "Not Found"}),
}
CALLS = ("demo", "kimi", "glm", "coder", "wrong-key", "wrong-path", "local", "no-key", "claude-sonnet-5")


async def respond(request: web.Request) -> web.StreamResponse:
    """Respond as the entry is called whose api_base the request has come to."""
    name = request.path.split("/")[1]
    if name in REFUSALS:
        status, headers, error = REFUSALS[name]
        return web.json_response({"error": error}, status=status, headers=headers)
    if await request.read() == b"{}":  # doctor looks whether the address is right
        return web.json_response({"error": {"message": "model is required"}}, status=400)
    if name == "slow":
        return await respond_slowly(request)
    state = request.app["calls"]
    state[name] = state.get(name, 0) + 1
    if name == "glm" and state[name] % 3:  # two retries
        return web.json_response({"error": {"message": "overloaded"}}, status=503)
    chunk = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": name}
    choice = {"index": 0, "delta": {"content": "Done."}, "finish_reason": None}
    end = {"index": 0, "delta": {}, "finish_reason": "stop"}
    parts: list[dict[str, Any]] = [{"choices": [choice]}, {"choices": [end], "usage": USAGES[name]}]
    body = "".join(f"data: {json.dumps({**chunk, **part})}\n\n" for part in parts) + "data: [DONE]\n\n"
    await asyncio.sleep(0.4)
    return web.Response(text=body, content_type="text/event-stream")


async def respond_slowly(request: web.Request) -> web.StreamResponse:
    """Stream a word ten times a second for as long as the proxy reads."""
    response = web.StreamResponse(headers={"content-type": "text/event-stream"})
    await response.prepare(request)
    chunk = {"id": "1", "choices": [{"index": 0, "delta": {"content": "and so on, "}}]}
    with contextlib.suppress(ConnectionError):  # the caller has left
        for _ in range(600):
            await response.write(f"data: {json.dumps(chunk)}\n\n".encode())
            await asyncio.sleep(0.1)
    return response


def models_yaml(base: str) -> str:
    price = {"input": 0.6, "output": 2.5, "cache_read": 0.15}
    entries: list[dict[str, Any]] = [
        {"model_id": "demo", "api_base": "builtin:demo"},
        {"model_id": "kimi", "api_base": f"{base}/kimi/v1", "pricing": price},
        {"model_id": "glm", "api_base": f"{base}/glm/v1"},
        {"model_id": "coder", "api_base": f"{base}/busy/v1", "fallback": ["kimi"]},
        {"model_id": "wrong-key", "api_base": f"{base}/wrong-key/v1"},
        {"model_id": "wrong-path", "api_base": f"{base}/wrong-path"},
        {"model_id": "slow", "api_base": f"{base}/slow/v1"},
        {"model_id": "local", "api_base": "http://localhost:1/v1"},
        {"model_id": "no-key", "api_base": "https://api.deepseek.com/v1", "api_key": "${DEEPSEEK_API_KEY}"},
    ]
    return "".join(f"- {json.dumps(entry)}\n" for entry in entries)


async def tmux(name: str, *arguments: str) -> str:
    process = await asyncio.create_subprocess_exec(
        *("tmux", "-L", name, "-f", os.devnull, *arguments), stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    return out.decode()


def variables_of(home: Path, port: int) -> dict[str, str]:
    return {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(home),
        "PORT": str(port),
        "PYTHONPATH": str(ROOT),
        "LANG": "C.UTF-8",
        "TERM": "xterm-256color",
    }


async def draw_screens(base: str) -> None:
    """Run a daemon in the background, let it serve a few calls, and draw each command of `SCREENS`."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        config = home / ".config" / "claude-proxy"
        config.mkdir(parents=True)
        (config / "models.yaml").write_text(models_yaml(base))
        (config / "models.yaml").chmod(0o600)
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        environ = variables_of(home, port)
        command = (sys.executable, "-m", "proxyd")
        daemon = await asyncio.create_subprocess_exec(
            *command, env=environ, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
        )
        try:
            await make_calls(f"http://127.0.0.1:{port}")
            for name in SCREENS:
                for columns in SCREEN_WIDTHS:
                    lines = await screen_of(name, columns, environ)
                    for theme in THEMES:
                        path = ROOT / "docs" / "screens" / f"{name}-{columns}-{theme}.svg"
                        path.parent.mkdir(exist_ok=True)
                        svg = as_svg(cleaned(lines, folder, port), columns, f"claude-proxy {name}", theme)
                        path.write_text(svg, encoding="utf-8")
                    sys.stdout.write(f"docs/screens/{name}-{columns}-*.svg\n")
        finally:
            daemon.terminate()
            await daemon.wait()


async def screen_of(name: str, columns: int, environ: dict[str, str]) -> list[str]:
    """Return the lines of a terminal in which a command runs or has ended."""
    server = f"draw-{os.getpid()}-{name}-{columns}"
    words = ["env", "-i", *(f"{key}={value}" for key, value in environ.items())]
    words += [sys.executable, "-m", "proxyd", name]
    shell = f"{shlex.join(words)}; printf '\\n$ '; sleep 60"
    calls: list[asyncio.Task[None]] = []
    if name == "top":
        calls = [
            asyncio.create_task(hold_call(environ["PORT"], model))
            for model in ("slow", "slow", "no-key", "slow")
        ]
    await tmux(server, "new-session", "-d", "-x", str(columns), "-y", str(SCREEN_ROWS), shell)
    try:
        await until_shown(server, SCREENS[name] if name == "top" else "\n$")
        if name == "top":
            await asyncio.sleep(2.5)  # until there are tokens to count
        text = await tmux(server, "capture-pane", "-e", "-p")
    finally:
        await tmux(server, "kill-server")
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
    lines = text.splitlines()
    while lines and _SGR.sub("", lines[-1]).strip() in ("", "$"):
        lines.pop()
    return [f"$ claude-proxy {name}", *lines] if name != "top" else lines


async def hold_call(port: str, model: str) -> None:
    """Make a call that goes on until it is cancelled."""
    message = {"role": "user", "content": "Hello."}
    body = {"model": model, "max_tokens": 500, "stream": True, "messages": [message]}
    async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:
        async with session.post("/v1/messages", json=body) as response:
            async for _ in response.content.iter_any():
                pass


def cleaned(lines: list[str], folder: str, port: int) -> list[str]:
    """Without what differs from one machine to another."""
    return [line.replace(str(port), "8082").replace(folder, "~") for line in lines]


async def screen_after_calls(columns: int, base: str) -> list[str]:
    """Run the daemon in a terminal, make the calls, and return the lines of the screen with their colors."""
    name = f"draw-{os.getpid()}-{columns}"
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        config = home / ".config" / "claude-proxy"
        config.mkdir(parents=True)
        (config / "models.yaml").write_text(models_yaml(base))
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        variables = variables_of(home, port)
        command = ["env", "-i", *(f"{key}={value}" for key, value in variables.items())]
        command += [sys.executable, "-m", "proxyd"]
        await tmux(
            name, "new-session", "-d", "-x", str(columns), "-y", str(ROWS), f"{shlex.join(command)}; sleep 60"
        )
        try:
            await make_calls(f"http://127.0.0.1:{port}")
            for model in CALLS:
                await until_shown(name, f" {model} ")
            text = await tmux(name, "capture-pane", "-e", "-p")
            await tmux(name, "send-keys", "C-c")
            await until_shown(name, "server.stopped")
        finally:
            await tmux(name, "kill-server")
    lines = text.replace(str(port), "8082").replace(folder, "~").splitlines()
    while lines and not _SGR.sub("", lines[-1]).strip():
        lines.pop()
    return lines


async def make_calls(base: str) -> None:
    """Wait for the daemon, then make one call after the other."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + _DEADLINE_S
    async with aiohttp.ClientSession(base) as session:
        while True:
            try:
                async with session.get("/readyz") as response:
                    if response.status == 200:
                        break
            except aiohttp.ClientError:
                pass
            if loop.time() > deadline:
                raise SystemExit("the daemon did not start")
            await asyncio.sleep(0.1)
        for model in CALLS:
            message = {"role": "user", "content": "Hello."}
            body = {"model": model, "max_tokens": 500, "stream": True, "messages": [message]}
            async with session.post("/v1/messages", json=body) as response:
                await response.read()


async def until_shown(name: str, text: str) -> None:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + _DEADLINE_S
    while text not in await tmux(name, "capture-pane", "-p"):
        if loop.time() > deadline:
            shown = await tmux(name, "capture-pane", "-p")
            raise SystemExit(f"the terminal does not show {text!r}:\n{shown}")
        await asyncio.sleep(0.1)


def runs(lines: list[str]) -> Iterator[tuple[int, int, str, str]]:
    """Yield the parts of lines that have one color: row, column, color, text. A line begins as the one before ended."""
    weight = color = ""
    for row, line in enumerate(lines):
        column = 0
        for index, part in enumerate(_SGR.split(line)):
            if index % 2:
                for code in part.split(";"):
                    if code in ("1", "2"):
                        weight = code
                    elif code in THEMES["dark"][1] and code:
                        color = code
                    else:
                        weight, color = (
                            ("", "") if code in ("", "0") else ("", color) if code == "22" else (weight, "")
                        )
            elif part:
                yield row, column, color or weight, part
                column += len(part)


def as_svg(lines: list[str], columns: int, title: str, theme: str = "dark") -> str:
    background, colors = THEMES[theme]
    width, height = round(columns * CELL_WIDTH + 2 * MARGIN), len(lines) * LINE_HEIGHT + 2 * MARGIN
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" font-family="DejaVu Sans Mono, Menlo, Consolas, monospace" font-size="14">',
        f"<title>{escape(title)} on a terminal of {columns} columns</title>",
        f'<rect width="{width}" height="{height}" rx="8" fill="{background}"/>',
    ]
    for row, column, color, text in runs(lines):
        shown = text.rstrip()
        if not shown.strip():
            continue
        blank = len(shown) - len(shown.lstrip())
        x, y, shown = (
            MARGIN + (column + blank) * CELL_WIDTH,
            MARGIN + (row + 0.75) * LINE_HEIGHT,
            shown[blank:],
        )
        weight = ' font-weight="bold"' if color == "1" else ""
        parts.append(
            f'<text x="{x:.1f}" y="{y:.1f}" textLength="{len(shown) * CELL_WIDTH:.1f}" '
            f'lengthAdjust="spacingAndGlyphs" xml:space="preserve" fill="{colors[color]}"{weight}>'
            f"{escape(shown)}</text>"
        )
    return "\n".join([*parts, "</svg>"]) + "\n"


async def main() -> None:
    app = web.Application(client_max_size=1 << 24)
    app["calls"] = {}
    app.router.add_post("/{path:.*}", respond)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    base = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        for columns in WIDTHS:
            lines = await screen_after_calls(columns, base)
            path = ROOT / "docs" / f"terminal-{columns}.svg"
            path.write_text(as_svg(lines, columns, "The log of claude-proxy"), encoding="utf-8")
            sys.stdout.write(f"{path}\n")
        await draw_screens(base)
    finally:
        await runner.cleanup()


if __name__ == "__main__":
    asyncio.run(main())
