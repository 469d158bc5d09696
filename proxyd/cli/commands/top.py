"""``claude-proxy top``: show the calls in flight, live, from ``/events`` (`proxyd.telemetry.live_feed`).

If the output is no terminal, it prints one snapshot and ends. It reconnects to a daemon that restarts.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import click

from proxyd.errors import ConfigError, ProxyError
from proxyd.terminal import printable

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table

    from proxyd.config.settings import Settings

__all__ = ["top_command"]

#: Columns from which on there is room for all figures of a call.
_WIDE = 100
#: Stop reasons of calls that ended as they should.
_USUAL_REASONS = ("end_turn", "tool_use", None)

#: key -> (name, field) of a sort order; largest first, except by model
_SORTS: Mapping[str, tuple[str, str]] = {
    "a": ("age", "duration_ms"),
    "t": ("tokens", "output_tokens"),
    "s": ("speed", "tokens_per_s"),
    "m": ("model", "route"),
}
_RETRY_S = 1.0
_DRAWS_PER_S = 4
_RECENT = 8
#: Limit for a line of the feed; the longest is the first, which holds the last calls.
_MAX_LINE_BYTES = 8 << 20


@click.command("top", epilog="Example: claude-proxy top --port 8082")
@click.option("-p", "--port", type=int, metavar="N", help="Port of the daemon (8082).")
@click.option("--host", metavar="H", help="Address of the daemon (127.0.0.1).")
@click.option("--models", metavar="FILE", help="The models.yaml whose settings say where the daemon listens.")
@click.option("--once", is_flag=True, help="Print one snapshot and end.")
def top_command(port: int | None, host: str | None, models: str | None, once: bool) -> None:
    """Show the calls in flight, live. Keys: a, t, s, m sort by age, tokens, speed, model; q quits."""
    settings = _settings({"port": port, "host": host}, models)
    is_live = not once and sys.stdout.isatty() and sys.stdin.isatty()
    code = asyncio.run(_follow(settings) if is_live else _print_once(settings))
    sys.exit(code)


def _settings(flags: dict[str, Any], models: str | None) -> Settings:
    """Find the daemon's address as the daemon does; without models.yaml if that is not valid."""
    from proxyd.config.settings_loader import decide_settings
    from proxyd.daemon.configuration import load_configuration

    try:
        return load_configuration(flags, models, os.environ).settings
    except ConfigError:
        if models is not None:
            raise
        return decide_settings(flags, os.environ)


