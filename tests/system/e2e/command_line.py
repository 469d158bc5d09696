"""Commands of claude-proxy as processes."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Mapping
from pathlib import Path

__all__ = ["run_proxyd"]

#: Timeout of a start and a short conversation.
TIMEOUT_S = 120.0


async def run_proxyd(variables: Mapping[str, str], folder: Path, *arguments: str) -> tuple[int, str, str]:
    """Run ``claude-proxy ARGUMENTS`` in `folder`; return its exit code, stdout and stderr."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "proxyd", *arguments),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=folder,
        env=variables,
        start_new_session=True,
    )
    try:
        out, err = await asyncio.wait_for(process.communicate(), TIMEOUT_S)
    except asyncio.TimeoutError:
        os.kill(process.pid, 9)
        raise
    return process.returncode or 0, out.decode(), err.decode()
