"""The calls of one version of Claude Code: the conversations of `tests.captures`, from the records of the proxy.

The daemon has direct routes to a scripted upstream and records all calls with their bodies. Beside the conversations in
print mode there is one in a terminal, in auto mode: `safeguards` are sent in such sessions only.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from proxyd import jsonio
from proxyd.recording import store
from proxyd.telemetry.request_kind import CLASS_HEADER, kind_of
from tests.captures.recording import (
    CONVERSATIONS,
    KNOWN,
    UNKNOWN,
    Front,
    Recorder,
    RecordingError,
    Session,
    restart_ids,
)
from tests.support.ports import free_port
from tests.system.e2e.daemon import Daemon
from tests.system.e2e.stage import ScenarioError, Stage
from tests.system.e2e.terminal import home_of, terminal_running_code

__all__ = ["Call", "Calls", "record_calls"]

#: Conversation in a terminal.
INTERACTIVE = "interactive"
RECORD = {
    "CLAUDE_PROXY_RECORD": "all",
    "CLAUDE_PROXY_RECORD_BODIES": "true",
    "CLAUDE_PROXY_RECORD_MAX": "1000",
    "LOG_FORMAT": "json",
}
#: In the terminal all side calls are made; what is not for the model goes nowhere.
EVERYTHING = {
    "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "",
    "CLAUDE_CODE_DISABLE_OFFICIAL_MARKETPLACE_AUTOINSTALL": "1",
    "DISABLE_AUTOUPDATER": "1",
    "HTTPS_PROXY": "http://127.0.0.1:9",
}
#: So that the client says what each call is for.
HINTS = {"CLAUDE_CODE_GATEWAY_HINT_HEADERS": "1"}


@dataclass(frozen=True)
class Call:
    """One call.

    Attributes:
        kind: what it is for (`proxyd.telemetry.request_kind`).
        path: without the query.
        headers: names in lower case.
        body: {} for a request without one.
    """

    conversation: str
    kind: str
    path: str
    headers: Mapping[str, str]
    body: Mapping[str, Any]


@dataclass
class Calls:
    """What one version sent.

    Attributes:
        calls: in order.
        refused: method and path of requests that the proxy has no endpoint for.
        failures: what went wrong in a conversation, a line each.
    """

    version: str
    calls: list[Call] = field(default_factory=list)
    refused: set[str] = field(default_factory=set)
    failures: list[str] = field(default_factory=list)


async def record_calls(binary: Path, version: str) -> Calls:
    """Run all conversations with one version."""
    restart_ids()
    found = Calls(version)
    with tempfile.TemporaryDirectory(prefix="client-diff-", ignore_cleanup_errors=True) as folder:
        await _record_printed(Path(folder, "printed"), binary, found)
        await _record_interactive(Path(folder, "terminal"), binary, found)
    return found


def _entries(port: int) -> list[dict[str, Any]]:
    upstream = {"api_base": f"http://127.0.0.1:{port}", "direct": True}
    return [{"model_id": UNKNOWN, **upstream}, {"model_id": KNOWN, "aliases": ["claude-*"], **upstream}]


async def _record_printed(folder: Path, binary: Path, found: Calls) -> None:
    port = free_port()
    daemon = Daemon(_entries(port), folder / "daemon", RECORD)
    await daemon.start()
    began: list[tuple[float, str]] = []
    try:
        for name, conversation in CONVERSATIONS.items():
            began.append((time.time(), name))
            with tempfile.TemporaryDirectory(dir=folder, ignore_cleanup_errors=True) as place:
                try:
                    await conversation(Session(place, binary, Front(daemon.base_url, port, HINTS)))
                except (RecordingError, StopIteration, LookupError) as exc:
                    found.failures.append(f"{found.version} {name}: {exc or type(exc).__name__}")
            print(f"{found.version} {name}", flush=True)
    finally:
        await daemon.stop()
    for record in _records(daemon.state_folder):
        started = datetime.fromisoformat(str(record.call["started"]).replace("Z", "+00:00")).timestamp()
        conversation_of = [name for moment, name in began if moment <= started][-1]
        found.calls.append(_call(record, conversation_of))
    found.refused |= _refused_in(daemon.log())


async def _record_interactive(folder: Path, binary: Path, found: Calls) -> None:
    if shutil.which("tmux") is None:
        found.failures.append(f"{found.version} {INTERACTIVE}: tmux is not installed")
        return
    stage = Stage(folder, binary)
    async with Recorder([]) as recorder:
        port = int(recorder.origin.rpartition(":")[2])
        arguments = (UNKNOWN, "--permission-mode", "auto")
        try:
            async with terminal_running_code(
                stage,
                _entries(port),
                *arguments,
                environment={**RECORD, **EVERYTHING},
                switches={"IS_SANDBOX": "1"},
            ) as terminal:
                await terminal.expect("auto mode on")
                await terminal.enter("Say hello.")
                await terminal.expect("Done.")
                await terminal.enter("/context")
                await terminal.expect("Auto-compact window")
        except ScenarioError as exc:
            found.failures.append(f"{found.version} {INTERACTIVE}: {exc}")
    state = home_of(stage) / ".local" / "state" / "claude-proxy"
    found.calls += [_call(record, INTERACTIVE) for record in _records(state)]
    for log in state.glob("*.log"):
        found.refused |= _refused_in(log.read_text(errors="replace"))
    print(f"{found.version} {INTERACTIVE}", flush=True)


def _records(state: Path) -> list[store.Record]:
    return [store.load(path) for path in store.folders(state / store.FOLDER)]


def _call(record: store.Record, conversation: str) -> Call:
    headers = {str(name).lower(): str(value) for name, value in record.client["headers"].items()}
    body = jsonio.loads(record.body) if record.body else {}
    path = str(record.client["path"]).partition("?")[0]
    if path.endswith("/count_tokens"):
        kind = "count"
    else:
        is_subagent = "x-claude-code-agent-id" in headers
        kind = kind_of(body, is_subagent=is_subagent, request_class=headers.get(CLASS_HEADER))
    return Call(conversation, kind, path, headers, body)


def _refused_in(log: str) -> set[str]:
    found = set()
    for line in log.splitlines():
        if "request.refused" in line and line.startswith("{"):
            fields = jsonio.loads(line.encode())
            found.add(f"{fields['method']} {fields['path']}")
    return found