class _State:
    """State received from the feed."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.is_connected = False
        self.hello: dict[str, Any] = {}
        self.now: dict[str, Any] = {}
        self.recent: list[dict[str, Any]] = []
        self.sort = "a"

    def update(self, event: str, data: dict[str, Any]) -> None:
        self.is_connected = True
        if event == "hello":
            self.hello, self.recent = data, data["recent"][-_RECENT:]
        if event in ("hello", "active"):
            self.now = data
        elif event == "call":
            self.recent = [*self.recent, data][-_RECENT:]

    def disconnect(self) -> None:
        self.is_connected = False

    def active(self) -> list[dict[str, Any]]:
        """Return the calls in flight in the chosen order."""
        name = _SORTS[self.sort][1]
        calls = self.now.get("active", [])
        if name == "route":
            return sorted(calls, key=lambda call: str(call[name]))
        return sorted(calls, key=lambda call: -(call[name] or 0))


async def _listen(
    settings: Settings,
    on_event: Callable[[str, dict[str, Any]], None],
    on_disconnect: Callable[[], None] = lambda: None,
) -> None:
    """Follow the feed until its end.

    Raises:
        ProxyError: the server refuses access, or is not claude-proxy.
        aiohttp.ClientError, ConnectionError: there is no connection.
    """
    import aiohttp
    from aiohttp_sse_client.client import EventSource

    from proxyd import jsonio
    from proxyd.api.access_control import TOKEN_HEADER

    headers = {} if settings.auth_token is None else {TOKEN_HEADER: settings.auth_token.reveal()}
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=settings.connect_s, sock_read=15)
    async with aiohttp.ClientSession(read_bufsize=_MAX_LINE_BYTES, timeout=timeout) as session:
        # At the end of the feed the source calls `on_error` and reconnects at once.
        source = EventSource(
            f"{_url(settings)}/events",
            session=session,
            headers=headers,
            reconnection_time=timedelta(0),
            on_error=on_disconnect,
        )
        try:
            await source.connect()
        except (ConnectionRefusedError, ConnectionAbortedError) as exc:
            raise ProxyError(
                f"what answers at {_url(settings)} does not give its feed: check --port, and auth_token if one is set"
            ) from exc
        try:
            async for message in source:
                on_event(message.type, jsonio.loads(message.data.encode()))
        finally:
            await source.close()


def _url(settings: Settings) -> str:
    return f"http://{f'[{settings.host}]' if ':' in settings.host else settings.host}:{settings.port}"


async def _print_once(settings: Settings) -> int:
    import aiohttp
    from rich.console import Console

    state = _State(_url(settings))

    class Received(Exception):
        pass

    def on_event(event: str, data: dict[str, Any]) -> None:
        state.update(event, data)
        raise Received

    try:
        await _listen(settings, on_event)
    except Received:
        pass
    except (aiohttp.ClientError, ConnectionError, asyncio.TimeoutError):
        click.echo(f"no claude-proxy answers at {state.url}; start it with 'claude-proxy start'", err=True)
        return 3
    Console(highlight=False).print(_view(state))
    return 0


async def _follow(settings: Settings) -> int:
    import aiohttp
    from rich.console import Console
    from rich.live import Live

    state, stop, console = _State(_url(settings)), asyncio.Event(), Console(highlight=False)

    async def listen() -> None:
        while True:
            with suppress(aiohttp.ClientError, ConnectionError, asyncio.TimeoutError, ValueError):
                await _listen(settings, state.update, state.disconnect)
            state.disconnect()
            await asyncio.sleep(_RETRY_S)

    def on_key(key: str) -> None:
        if key in _SORTS:
            state.sort = key
        elif key in ("q", "\x03", "\x1b"):
            stop.set()

    listening = asyncio.create_task(listen())
    try:
        with _keys(on_key), Live(_view(state), console=console, screen=True, auto_refresh=False) as live:
            while not stop.is_set() and not listening.done():
                live.update(_view(state, console), refresh=True)
                with suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(stop.wait(), 1 / _DRAWS_PER_S)
    finally:
        if not listening.done():
            listening.cancel()
        with suppress(asyncio.CancelledError):
            await listening
    return 0


@contextmanager
def _keys(on_key: Callable[[str], None]) -> Iterator[None]:
    """Call `on_key` for each key; restore the terminal afterwards."""
    import termios
    import tty

    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    loop = asyncio.get_running_loop()

    def read() -> None:
        data = os.read(descriptor, 64)
        if not data:
            on_key("q")  # the terminal was closed
        for key in data.decode("utf-8", "replace"):
            on_key(key)

    tty.setcbreak(descriptor)
    loop.add_reader(descriptor, read)
    try:
        yield
    finally:
        loop.remove_reader(descriptor)
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


# -- rendering


def _view(state: _State, console: Console | None = None) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    if not state.is_connected:
        where = f"No claude-proxy answers at {state.url}; waiting for it. q quits."
        return Text(where, style="yellow")
    now = state.now
    up_s = now["now"] - state.hello["started_at"]
    head = Text.assemble(
        ("claude-proxy ", "bold"),
        f"{printable(state.hello['version'])}  up {_span(up_s)}  {len(now['active'])} in flight",
        ("  stopping" if now["is_draining"] else "", "yellow"),
    )
    parts: list[RenderableType] = [head, _totals(now["totals"]), Text(), _active(state)]
    if state.recent:
        parts += [Text(), _recent(state.recent, 120 if console is None else console.width)]
    if console is not None:
        keys = "  ".join(f"{key} {name}" for key, (name, _) in _SORTS.items())
        parts += [Text(), Text(f"sorted by {_SORTS[state.sort][0]}   keys: {keys}  q quit", style="dim")]
    return Group(*parts)


def _table(*columns: str) -> Table:
    """Build a table without lines; a name with ``>`` in front is that of a column of numbers."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="dim", expand=False)
    for name in columns:
        is_number = name.startswith(">")
        table.add_column(
            name.lstrip(">"), justify="right" if is_number else "left", no_wrap=is_number, overflow="ellipsis"
        )
    return table


