"""What OpenTelemetry costs a daemon that does not use it: nothing, not even an import."""

from __future__ import annotations

import signal
from pathlib import Path

from proxyd.daemon.server import Daemon
from proxyd.telemetry.call_trace import CallTrace
from tests.support.daemon_process import process
from tests.support.harness import load_entries
from tests.support.ports import free_port
from tests.support.raw_sockets import RawUpstream, ask, post
from tests.support.streams import CHUNKED, HELLO, TRANSLATED, as_chunks

MODULE = "tests.support.listing_modules"
KEYS = "key-of-the-environment-0123", "key-of-models-yaml-0123"


async def imports_of_daemon(folder: Path, **settings: object) -> set[str]:
    """Names of what a daemon has imported when it ends, after a call."""
    upstream = RawUpstream(lambda _: (CHUNKED, as_chunks(*TRANSLATED.values()), b"0\r\n\r\n"))
    environ = {
        "MODULES_FILE": str(folder / "modules"),
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{free_port()}",
        "OTEL_EXPORTER_OTLP_HEADERS": f"x-key={KEYS[0]}",
        "OTEL_EXPORTER_OTLP_TIMEOUT": "0.1",
    }
    async with (
        upstream.running(),
        process(folder, upstream, module=MODULE, environ=environ, **settings) as daemon,
    ):
        assert (await ask(daemon.base, post({**HELLO, "model": "m"}))).status == 200
        shown = await ask(daemon.base, b"GET /test-connection HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b'"otel"' in shown.body
        assert not any(key.encode() in shown.body for key in KEYS)
        daemon.send(signal.SIGTERM)
        assert await daemon.ended(30) == 0
    assert not any(key in str(daemon.lines) for key in KEYS)
    return set((folder / "modules").read_text("utf-8").split("\n"))


async def test_a_daemon_without_the_setting_imports_nothing_of_it(tmp_path: Path) -> None:
    assert {"opentelemetry.sdk.trace", "requests"} <= await imports_of_daemon(
        tmp_path, otel={"headers": {"authorization": f"Token {KEYS[1]}"}}
    )
    found = await imports_of_daemon(tmp_path)
    assert "proxyd.telemetry.hub" in found
    assert [name for name in found if name.startswith(("opentelemetry", "requests", "google.protobuf"))] == []
    assert [name for name in found if name.startswith("proxyd.telemetry.otel")] == []


async def test_without_the_setting_nothing_is_registered(tmp_path: Path) -> None:
    async def traced(**settings: object) -> tuple[int, type[CallTrace]]:
        daemon = Daemon(load_entries([{"model_id": "m", "api_base": "http://127.0.0.1:9"}], **settings))
        await daemon.start()
        try:
            relay = daemon._relay
            assert relay is not None
            return len(relay.finished.observers), type(relay.new_trace(None, b"", {}))
        finally:
            await daemon.close()

    assert await traced() == (4, CallTrace)
