"""``python -m tests.system.service.installation``: install, start, call and uninstall in an empty HOME.

It builds a real environment with pip, which takes a minute; so it is run by CI and not with the other tests.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path

from tests.support.paths import ROOT
from tests.support.ports import free_port

OLD = "#!/bin/sh\necho an older claude-proxy\n"


class Home:
    """An empty HOME."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.port = free_port()
        # Keep what pip needs to reach its index, and nothing else of this machine.
        kept = {name: value for name, value in os.environ.items() if name.startswith(("PIP_", "SSL_"))}
        self.environ = {
            **kept,
            "HOME": str(path),
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "PORT": str(self.port),
        }
        self.command = path / ".local" / "bin" / "claude-proxy"

    def run(self, *command: str | Path, code: int = 0) -> str:
        done = subprocess.run(
            command, env=self.environ, cwd=self.path, capture_output=True, text=True, timeout=600
        )
        print(f"$ {' '.join(Path(str(word)).name for word in command)}")
        for line in (done.stdout + done.stderr).splitlines():
            print(f"    {line}".replace(str(self.path), "~").replace(str(ROOT), "CHECKOUT"))
        if done.returncode != code:
            raise SystemExit(f"it ended with {done.returncode}, expected {code}")
        return done.stdout

    def files(self) -> set[str]:
        return {str(path.relative_to(self.path)) for path in self.path.rglob("*") if not path.is_dir()}


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="proxyd-home-") as folder:
        home = Home(Path(folder))
        # A foreign file of that name must be restored in the end.
        home.command.parent.mkdir(parents=True)
        home.command.write_text(OLD)
        before = home.files()
        home.run(ROOT / "install.sh", "--method", "venv")
        assert home.command.with_name("claude-proxy.bak").read_text() == OLD
        home.run(home.command, "init")
        configured = home.files()
        home.run(home.command, "start")
        try:
            call(home)
            home.run(home.command, "status")
        finally:
            home.run(home.command, "stop")
        home.run(ROOT / "install.sh")
        home.run(ROOT / "uninstall.sh")
        after = home.files()
        left = {
            name for name in after - before if not name.startswith((".config/", ".local/state/", ".cache/"))
        }
        assert not left, f"left behind: {sorted(left)}"
        assert {name for name in configured if name.startswith(".config/claude-proxy")} <= after
        assert home.command.read_text() == OLD
        home.run(ROOT / "uninstall.sh")
    print("installed, started, called, updated, uninstalled")


def call(home: Home) -> None:
    """Send one streamed call to the embedded model."""
    body = {
        "model": "demo",
        "max_tokens": 50,
        "stream": True,
        "messages": [{"role": "user", "content": "hi"}],
    }
    request = urllib.request.Request(
        f"http://127.0.0.1:{home.port}/v1/messages",
        json.dumps(body).encode(),
        {"content-type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=30) as response:
        data = response.read()
    assert b"event: message_stop" in data, data[-300:]
    print("    a streamed call of the demo model was answered")


if __name__ == "__main__":
    sys.exit(main())