def _totals(totals: list[dict[str, Any]]) -> RenderableType:
    from rich.text import Text

    input_tokens = sum(
        row["input_tokens"] + row["cache_read_tokens"] + row["cache_write_tokens"] for row in totals
    )
    output_tokens = sum(row["output_tokens"] for row in totals)
    calls, failures = sum(row["calls"] for row in totals), sum(row["failures"] for row in totals)
    cost = sum(row["cost_usd"] for row in totals)
    return Text(
        f"since the start: {calls} calls, {failures} failed, {_short(input_tokens)} in, {_short(output_tokens)} out"
        + (f", ${cost:.2f}" if cost else ""),
        style="dim",
    )


def _active(state: _State) -> RenderableType:
    from rich.text import Text

    calls = state.active()
    if not calls:
        return Text("Nothing is in flight.", style="dim")
    table = _table("model", "for", "phase", ">age", ">tokens", ">per s", ">retries")
    for call in calls:
        table.add_row(
            Text(printable(call["route"] or call["model"]), style="bold"),
            Text(printable(call["kind"])),
            Text(printable(call["phase"]), style="green" if call["phase"] == "streaming" else "yellow"),
            _span(call["duration_ms"] / 1000),
            f"~{_short(call['output_tokens'])}" if call["output_tokens"] else "",
            "" if call["tokens_per_s"] is None else f"{call['tokens_per_s']:.0f}",
            str(call["retries"] or ""),
        )
    return table


def _result(call: dict[str, Any]) -> str:
    """Say in words how a call ended."""
    if call["outcome"] == "client_gone":
        return "client left"
    if call["outcome"] == "ok":
        reason = call["stop_reason"]
        return "done" if reason in _USUAL_REASONS else f"done: {reason}"
    return str(call["error"] or call["error_type"] or call["outcome"])


def _recent(calls: list[dict[str, Any]], width: int) -> RenderableType:
    from rich.text import Text

    is_wide = width >= _WIDE
    table = _table("ended", "model", "result", ">in", ">out", *([">first byte"] if is_wide else []), ">total")
    for call in reversed(calls):
        is_fine = call["outcome"] in ("ok", "client_gone")
        ended = time.strftime("%H:%M:%S", time.localtime(call["started_at"] + call["duration_ms"] / 1000))
        first_byte = "" if call["ttfb_ms"] is None else f"{call['ttfb_ms'] / 1000:.1f} s"
        input_tokens = call["input_tokens"] + call["cache_read_tokens"] + call["cache_write_tokens"]
        table.add_row(
            ended,
            Text(printable(call["route"] or call["model"])),
            # One line for each call; the log has the whole sentence.
            Text(printable(_result(call)), style="" if is_fine else "red", no_wrap=True, overflow="ellipsis"),
            _short(input_tokens) if input_tokens else "",
            ("~" if call["is_estimated"] else "") + _short(call["output_tokens"]),
            *([first_byte] if is_wide else []),
            f"{call['duration_ms'] / 1000:.1f} s",
        )
    return table


def _span(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02} min"
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"


def _short(count: int) -> str:
    for size, sign in ((1_000_000, "M"), (1_000, "k")):
        if count >= size:
            return f"{count / size:.1f}{sign}"
    return str(count)
