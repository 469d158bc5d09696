"""Installs Claude Code, and other packages, with npm into a git-ignored folder of the checkout.

The npm package wraps a native binary of about 380 MB, an optional dependency named after the platform, which a
postinstall script links. If npm runs no scripts, or Node is too old for the wrapper, the binary itself still works:
`installed_claude` looks for one that runs with ``--version``.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

__all__ = [
    "PINNED_VERSION",
    "InstallError",
    "UnreachableRegistryError",
    "installed_claude",
    "installed_package",
]

PACKAGE = "@anthropic-ai/claude-code"
#: The version that docs/spec/claude-code.md describes; `CLAUDE_VERSION` overrides it.
PINNED_VERSION = "2.1.332"
#: npm's codes for an unreachable registry, as opposed to a missing version.
UNREACHABLE = re.compile(
    r"\bcode (E(?:NOTFOUND|AI_AGAIN|CONNREFUSED|CONNRESET|TIMEDOUT|NETUNREACH|HOSTUNREACH|401|403|407|5\d\d)"
    r"|ERR_SOCKET_TIMEOUT|FETCH_ERROR|\w*CERT\w*|SELF_SIGNED_\w+|UNABLE_TO_\w+)\b"
)
INSTALL_TIMEOUT_S = 600


class UnreachableRegistryError(Exception):
    """npm is missing or cannot reach its registry: the scenarios cannot run on this machine."""


class InstallError(Exception):
    """npm ran, but no installed binary starts."""


def installed_claude(folder: Path, version: str) -> tuple[Path, str]:
    """Install Claude Code if necessary; return the path of a working binary and its version.

    An installed pinned version is reused; ``latest`` queries the registry each time.

    Raises:
        UnreachableRegistryError: npm or its registry is missing.
        InstallError: the installation failed.
    """
    target = folder / f"claude-{version}"
    present = _working_binary(target)
    if present is not None and present[1] == version:
        return present
    _npm_install(target, f"{PACKAGE}@{version}")
    present = _working_binary(target)
    if present is None:
        raise InstallError(f"npm installed {PACKAGE}@{version}, but no binary in it starts on this machine")
    return present


def installed_package(folder: Path, package: str, version: str) -> Path:
    """Install a package of npm if necessary; return the folder in which Node finds it.

    Raises:
        UnreachableRegistryError: npm or its registry is missing.
        InstallError: the installation failed.
    """
    target = folder / f"{package.rpartition('/')[2]}-{version}"
    if not (target / "node_modules" / package / "package.json").exists():
        _npm_install(target, f"{package}@{version}")
    return target


def _npm_install(target: Path, package: str) -> None:
    npm = shutil.which("npm")
    if npm is None:
        raise UnreachableRegistryError("npm is not installed")
    target.mkdir(parents=True, exist_ok=True)
    # fmt: off
    command = [
        npm, "install", "--prefix", str(target), "--no-fund", "--no-audit", "--no-engine-strict", "--no-save",
        "--fetch-retries=1", "--fetch-retry-mintimeout=1000", package,
    ]
    # fmt: on
    print(f"installing {package} into {target.name}", file=sys.stderr, flush=True)
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=INSTALL_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise UnreachableRegistryError(f"npm did not finish within {INSTALL_TIMEOUT_S} s") from None
    if done.returncode == 0:
        return
    output = done.stdout + done.stderr
    found = UNREACHABLE.search(output)
    if found is not None:
        raise UnreachableRegistryError(f"npm could not reach its registry ({found[1]})")
    raise InstallError(f"npm install failed:\n{output[-2000:]}")


def _working_binary(target: Path) -> tuple[Path, str] | None:
    scope = target / "node_modules" / PACKAGE.partition("/")[0]
    # The linked binary first, then those of the platform packages for glibc and musl, of which one starts.
    for path in [target / "node_modules/.bin/claude", *sorted(scope.glob("claude-code-*/claude*"))]:
        if not os.access(path, os.X_OK) or path.is_dir():
            continue
        try:
            output = subprocess.run(
                [path, "--version"],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            ).stdout
        except (OSError, subprocess.TimeoutExpired):
            continue
        found = re.match(r"\d+\.\d+\.\d+\S*", output)
        if found is not None:
            return path.resolve(), found[0]
    return None
