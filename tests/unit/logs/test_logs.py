"""What the daemon does not load."""

from __future__ import annotations

import subprocess
import sys


def test_the_daemon_loads_no_rich_and_commands_still_can() -> None:
    script = (
        "import sys, proxyd.daemon.server\n"
        "assert not [name for name in sys.modules if name.split('.')[0] in ('rich', 'pygments')]\n"
        "from rich.console import Console\n"
        "Console(file=sys.stdout).print('ok')\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("ok\n", "")
